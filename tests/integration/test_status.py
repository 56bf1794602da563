"""What those who run the server see of it: the audit log, a service manager's sockets, and its user's rights."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE
from .server import TCP, Server, run_to_end

#: What systemd does for a socket unit: the socket is descriptor 3, and the process itself is named.
ACTIVATE = """
import os, sys
listening, *command = sys.argv[1:]
os.dup2(int(listening), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="mtserver.socket")
os.execv(command[0], command)
"""


def activated(listening: socket.socket) -> dict[str, Any]:
    """What has a :class:`Server` inherit this socket as it would from systemd."""
    number = listening.fileno()
    return {"prefix": (sys.executable, "-c", ACTIVATE, str(number)), "inherited": [number]}


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestAuditLog(SynchronousTestCase):
    def test_separate(self) -> None:
        """With ``--audit-log`` the file has the security events, in order, and the log none of them."""
        with Server("--max-clients", "1", "--max-message", "100", "--audit-log", "audit.log") as server:
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                with server.connect() as other:
                    self.assertRegex(other.rest(), rb"\AERR busy ")
                peer.send(b"x" * 200)
                self.assertRegex(peer.rest(), rb"\AERR too-long ")
            server.stop()
            self.assertEqual(server.wait(), 0)
            self.assertNotIn("mtserver.audit", server.log)
            found = [event for event in events(server.folder / "audit.log") if event["event"] != "root"]
            names = [(event["event"], event.get("code")) for event in found]
            self.assertEqual(names, [("start", None), ("refused", "busy"), ("closed", "too-long"), ("stop", None)])
            self.assertEqual(found[0]["ports"], f"127.0.0.1:{server.port}")
            self.assertRegex(found[1]["peer"], r"\A127\.0\.0\.1:\d+\Z")

    def test_ordinary(self) -> None:
        """Without it they are lines of the log, in its format."""
        with Server("--max-clients", "1", "--log-format", "json") as server:
            with server.connect() as peer, server.connect() as other:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                self.assertRegex(other.rest(), rb"\AERR busy ")
            server.wait_for_log('"audit": "refused"')
            found = [json.loads(line) for line in server.log.splitlines()]
        (refused,) = [event for event in found if event.get("audit") == "refused"]
        self.assertEqual((refused["namespace"], refused["code"], refused["level"]), ("mtserver.audit", "busy", "info"))

    def test_rotated(self) -> None:
        """A file that is moved while the server runs is made anew; SIGUSR1 is not needed, and does no harm."""
        with Server("--max-clients", "1", "--audit-log", "audit.log") as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
            path = server.folder / "audit.log"
            path.rename(server.folder / "audit.log.1")
            with server.connect() as other:
                self.assertRegex(other.rest(), rb"\AERR busy ")
            self.assertEqual([event["event"] for event in events(path)], ["refused"])
            self.assertEqual([event["event"] for event in events(server.folder / "audit.log.1")][-1], "start")

    def test_full_disk(self) -> None:
        """On a full disk the server serves and stops as ever, and its log says what is lost."""
        if not Path("/dev/full").exists():
            raise SkipTest("needs /dev/full, a disk that is always full")
        with Server("--max-clients", "1", "--audit-log", "/dev/full") as server:
            with server.connect() as peer, server.connect() as other:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                self.assertRegex(other.rest(), rb"\AERR busy ")
                self.assertEqual(peer.exchange(b"b"), [b"OK 2"])
            server.wait_for_log("audit: refused peer=")
            server.stop()
            self.assertEqual(server.wait(), 0)
            self.assertEqual(server.log.count("the audit log cannot be written"), 1)

    def test_mistakes(self) -> None:
        """A file that cannot be is one line, before any port is open."""
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        ended = run_to_end(folder, "--port", TCP, "--audit-log", "no/such/folder.log")
        self.assertEqual(ended.stderr, "mtserver: --audit-log no/such/folder.log: there is no folder no/such\n")
        self.assertEqual(ended.returncode, 1)


class TestServiceManager(SynchronousTestCase):
    @contextmanager
    def manager(self, name: str) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(DEADLINE)
            manager.bind(name)
            yield manager

    def _told(self, name: str, shown: str) -> None:
        with (
            self.manager(name) as manager,
            Server(environment={"NOTIFY_SOCKET": shown, "WATCHDOG_USEC": "400000"}) as server,
        ):
            self.assertEqual(manager.recv(1000), b"READY=1\nSTATUS=serving, 0 clients")
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
                words = b""
                while b"STATUS=serving, 1 clients" not in words:
                    words = manager.recv(1000)
                    self.assertIn(b"WATCHDOG=1", words)
            server.stop()
            while b"STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000" not in words:
                words = manager.recv(1000)
            self.assertEqual(server.wait(), 0)

    def test_socket(self) -> None:
        """A manager that listens on a path hears of start, clients, every beat of the loop, and the stop."""
        folder = tempfile.mkdtemp(prefix="mtserver-")
        self.addCleanup(shutil.rmtree, folder)
        self._told(f"{folder}/notify", f"{folder}/notify")

    def test_abstract_socket(self) -> None:
        """So does one in Linux's abstract namespace."""
        if sys.platform != "linux":
            raise SkipTest("needs Linux: abstract sockets")
        name = f"mtserver-test-{os.getpid()}"
        self._told(f"\0{name}", f"@{name}")

    def test_stuck(self) -> None:
        """A loop that is stuck says nothing, so that the watchdog bites."""
        stuck = {"stuck": "import time\nasync def stuck(client, message: bytes):\n    time.sleep(600)\n"}
        folder = tempfile.mkdtemp(prefix="mtserver-")
        self.addCleanup(shutil.rmtree, folder)
        environment = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "200000"}
        with (
            self.manager(f"{folder}/notify") as manager,
            Server("--app", "stuck:stuck", modules=stuck, environment=environment) as server,
            server.connect() as peer,
        ):
            server.wait_for_log("client 1 connected")
            manager.recv(1000)
            peer.send(b"a\n")
            manager.settimeout(1)  # five times what the watchdog allows
            with self.assertRaises(TimeoutError):
                while manager.recv(1000):
                    pass

    def test_activation(self) -> None:
        """A socket that systemd has opened is served, by its number or by its name; who was early is not lost."""
        for port in ("systemd:domain=INET:index=0", "systemd:domain=INET:name=mtserver.socket"):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                early = socket.create_connection(listening.getsockname(), DEADLINE)
                early.sendall(b"early\n")
                with (
                    early,
                    Server(ports=[port], **activated(listening)) as server,
                    server.connect(listening.getsockname()[1]) as peer,
                ):
                    self.assertEqual(early.recv(100), b"OK 1\n")
                    early.close()
                    self.assertEqual(peer.exchange(b"a"), [b"OK 2"])
                    server.stop()
                    self.assertRegex(peer.rest(), rb"\AERR closing ")
                    peer.finish()
                    self.assertEqual(server.wait(), 0)

    def test_not_activated(self) -> None:
        """A socket that was not handed over is one line."""
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        for port in ("systemd:domain=INET:index=0", "systemd:domain=INET:name=other"):
            ended = run_to_end(folder, "--port", port)
            self.assertRegex(ended.stderr, rf"\Amtserver: --port {port}: systemd has handed over no such socket\n\Z")
