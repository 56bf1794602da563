"""Clients that people have: nc, socat, openssl and Python, on TCP, TLS and UNIX ports."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .certificates import write_certificate
from .peer import DEADLINE, Peer
from .server import TCP, Server, needs, rows

LATE = {
    "late": """
        import asyncio

        async def late(client, message: bytes) -> bytes:
            await asyncio.sleep(0.2)
            return message.upper()
    """
}


def run_client(*command: str, sends: bytes, folder: Path | None = None) -> bytes:
    """What a program prints that is given `sends`, and then the end of its input."""
    ended = subprocess.run(command, input=sends, cwd=folder, capture_output=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class TestTcp(SynchronousTestCase):
    def test_nc(self) -> None:
        """``printf 'a\\nb\\n' | nc -N`` reads a reply to each line, and both are in the journal."""
        nc = needs("nc", "netcat-openbsd")
        with Server() as server:
            printed = run_client(nc, "-N", "127.0.0.1", str(server.port), sends=b"a\nb\n")
            self.assertEqual(printed, b"OK 1\nOK 2\n")
            self.assertEqual([message for *_, message in rows(server.journal)], [b"a", b"b"])

    def test_half_closed_before_the_reply(self) -> None:
        """A client that has ended its side reads the replies that come later; an unfinished message has none."""
        with Server("--app", "late:late", modules=LATE) as server, server.connect() as peer:
            peer.send(b"one\r\ntwo\nunfinished")
            peer.finish()
            self.assertEqual(peer.rest(), b"ONE\nTWO\n")


class TestTls(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.port = write_certificate(self.folder)

    def test_openssl_s_client(self) -> None:
        """``openssl s_client`` gets each reply while its connection is open."""
        openssl = needs("openssl", "openssl")
        with Server(ports=[self.port], folder=self.folder) as server:
            command = [openssl, "s_client", "-quiet", "-connect", f"127.0.0.1:{server.port}"]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as client:
                self.addCleanup(client.kill)
                assert client.stdin is not None
                assert client.stdout is not None
                for number in (1, 2):
                    client.stdin.write(b"hello\n")
                    client.stdin.flush()
                    self.assertEqual(client.stdout.readline(), b"OK %d\n" % number)
                client.terminate()

    def test_socat_half_closes_with_close_notify(self) -> None:
        """``socat`` says close_notify right after its messages, and still reads the late replies."""
        socat = needs("socat", "socat")
        with Server("--app", "late:late", ports=[self.port], folder=self.folder, modules=LATE) as server:
            address = f"OPENSSL:127.0.0.1:{server.port},verify=0"
            printed = run_client(socat, "-t", "10", "-", address, sends=b"one\ntwo\n")
            self.assertEqual(printed, b"ONE\nTWO\n")

    def test_socat_and_the_journal(self) -> None:
        """The same with ``collect``: a message is acknowledged to a client that has said close_notify."""
        socat = needs("socat", "socat")
        with Server(ports=[self.port], folder=self.folder) as server:
            address = f"OPENSSL:127.0.0.1:{server.port},verify=0"
            self.assertEqual(run_client(socat, "-t", "10", "-", address, sends=b"a\n"), b"OK 1\n")

    def test_python(self) -> None:
        """Python's ``ssl``, which checks the certificate, sends more than a TLS record holds and gets it back."""
        context = ssl.create_default_context(cafile=self.folder / "cert.pem")
        with Server("--app", "echo", ports=[self.port], folder=self.folder) as server:
            plain = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
            with plain, Peer(context.wrap_socket(plain, server_hostname="localhost")) as peer:
                message = b"x" * 60000
                self.assertEqual(peer.exchange(message, b"", message), [message, b"", message])
                self.assertIn(peer.socket.version(), ("TLSv1.2", "TLSv1.3"))  # type: ignore[attr-defined]

    def test_not_tls(self) -> None:
        """A client that speaks plain text to a TLS port is closed; the next one, with TLS, is served."""
        context = ssl.create_default_context(cafile=self.folder / "cert.pem")
        with Server("--app", "echo", ports=[self.port], folder=self.folder) as server:
            with server.connect() as peer:
                peer.send(b"hello\n")
                self.assertNotIn(b"hello", peer.rest())
            plain = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
            with plain, Peer(context.wrap_socket(plain, server_hostname="localhost")) as peer:
                self.assertEqual(peer.exchange(b"hello"), [b"hello"])


class TestPorts(SynchronousTestCase):
    def test_unix(self) -> None:
        """``socat`` is served on a UNIX port; the socket's file is gone when the server has stopped."""
        socat = needs("socat", "socat")
        with Server("--app", "late:late", ports=["unix:s.sock"], modules=LATE) as server:
            printed = run_client(socat, "-t", "10", "-", "UNIX-CONNECT:s.sock", sends=b"a\n", folder=server.folder)
            self.assertEqual(printed, b"A\n")
            server.stop()
            self.assertEqual(server.wait(), 0)
            self.assertFalse((server.folder / "s.sock").exists())

    def test_several_at_once(self) -> None:
        """One server on a TCP, a TLS and a UNIX port, and a second TCP port: one journal, one sequence."""
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        ports = [TCP, write_certificate(folder), "unix:s.sock", TCP]
        with Server(ports=ports, folder=folder) as server:
            first, secured, second = server.numbers
            self.assertIn("Listening on unix:s.sock", server.log)
            context = ssl.create_default_context(cafile=folder / "cert.pem")
            plain = socket.create_connection(("127.0.0.1", secured), DEADLINE)
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(DEADLINE)
            with plain, local:
                local.connect(str(folder / "s.sock"))
                with (
                    server.connect(first) as one,
                    Peer(context.wrap_socket(plain, server_hostname="localhost")) as two,
                    Peer(local) as three,
                    server.connect(second) as four,
                ):
                    replies = [peer.exchange(b"message")[0] for peer in (one, two, three, four)]
            self.assertEqual(replies, [b"OK 1", b"OK 2", b"OK 3", b"OK 4"])
