"""Reactors in the real process: every kind of port on ours and on Twisted's, and other people's programs on ours."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .certificates import write_certificate
from .peer import DEADLINE, Peer
from .server import FOREGROUND, TCP, Server, script, wait_until

REACTORS = {
    "UVReactor": FOREGROUND,
    "EPollReactor": (*FOREGROUND, "--reactor", "epoll"),
    "AsyncioSelectorReactor": (*FOREGROUND, "--reactor", "asyncio"),
    "PollReactor": (*FOREGROUND, "--reactor", "poll"),
}

#: What systemd does for a unit with a socket: listens, passes it on as descriptor 3, and says so.
SYSTEMD = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
if listening.fileno() != 3:
    os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="mtserver")
os.execv(sys.argv[1], sys.argv[1:])
"""


class InFolder(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class TestPorts(InFolder):
    """A client of each kind of port, on each reactor: replies, half-close, and a reply larger than any buffer."""

    def _serves(self, peer: Peer, first: bytes = b"") -> None:
        with peer:
            peer.send(first + b"one\ntwo\n")
            self.assertEqual(peer.lines(2), [b"one", b"two"])
            peer.send(b"x" * 60_000 + b"\n" + b"last\n")
            self.assertEqual([len(line) for line in peer.lines(2)], [60_000, 4])
            if not isinstance(peer.socket, ssl.SSLSocket):  # Python's cannot half-close
                peer.finish()
                self.assertEqual(peer.rest(), b"")

    def test_ports(self) -> None:
        """TCP, TLS, behind HAProxy, and UNIX sockets."""
        ports = [TCP, write_certificate(self.folder), f"haproxy:{TCP}", "unix:s.sock"]
        trusting = ssl.create_default_context(cafile=self.folder / "cert.pem")
        for name, command in REACTORS.items():
            with Server("--app", "echo", ports=ports, folder=self.folder, command=command) as server:
                self.assertIn(f".{name}", server.log)
                plain, tls, behind = server.numbers
                self._serves(Peer.connect(plain))
                connection = Peer.connect(tls).socket
                self._serves(Peer(trusting.wrap_socket(connection, server_hostname="localhost")))
                self._serves(Peer.connect(behind), b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n")
                local = socket.socket(socket.AF_UNIX)
                local.settimeout(DEADLINE)
                local.connect(str(self.folder / "s.sock"))
                self._serves(Peer(local))
                server.stop()
                self.assertEqual(server.wait(), 0)

    def test_ipv6(self) -> None:
        """IPv6, with the address in the log as people write it."""
        if not _has_ipv6():
            raise SkipTest("needs IPv6 on loopback")
        for command in REACTORS.values():
            with Server("--app", "echo", ports=[r"tcp6:0:interface=\:\:1"], command=command) as server:
                number = server.wait_for_log(r"Listening on \[::1\]:(\d+)")[1]
                connection = socket.create_connection(("::1", int(number)), DEADLINE)
                self._serves(Peer(connection))
                server.wait_for_log(r"client 1 connected from \[::1\]:\d+")

    def test_systemd(self) -> None:
        """A listening socket that systemd has made, adopted as descriptor 3."""
        for name, command in REACTORS.items():
            with Server(
                "--app",
                "echo",
                ports=["systemd:domain=INET:index=0"],
                command=command,
                prefix=(sys.executable, "-c", SYSTEMD),
            ) as server:
                self.assertIn(f".{name}", server.log)
                self._serves(server.connect())
                server.stop()
                self.assertEqual(server.wait(), 0)


class TestOtherPrograms(InFolder):
    """What has nothing to do with mtserver runs on its reactor."""

    @contextlib.contextmanager
    def _web(self) -> Iterator[str]:
        """Twisted's web server on the test's folder; its address."""
        log = self.folder / "log"
        command = [script("twistd"), "-n", "--pidfile=", "--reactor=uv", "web", "--port", TCP, "--path", "."]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            found = wait_until(lambda: re.search(r"Site starting on (\d+)", log.read_text()), "listening")
            self.assertIn("mtserver.transport.reactor.uv.UVReactor", log.read_text())
            yield f"http://127.0.0.1:{found[1]}"
            process.terminate()
            # Twisted ends as the signal asked, when it has stopped.
            self.assertEqual(process.wait(DEADLINE), -signal.SIGTERM)
            self.assertIn("Server Shut Down", log.read_text())
            self.assertNotIn("Traceback", log.read_text())
        finally:
            process.kill()
            process.wait(DEADLINE)

    def test_web(self) -> None:
        """``twistd --reactor=uv web`` serves a small page, and a file larger than any buffer, several at once."""
        (self.folder / "index.html").write_text("<p>hello</p>")
        large = bytes(range(256)) * 40_000
        (self.folder / "large").write_bytes(large)
        with self._web() as url:
            with urllib.request.urlopen(url, timeout=DEADLINE) as page:
                self.assertEqual(page.read(), b"<p>hello</p>")
            files = [urllib.request.urlopen(f"{url}/large", timeout=DEADLINE) for _ in range(5)]
            for file in files:
                with file:
                    self.assertEqual(file.read(), large)

    def test_web_pipelined(self) -> None:
        """Requests that have come together are answered in their order, though each answer is produced in pieces."""
        large = bytes(range(256)) * 10_000
        (self.folder / "large").write_bytes(large)
        with self._web() as url, Peer.connect(int(url.rpartition(":")[2])) as peer:
            request = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"
            peer.send(request * 20 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answers = peer.rest().split(b"HTTP/1.1 200 OK\r\n")[1:]
            self.assertEqual([answer.partition(b"\r\n\r\n")[2] == large for answer in answers], [True] * 21)

    def test_listed(self) -> None:
        """``twistd --help-reactors`` has it."""
        done = subprocess.run([script("twistd"), "--help-reactors"], capture_output=True, text=True, check=True)
        self.assertRegex(done.stdout, r"(?m)^\s+uv\s+Twisted's asyncio reactor on uvloop")
