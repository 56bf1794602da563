"""Started by root with ``twistd --uid``: what is opened before that is obeyed, and what after."""

from __future__ import annotations

import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import mtserver
from mtserver.process.privileges import as_user, is_root

from .peer import DEADLINE, Peer
from .server import TCP, Server, script, wait_until

#: What the server runs as.
USER = "nobody"


def low_port() -> int:
    """A free port that only root may open, as a rule."""
    for number in range(1023, 511, -1):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
    raise AssertionError("every port below 1024 is taken")


class TestPrivileges(SynchronousTestCase):
    def setUp(self) -> None:
        if not is_root() or not hasattr(os, "pidfd_open"):
            raise SkipTest("needs Linux and root, whose privileges are dropped")
        self.user = pwd.getpwnam(USER)
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)

    def need_to_be_read(self) -> None:
        """The server goes on importing once it is the user."""
        try:
            with as_user(self.user.pw_uid, None):
                Path(mtserver.__file__).read_bytes()
                Path(sys.prefix, "pyvenv.cfg").read_bytes()
        except PermissionError:
            raise SkipTest(f"needs a checkout that {USER} may read: it is imported after root is given up") from None

    def owned(self, *names: str) -> None:
        for name in names:
            about = (self.folder / name).stat()
            self.assertEqual((about.st_uid, about.st_gid), (self.user.pw_uid, self.user.pw_gid), name)

    def refused(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A start in the foreground that is expected to come to nothing."""
        return subprocess.run(
            [script("twistd"), "-n", "--uid", USER, "--pidfile=", *words, "--port", TCP],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    @contextmanager
    def daemon(self, *options: str) -> Iterator[int]:
        """A pidfd of the server, in the background, with all files in the folder."""
        command = [
            script("twistd"),
            "--uid",
            USER,
            "--pidfile=server.pid",
            "--logfile=server.log",
            "mtserver",
            *options,
        ]
        subprocess.run(command, cwd=self.folder, check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE)
        pid_file = self.folder / "server.pid"
        self.pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the pid file"))
        process = os.pidfd_open(self.pid)
        try:
            wait_until(lambda: "Listening on " in (self.folder / "server.log").read_text(), "listening")
            yield process
        finally:
            if not select.select([process], [], [], 0)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)

    def test_daemon(self) -> None:
        """The port is root's; the process, its journal, log and audit log are the user's, and root is gone for good."""
        self.need_to_be_read()
        port = low_port()
        options = ("--port", f"tcp:{port}:interface=127.0.0.1", "--audit-log", "audit.log")
        with self.daemon(*options) as process:
            with Peer.connect(port) as peer:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                self.owned("server.log", "audit.log", "mtserver.db", "mtserver.db-wal")
                status = Path(f"/proc/{self.pid}/status").read_text()
                for name, number in (("Uid", self.user.pw_uid), ("Gid", self.user.pw_gid)):
                    self.assertRegex(status, rf"(?m)^{name}:(\s+{number}){{4}}$")
                self.assertNotIn("0", re.search(r"(?m)^Groups:\t(.*)$", status)[1].split())  # type: ignore[index]
                self.assertRegex(status, r"(?m)^CapEff:\s+0+$")
                self.assertNotIn("serving as root", (self.folder / "server.log").read_text())

                signal.pidfd_send_signal(process, signal.SIGUSR1)
                wait_until((self.folder / "server.log.1").exists, "a log that is rotated with the user's rights")
                (self.folder / "audit.log").rename(self.folder / "audit.log.1")
            signal.pidfd_send_signal(process, signal.SIGTERM)
            self.assertEqual(select.select([process], [], [], DEADLINE)[0], [process], "it does not end")
        self.owned("server.log", "server.log.1", "audit.log", "audit.log.1")
        self.assertFalse((self.folder / "server.pid").exists())
        (stop,) = (self.folder / "audit.log").read_text().splitlines()
        self.assertEqual(json.loads(stop)["event"], "stop")

    def test_descriptors(self) -> None:
        """The limit of open files that root has raised holds for the user."""
        self.need_to_be_read()
        limit = ("sh", "-c", 'ulimit -S -n 100; exec "$@"', "sh")
        command = ("twistd", "-n", "--uid", USER, "--pidfile=")
        with Server("--max-clients", "300", command=command, prefix=limit, folder=self.folder) as server:
            limits = Path(f"/proc/{server.pid}/limits").read_text()
            soft = re.search(r"(?m)^Max open files\s+(\d+)", limits)
            assert soft is not None
            self.assertGreaterEqual(int(soft[1]), 364)
            self.assertNotIn("too low for --max-clients", server.log)

    def test_link(self) -> None:
        """A link that the user has laid where the log is to be leads root nowhere: one line, and it does not start."""
        treasure = self.folder.with_suffix(".root")
        treasure.write_text("root's\n")
        treasure.chmod(0o600)
        self.addCleanup(treasure.unlink)
        (self.folder / "server.log").symlink_to(treasure)
        ended = self.refused("--logfile=server.log", "mtserver")
        self.assertEqual(ended.stderr, "mtserver: --logfile server.log: Permission denied\n")
        self.assertEqual((ended.returncode, treasure.read_text()), (1, "root's\n"))

    def test_audit_log_of_root(self) -> None:
        """An audit log that the user may not open is one line, and an exit; the port is free again."""
        (self.folder / "audit.log").touch(0o600)
        ended = self.refused("mtserver", "--audit-log", "audit.log")
        self.assertEqual(ended.stderr, "mtserver: --audit-log audit.log: Permission denied\n")
        self.assertEqual(ended.returncode, 1)

    def test_root(self) -> None:
        """Without ``--uid`` it serves as root, and says so once."""
        with Server("--audit-log", "audit.log") as server:
            self.assertEqual(server.log.count("serving as root"), 1)
            first = (server.folder / "audit.log").read_text().splitlines()[0]
            self.assertEqual(json.loads(first)["event"], "root")
