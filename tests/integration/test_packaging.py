"""The units in packaging/: what systemd thinks of them, and their command line as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE, Peer
from .server import Server, script
from .test_status import activated

PACKAGING = Path(__file__).parent.parent.parent / "packaging"


class TestUnits(SynchronousTestCase):
    def setUp(self) -> None:
        if not PACKAGING.exists():
            raise SkipTest("not in a checkout")
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.text = (PACKAGING / "mtserver.service").read_text()
        # The one thing that verify looks for on this machine.
        here = self.text.replace("/opt/mtserver/bin/twistd", script("twistd"))
        (self.folder / "mtserver.service").write_text(here)
        shutil.copy(PACKAGING / "mtserver.socket", self.folder)

    def analyze(self, *words: str) -> subprocess.CompletedProcess[str]:
        path = shutil.which("systemd-analyze")
        if path is None:
            raise SkipTest("needs systemd-analyze: apt-get install systemd")
        return subprocess.run(
            [path, *words], cwd=self.folder, capture_output=True, text=True, check=False, timeout=DEADLINE
        )

    def test_verify(self) -> None:
        """Systemd understands every line of both."""
        done = self.analyze("verify", "./mtserver.service", "./mtserver.socket")
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_security(self) -> None:
        """Its own measure of exposure, 0 to 10, is 1.5 or less."""
        done = self.analyze("security", "--offline=yes", "--threshold=15", "./mtserver.service")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_command(self) -> None:
        """The command of the unit serves, on the socket of the other, and puts its files where the unit lets it."""
        found = re.search(r"^ExecStart=/opt/mtserver/bin/twistd ((?:.*\\\n)*.*)$", self.text, re.MULTILINE)
        assert found is not None
        words = shlex.split(found[1].replace("\\\n", " "))
        places = {"/etc/mtserver": self.folder, "/var/log/mtserver": self.folder}
        for place, here in places.items():
            self.assertEqual(sum(word.startswith(place) for word in words), 1)
            words = [word.replace(place, str(here)) for word in words]
        at = words.index("mtserver")
        (self.folder / "mtserver.toml").touch()
        with socket.socket(socket.AF_INET6) as listening:
            try:
                listening.bind(("::1", 0))
            except OSError:
                raise SkipTest("needs IPv6") from None
            listening.listen()
            with Server(
                *words[at + 1 :],
                ports=[],
                command=("twistd", *words[:at]),
                folder=self.folder,
                **activated(listening),
            ) as server:
                server.wait_for_log(r"Listening on \[::1\]:\d+")
                connection = socket.create_connection(listening.getsockname()[:2], DEADLINE)
                with Peer(connection) as peer:
                    self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                server.stop()
                self.assertEqual(server.wait(), 0)
        self.assertTrue((self.folder / "audit.log").exists())
        self.assertTrue((self.folder / "mtserver.db").exists())
