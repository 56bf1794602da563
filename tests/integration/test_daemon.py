"""``twistd mtserver`` as an operator runs it: daemonised, logging, and refusing to start with a mistake."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE, Peer
from .server import TCP, Server, run_to_end, script, wait_until, write_modules

#: Imported by every Python that starts with it on its path: notes each port that is bound, also if it is closed again.
WITNESS = {
    "sitecustomize": """
        import os, sys

        def note(event, args):
            if event == "socket.bind":
                os.close(os.open(os.environ["WITNESS"], os.O_CREAT | os.O_WRONLY))

        sys.addaudithook(note)
    """
}


class InFolder(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)


class TestDaemon(InFolder):
    def test_daemonised(self) -> None:
        """It goes to the background with a pid file and a log file, serves, and removes the pid file at SIGTERM."""
        if not hasattr(os, "pidfd_open"):
            raise SkipTest("needs Linux: a process is watched that is not our child")
        pid_file, log_file = self.folder / "server.pid", self.folder / "server.log"
        command = [script("twistd"), f"--pidfile={pid_file}", f"--logfile={log_file}", "mtserver", "--port", TCP]
        subprocess.run(command, cwd=self.folder, check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE)
        process = os.pidfd_open(int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the pid file")))
        try:
            found = wait_until(
                lambda: log_file.exists() and re.search(r"Listening on 127\.0\.0\.1:(\d+)", log_file.read_text()),
                "listening",
            )
            with Peer.connect(int(found[1])) as peer:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                signal.pidfd_send_signal(process, signal.SIGTERM)
                self.assertRegex(peer.rest(), rb"\AERR closing ")
            self.assertEqual(select.select([process], [], [], DEADLINE)[0], [process], "it does not end")
            self.assertFalse(pid_file.exists())
            log = log_file.read_text()
            self.assertIn("mtserver.transport.reactor.uv.UVReactor", log)
            self.assertRegex(log, r"client 1 connected from 127\.0\.0\.1:\d+\n")
            self.assertRegex(
                log, r"client 1 from 127\.0\.0\.1:\d+ closed \(closing\) after \d+\.\d+ s: received 1 mess"
            )
        finally:
            if not select.select([process], [], [], 0)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)

    def test_daemon_defaults(self) -> None:
        """Without options of twistd: twistd.pid and twistd.log in the working directory, and so is the journal."""
        if not hasattr(os, "pidfd_open"):
            raise SkipTest("needs Linux: a process is watched that is not our child")
        command = [script("twistd"), "mtserver", "--port", "unix:s.sock"]
        subprocess.run(command, cwd=self.folder, check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE)
        pid_file, log_file = self.folder / "twistd.pid", self.folder / "twistd.log"
        process = os.pidfd_open(int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the pid file")))
        try:
            wait_until(lambda: log_file.exists() and "Listening on unix:s.sock" in log_file.read_text(), "listening")
            connection = socket.socket(socket.AF_UNIX)
            with Peer(connection) as peer:
                connection.settimeout(DEADLINE)
                connection.connect(str(self.folder / "s.sock"))
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
            self.assertTrue((self.folder / "mtserver.db").exists())
            signal.pidfd_send_signal(process, signal.SIGTERM)
            self.assertEqual(select.select([process], [], [], DEADLINE)[0], [process], "it does not end")
            self.assertFalse(pid_file.exists())
        finally:
            if not select.select([process], [], [], 0)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)

    def test_json_log(self) -> None:
        """With ``--log-format json`` every line of mtserver's log is an object with time, level and text."""
        with Server("--log-format", "json", "--app", "log") as server:
            with server.connect() as peer:
                peer.send(b'"quoted" \\ \xff\n')
                peer.finish()
                self.assertEqual(peer.rest(), b"")
            server.stop()
            self.assertEqual(server.wait(), 0)
            events = [json.loads(line) for line in server.log.splitlines()]
        for event in events:
            self.assertEqual(set(event) & {"time", "level", "text"}, {"time", "level", "text"}, event)
        (closed,) = [event for event in events if " closed " in event["text"]]
        self.assertEqual([closed["client"], closed["messages"], closed["bytes"]], [1, 1, 13])
        (received,) = [event for event in events if event["text"].startswith("Received ")]
        self.assertEqual(received["text"], 'Received "quoted" \\\\ \\xff from client 1')

    def test_configuration_file(self) -> None:
        """Options from ``--config``; the command line wins."""
        (self.folder / "server.toml").write_text('app = "echo"\nframing = "netstring"\nmax-clients = 1\n')
        with (
            Server("--config", "server.toml", "--framing", "line", folder=self.folder) as server,
            server.connect() as peer,
        ):
            self.assertEqual(peer.exchange(b"hello"), [b"hello"])
            with server.connect() as other:
                self.assertRegex(other.rest(), rb"\AERR busy retry-after=\d+ ")


class TestMistakes(InFolder):
    def setUp(self) -> None:
        super().setUp()
        self.witness = self.folder / "bound"
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {"PYTHONPATH": path, "WITNESS": str(self.witness)}
        write_modules(self.folder, WITNESS)

    def _mistake(self, *options: str, says: str, binds: bool = False) -> None:
        write_modules(
            self.folder,
            {
                "broken": "raise ValueError('two\\nlines')",
                "syntax": "def (",
                "fine": "async def fine(client, message: bytes): ...\nasync def one(client): ...\nnumber = 1",
            },
        )
        ended = run_to_end(self.folder, *options, environment=self.environment)
        self.assertNotEqual(ended.returncode, 0)
        self.assertRegex(ended.stderr, rf"\Amtserver: [^\n]*{says}[^\n]*\n\Z")
        self.assertNotIn("Traceback", ended.stdout)
        self.assertNotIn("Listening on", ended.stdout)
        self.assertEqual(self.witness.exists(), binds)

    def test_witness(self) -> None:
        """The check that these tests rely on does see a port that is opened."""
        with Server(folder=self.folder, environment=self.environment):
            self.assertTrue(self.witness.exists())

    def test_ports(self) -> None:
        """A port string that is wrong, alone or after a good one."""
        self._mistake("--port", TCP, "--port", "tcp:no", says="--port tcp:no: ")
        self._mistake("--port", "carrier-pigeon:9999", says="--port carrier-pigeon:9999: ")
        self._mistake("--port", "65536", says="--port 65536: a port number")
        self._mistake("--port", "ssl:0:privateKey=none.pem", says="--port ssl:0:privateKey=none.pem: ")

    def test_port_in_use(self) -> None:
        """A port that somebody has: one line, and what was opened before it does not hinder the next start."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            ports = ("--port", "unix:first.sock", "--port", taken)
            self._mistake(*ports, says=f"cannot listen on {taken}: .*in use", binds=True)
        with Server(folder=self.folder, ports=["unix:first.sock"]):
            self.assertTrue((self.folder / "first.sock").exists())

    def test_apps(self) -> None:
        """No module, no attribute, not a handler, the wrong signature, an exception at import."""
        port = ("--port", TCP)
        self._mistake(*port, "--app", "nowhere:app", says="--app nowhere:app: there is no module 'nowhere'")
        self._mistake(*port, "--app", "fine:other", says="--app fine:other: 'fine' has no attribute 'other'")
        self._mistake(*port, "--app", "nonsense", says="--app nonsense: ")
        self._mistake(*port, "--app", "fine:number", says="--app fine:number: ")
        self._mistake(*port, "--app", "fine:one", says=r"--app fine:one: one cannot be called as \(client, message\)")
        self._mistake(*port, "--app", "broken:app", says=r"ValueError: two lines.*broken\.py, line 1")
        self._mistake(*port, "--app", "syntax:app", says="SyntaxError: ")

    def test_options(self) -> None:
        """An option that there is none of, or a value that cannot be."""
        port = ("--port", TCP)
        self._mistake(*port, "--colour", "red", says="colour")
        self._mistake(*port, "surplus", says="'surplus' is not an option")
        self._mistake(*port, "--max-clients", "many", says="--max-clients: 'many' is not a whole number")
        self._mistake(*port, "--idle-timeout", "-1", says="--idle-timeout: '-1' is not a number of 0 or more")
        self._mistake(*port, "--framing", "morse", says="--framing: .*morse")
        self._mistake(*port, "--journal", "sqlite:no/such/folder.db", says="there is no folder no/such")

    def test_configuration_files(self) -> None:
        """A configuration file that is not there, not TOML, or has something that is no option."""
        (self.folder / "bad.toml").write_text("port = = 1\n")
        (self.folder / "odd.toml").write_text("colour = 1\n")
        (self.folder / "type.toml").write_text("max-clients = [1]\n")
        self._mistake("--port", TCP, "--config", "none.toml", says="--config none.toml: .*No such file")
        self._mistake("--port", TCP, "--config", "bad.toml", says="--config bad.toml: .*line 1")
        self._mistake("--port", TCP, "--config", "odd.toml", says="there is no option 'colour'")
        self._mistake("--port", TCP, "--config", "type.toml", says="--max-clients: ")
