"""TLS in the real process: the clients that people have, crowds, a stop under load, and what attackers leave."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import SkipTest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from .certificates import write_certificate
from .peer import DEADLINE, Peer, room_for_sockets
from .server import FOREGROUND, Server, needs, run_to_end, wait_until

COMMANDS = (FOREGROUND, (*FOREGROUND, "--reactor", "epoll"))

APPS = {
    "apps": """
        import asyncio

        async def late(client, message: bytes) -> bytes:
            await asyncio.sleep(0.2)
            return message.upper()

        def thread(client, message: bytes) -> bytes:
            return message.upper()

        async def once(client, message: bytes) -> bytes:
            client.close()
            return b"once " + message
    """
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.port = write_certificate(self.folder)
        self.trusting = ssl.create_default_context(cafile=self.folder / "cert.pem")

    def server(self, *options: str, port: str = "", command: tuple[str, ...] = FOREGROUND) -> Server:
        return Server(*options, ports=[port or self.port], folder=self.folder, modules=APPS, command=command)

    def servers(self, *options: str) -> Iterator[Server]:
        """One on our reactor, then one on epoll. Neither may have raised."""
        for command in COMMANDS:
            with self.server(*options, command=command) as server:
                yield server
                self.assertNotIn("Traceback", server.log)

    def peer(self, server: Server, session: ssl.SSLSession | None = None) -> Peer:
        plain = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Peer(self.trusting.wrap_socket(plain, server_hostname="localhost", session=session))
        except BaseException:
            plain.close()
            raise


class TestClients(Case):
    def s_client(self, server: Server, *options: str, sends: bytes) -> str:
        """What s_client prints that is given `sends`; it goes on reading until the server ends."""
        command = [needs("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", *options]
        done = subprocess.run(command, input=sends, capture_output=True, timeout=DEADLINE, check=False)
        return (done.stdout + done.stderr).decode(errors="replace")

    @contextlib.contextmanager
    def typed(self, server: Server, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """s_client at a terminal."""
        command = [needs("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", *options]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0) as client:
            try:
                yield client
            finally:
                client.kill()

    def type(self, client: subprocess.Popen[bytes], text: bytes, expected: bytes) -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(text)
        printed = b""
        while expected not in printed:
            line = client.stdout.readline()
            self.assertTrue(line, printed)
            printed += line

    def test_versions(self) -> None:
        """``openssl s_client -tls1_2`` and ``-tls1_3``."""
        for server in self.servers("--app", "apps:once"):
            for option, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
                printed = self.s_client(server, option, "-ign_eof", sends=b"hello\n")
                self.assertIn("once hello", printed)
                self.assertRegex(printed, rf"New, {re.escape(name)}, Cipher is (ECDHE|TLS_)")

    def test_old_version(self) -> None:
        """``-tls1_1`` is refused, as is a cipher without forward secrecy."""
        for server in self.servers("--app", "apps:once"):
            refused = (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ("-tls1_2", "-cipher", "AES128-GCM-SHA256"))
            for options in refused:
                self.assertIn("alert", self.s_client(server, *options, sends=b"hello\n"))
            self.assertIn("once hello", self.s_client(server, "-ign_eof", sends=b"hello\n"))

    def test_reconnect(self) -> None:
        """``-reconnect`` resumes its session five times."""
        for server in self.servers("--app", "echo"):
            printed = self.s_client(server, "-tls1_2", "-reconnect", sends=b"")
            self.assertEqual(printed.count("Reused, TLSv1.2"), 5, printed)

    def test_tickets(self) -> None:
        """TLS 1.2: a client comes back with a ticket."""
        for server in self.servers("--app", "apps:once"):
            ticket = str(self.folder / "ticket")
            self.s_client(server, "-tls1_2", "-ign_eof", "-sess_out", ticket, sends=b"hello\n")
            printed = self.s_client(server, "-tls1_2", "-ign_eof", "-sess_in", ticket, sends=b"again\n")
            self.assertIn("Reused, TLSv1.2", printed)
            self.assertIn("once again", printed)

    def test_send_and_go(self) -> None:
        """A client that sends a lot and closes at once has it all handled: nothing of ours meets its closed socket."""
        message = b"x" * 99 + b"\n"
        for server in self.servers("--app", "log"):
            for number in range(1, 6):
                with self.peer(server) as client:
                    client.socket.sendall(message * 4000)
                server.wait_for_log(rf"client {number} from .*received 4000 messages")

    def test_key_update(self) -> None:
        """TLS 1.3: new keys, asked for or not, any number of times."""
        for server in self.servers("--app", "apps:thread"):
            with self.typed(server, "-tls1_3") as client:
                self.type(client, b"hello\n", b"HELLO")
                for command in (b"K\n", b"k\n") * 3:
                    self.type(client, command, b"KEYUPDATE")
                    self.type(client, b"again\n", b"AGAIN")

    def test_renegotiation(self) -> None:
        """TLS 1.2: no renegotiation. It is the client that gives up."""
        for server in self.servers("--app", "apps:thread"):
            with self.typed(server, "-tls1_2") as client:
                self.type(client, b"hello\n", b"HELLO")
                self.type(client, b"R\n", b"no renegotiation")

    def test_chain(self) -> None:
        """Intermediate certificates reach the client, from a file of their own or behind the certificate."""
        self._write_chain()
        both = (self.folder / "leaf.pem").read_bytes() + (self.folder / "middle.pem").read_bytes()
        (self.folder / "both.pem").write_bytes(both)
        for files in ("certKey=leaf.pem:extraCertChain=middle.pem", "certKey=both.pem"):
            port = f"ssl:0:interface=127.0.0.1:privateKey=leafkey.pem:{files}"
            with self.server("--app", "apps:once", port=port) as server:
                root = str(self.folder / "root.pem")
                printed = self.s_client(server, "-showcerts", "-ign_eof", "-CAfile", root, sends=b"hello\n")
                self.assertEqual(printed.count("BEGIN CERTIFICATE"), 2, printed)
                self.assertIn("Verification: OK", printed)

    def _write_chain(self) -> None:
        now = datetime.now(UTC)
        issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
        for name in ("root", "middle", "leaf"):
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            by, signing = issuer or (subject, key)
            builder = (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(by)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=1))
                .add_extension(x509.BasicConstraints(ca=name != "leaf", path_length=None), critical=True)
            )
            pem = serialization.Encoding.PEM
            (self.folder / f"{name}.pem").write_bytes(builder.sign(signing, hashes.SHA256()).public_bytes(pem))
            form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            (self.folder / f"{name}key.pem").write_bytes(key.private_bytes(pem, form, plain))
            issuer = subject, key

    def test_socat(self) -> None:
        """``socat`` half-closes with close_notify and reads the late replies, in either version."""
        socat = needs("socat", "socat")
        for server in self.servers("--app", "apps:thread"):
            for version in ("TLS1.2", "TLS1.3"):
                address = f"OPENSSL:127.0.0.1:{server.port},verify=0,openssl-min-proto-version={version}"
                command = [socat, "-t", "10", "-", f"{address},openssl-max-proto-version={version}"]
                done = subprocess.run(
                    command, input=b"a\nb\n" * 1000, capture_output=True, timeout=DEADLINE, check=True
                )
                self.assertEqual(done.stdout, b"A\nB\n" * 1000)

    def test_curl(self) -> None:
        """``curl``, for want of a telnet with TLS, takes a line for HTTP 0.9."""
        curl = needs("curl", "curl")
        for server in self.servers("--app", "apps:once"):
            command = [curl, "-s", "--http0.9", "--cacert", str(self.folder / "cert.pem")]
            command += ["--resolve", f"localhost:{server.port}:127.0.0.1", f"https://localhost:{server.port}/a"]
            done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
            self.assertEqual((done.returncode, done.stdout), (0, b"once GET /a HTTP/1.1\n"), done.stderr)

    def test_ncat(self) -> None:
        """``ncat --ssl``."""
        ncat = shutil.which("ncat")
        if ncat is None:
            raise SkipTest("needs ncat: apt-get install ncat")
        for server in self.servers("--app", "apps:once"):
            command = [ncat, "--ssl", "127.0.0.1", str(server.port)]
            done = subprocess.run(command, input=b"a\n", capture_output=True, timeout=DEADLINE, check=False)
            self.assertEqual(done.stdout, b"once a\n")

    def test_python(self) -> None:
        """Python's ``ssl``: large messages both ways, and a second connection."""
        for server in self.servers("--app", "echo", "--max-message", "2000000"):
            with self.peer(server) as peer:
                message = os.urandom(1_500_000).replace(b"\n", b"x").replace(b"\r", b"x")
                peer.send(message + b"\n")
                self.assertEqual(peer.line(), message)
                session = peer.socket.session  # type: ignore[attr-defined]
            with self.peer(server, session) as again:
                self.assertEqual(again.exchange(b"again"), [b"again"])


class TestCrowds(Case):
    def descriptors(self, server: Server) -> int:
        folder = Path(f"/proc/{server.pid}/fd")
        if not folder.exists():
            raise SkipTest("needs Linux: descriptors are counted in /proc")
        return len(list(folder.iterdir()))

    def closes(self, server: Server, most: int) -> None:
        wait_until(lambda: self.descriptors(server) <= most, "descriptors are closed")

    def test_at_once(self) -> None:
        """200 clients at once, each with its own replies."""
        room_for_sockets(200)
        for server in self.servers("--app", "apps:thread"):
            with contextlib.ExitStack() as stack, ThreadPoolExecutor(20) as pool:
                peers = [stack.enter_context(peer) for peer in pool.map(self.peer, [server] * 200)]
                for number, peer in enumerate(peers):
                    peer.send(b"client %d\n" % number * 20)
                for number, peer in enumerate(peers):
                    self.assertEqual(peer.lines(20), [b"CLIENT %d" % number] * 20)

    def test_stop_under_load(self) -> None:
        """SIGTERM: whatever was received complete is answered, in its order, and everyone is told."""

        def load(peer: Peer) -> int:
            """Ask and read until told that it is over. Returns how many replies there were."""
            answered = asked = 0
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while True:
                    peer.send(b"".join(b"message %d\n" % number for number in range(asked, asked + 50)))
                    asked += 50
                    while answered < asked:
                        line = peer.line()
                        if line.startswith(b"ERR closing"):
                            assert peer.rest() == b""
                            peer.socket.close()
                            return answered
                        assert line == b"MESSAGE %d" % answered, (line, answered)
                        answered += 1
            raise AssertionError("ended without a word")

        for server in self.servers("--app", "apps:thread"):
            with contextlib.ExitStack() as stack, ThreadPoolExecutor(20) as pool:
                peers = [stack.enter_context(self.peer(server)) for _ in range(20)]
                loads = [pool.submit(load, peer) for peer in peers]
                with self.peer(server) as other:
                    for _ in range(20):
                        self.assertEqual(other.exchange(b"x"), [b"X"])
                server.stop()
                answered = sorted(each.result(2 * DEADLINE) for each in loads)
                self.assertEqual(server.wait(), 0)
            found = re.findall(r"\(closing\) after .*: received (\d+) mess\w+, .*; sent (\d+) mess", server.log)
            self.assertEqual(sorted(int(received) for received, _ in found), answered)
            self.assertEqual(sorted(int(sent) - 1 for _, sent in found), answered)

    def test_gone_in_their_handshake(self) -> None:
        """Clients that go in the middle of their handshakes leave no descriptor, however they go."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = self.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLWantReadError, hello.do_handshake)
        text = outgoing.read()
        for server in self.servers("--app", "echo"):
            with self.peer(server) as first:
                self.assertEqual(first.exchange(b"a"), [b"a"])
            server.wait_for_log("client 1 from")  # it has gone
            before = self.descriptors(server)
            for number in range(100):
                peer = server.connect()
                peer.send(text[: (0, 1, 100, len(text))[number % 4]])
                if number % 3 == 0:
                    peer.reset()
                elif number % 3 == 1:
                    peer.finish()
                    with contextlib.suppress(ConnectionError):
                        peer.rest()
                peer.socket.close()
            self.closes(server, before)
            with self.peer(server) as last:
                self.assertEqual(last.exchange(b"b"), [b"b"])

    def test_garbage(self) -> None:
        """Bytes of any kind, in and after a handshake: no traceback, no descriptor left, and others are served."""
        chance = random.Random(1)
        for server in self.servers("--app", "echo"):
            with self.peer(server) as witness:
                self.assertEqual(witness.exchange(b"a"), [b"a"])
                before = self.descriptors(server)
                for number in range(200):
                    with contextlib.suppress(ConnectionError, ssl.SSLError):
                        if number % 2:
                            peer = server.connect()
                        else:
                            peer = self.peer(server)
                            peer = Peer(socket.socket(fileno=peer.socket.detach()))
                        with peer:
                            head = (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x17\x03\x03\x00\x20")
                            peer.send(chance.choice(head) + chance.randbytes(chance.randrange(1000)))
                            if chance.random() < 0.5:
                                peer.finish()
                            if chance.random() < 0.1:
                                peer.reset()
                self.assertEqual(witness.exchange(b"b"), [b"b"])
                self.closes(server, before)


class TestMistakes(Case):
    def test_one_line(self) -> None:
        """A mistake in a port string is one line and status 1; an encrypted key asks nobody for a password."""
        secret = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (self.folder / "secret.pem").write_bytes(secret)
        for key, text in (("secret.pem", "is encrypted"), ("none.pem", "No such file"), ("cert.pem", "no private key")):
            done = run_to_end(self.folder, "--port", f"ssl:0:privateKey={key}:certKey=cert.pem")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rf"\Amtserver: --port ssl:0:\S+: .*{text}.*\n\Z")
            self.assertIn(key, done.stderr)
