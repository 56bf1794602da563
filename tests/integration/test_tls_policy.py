"""The policy of TLS in the real process: scanned, asked for certificates, renewed, and met by clients of all kinds."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import SkipTest

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from .certificates import CLIENT, SERVER, Made
from .peer import DEADLINE, Peer
from .server import Server, needs, run_to_end, wait_until

NAMES = [x509.DNSName("localhost")]
URI = x509.UniformResourceIdentifier("urn:device:7")

APPS = {
    "apps": """
        async def who(client, message: bytes) -> bytes:
            return str(client.identity).encode()
    """
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.root = Made.authority("root")
        self.local = self.made()
        self.port = self.local.write(self.folder)
        self.device = Made("device", [URI], by=self.root, usage=[CLIENT])
        (self.folder / "root.pem").write_bytes(self.root.pem)
        self.device.write_together(self.folder / "device.pem")
        self.trusting = ssl.create_default_context(cafile=self.folder / "root.pem")

    def made(self) -> Made:
        return Made("localhost", NAMES, by=self.root, usage=[SERVER], days=(-1, 60))

    def server(self, *options: str, port: str = "", app: str = "apps:who") -> Server:
        return Server("--app", app, *options, ports=[port or self.port], folder=self.folder, modules=APPS)

    def peer(self, server: Server, context: ssl.SSLContext | None = None) -> Peer:
        plain = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        try:
            return Peer((context or self.trusting).wrap_socket(plain, server_hostname="localhost"))
        except BaseException:
            plain.close()
            raise

    def wait_for(self, server: Server, text: str, times: int) -> None:
        """The log has this text, so many times and not more."""
        wait_until(lambda: server.log.count(text) >= times, text)
        self.assertEqual(server.log.count(text), times)

    def with_certificate(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "root.pem")
        context.load_cert_chain(self.folder / "device.pem")
        return context

    def shown(self, server: Server) -> bytes | None:
        """The certificate that a new connection is shown."""
        with self.peer(server) as peer:
            return peer.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined,no-any-return]

    def s_client(self, server: Server, *options: str, sends: bytes = b"who\n") -> str:
        command = [needs("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", *options]
        command += ["-CAfile", str(self.folder / "root.pem"), "-servername", "localhost"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(sends)
            printed = b""
            while line := client.stdout.readline():
                printed += line
                if line.startswith((b"urn:", b"None")):
                    client.kill()
            return printed.decode(errors="replace")


class TestScanner(Case):
    def scan(self, server: Server, profile: str) -> str:
        own = Path(sys.executable).parent.parent / "sslyze" / "bin" / "sslyze"
        sslyze = str(own) if own.exists() else shutil.which("sslyze")
        if sslyze is None:
            text = "needs sslyze: sh .ci/setup test"
            raise AssertionError(text) if os.environ.get("CI") else SkipTest(text)
        command = [sslyze, "--mozilla_config", profile, "--certinfo_ca_file", str(self.folder / "root.pem")]
        command.append(f"localhost:{server.port}{{127.0.0.1}}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_intermediate(self) -> None:
        """A scanner, sslyze, finds no deviation from Mozilla's intermediate profile, on either path."""
        for port in (self.port, "ssl:0:key.pem:cert.pem:interface=127.0.0.1"):
            with self.server(port=port) as server:
                self.assertIn("OK - Compliant", self.scan(server, "intermediate"))
                self.assertNotIn("Traceback", server.log)
                # A scan is hundreds of failed handshakes; the audit log has some of them.
                self.assertLess(server.log.count("handshake-failed"), server.log.count("closed ("))

    def test_modern(self) -> None:
        """Nor from the modern one, with it."""
        with self.server("--tls-profile", "modern") as server:
            self.assertIn("OK - Compliant", self.scan(server, "modern"))


class TestClientCertificates(Case):
    def test_s_client(self) -> None:
        """``openssl s_client`` with a certificate is who it says; without one it reads an alert, and it is recorded."""
        device = str(self.folder / "device.pem")
        with self.server("--tls-client-ca", "root.pem") as server:
            for version in ("-tls1_2", "-tls1_3"):
                printed = self.s_client(server, version, "-cert", device, "-key", device)
                self.assertIn("urn:device:7", printed)
                self.assertIn("alert", self.s_client(server, version))
            self.assertIn("handshake-failed", server.log)

    def test_python(self) -> None:
        """Python's ``ssl``: let in, and revoked while the server runs, which others do not notice."""
        (self.folder / "crl.pem").write_bytes(self.root.revoke())
        context = self.with_certificate()
        with self.server("--tls-client-ca", "root.pem", "--tls-crl", "crl.pem") as server:
            with self.peer(server, context) as peer:
                self.assertEqual(peer.exchange(b"who"), [b"urn:device:7"])
                (self.folder / "crl.pem").write_bytes(self.root.revoke(self.device))
                server.stop(signal.SIGHUP)
                server.wait_for_log("client CA reloaded")
                server.wait_for_log("certificate reloaded")
                self.assertEqual(peer.exchange(b"who"), [b"urn:device:7"])
            with self.assertRaises((ssl.SSLError, ConnectionError)), self.peer(server, context) as peer:
                peer.exchange(b"who")

    def test_none_asked(self) -> None:
        """Without a client CA nobody is asked, and nobody is anybody."""
        with self.server() as server, self.peer(server, self.with_certificate()) as peer:
            self.assertEqual(peer.exchange(b"who"), [b"None"])


class TestRenewal(Case):
    @contextlib.contextmanager
    def under_load(self, server: Server) -> Iterator[list[int]]:
        """Clients that come and go all the time; each must be served."""
        served: list[int] = []
        over = False

        def load() -> None:
            while not over:
                with self.peer(server) as peer:
                    assert peer.exchange(b"who") == [b"None"]
                    served.append(1)

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load) for _ in range(4)]
            try:
                yield served
            finally:
                over = True
            for each in loads:
                each.result(DEADLINE)

    def test_hangup(self) -> None:
        """SIGHUP under load: nobody is refused or cut, running connections go on, new ones get the new certificate."""
        with self.server() as server, self.peer(server) as old:
            before = self.shown(server)
            with self.under_load(server) as served:
                for number in range(1, 4):
                    renewed = self.made()
                    renewed.write(self.folder)
                    server.stop(signal.SIGHUP)
                    self.wait_for(server, "certificate reloaded", number)
                    served.clear()
                    wait_until(lambda: len(served) > 20, "served")
                    self.assertEqual(self.shown(server), renewed.der)
            self.assertNotEqual(before, self.shown(server))
            self.assertEqual(old.exchange(b"who"), [b"None"])
            self.assertEqual(old.socket.getpeercert(binary_form=True), before)  # type: ignore[attr-defined]

    def test_noticed(self) -> None:
        """Without a signal, too, the change is noticed."""
        with self.server() as server:
            renewed = self.made()
            renewed.write(self.folder)
            server.wait_for_log("certificate reloaded", 2 * DEADLINE)
            self.assertEqual(self.shown(server), renewed.der)

    def test_bad(self) -> None:
        """Half-written, of another key, gone: it is told, once each, and the old one is shown."""
        key = (self.folder / "key.pem").read_bytes()
        with self.server() as server:
            contents = (key[:50], self.made().key_pem, None)
            for number, content in enumerate(contents, 1):
                if content is None:
                    (self.folder / "key.pem").unlink()
                else:
                    (self.folder / "key.pem").write_bytes(content)
                server.stop(signal.SIGHUP)
                self.wait_for(server, "certificate not reloaded", number)
                self.assertEqual(self.shown(server), self.local.der)
            (self.folder / "key.pem").write_bytes(key)
            server.stop(signal.SIGHUP)
            server.wait_for_log("certificate reloaded")
            self.assertNotIn("Traceback", server.log)

    def test_without_tls(self) -> None:
        """SIGHUP does not end a server that has nothing to read again."""
        with self.server(port="tcp:0:interface=127.0.0.1") as server:
            server.stop(signal.SIGHUP)
            server.wait_for_log("reloading")
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"who"), [b"None"])
            server.stop()
            self.assertEqual(server.wait(), 0)

    def test_names(self) -> None:
        """A certificate that is put into the folder is shown to those who ask for its name."""
        (self.folder / "names").mkdir()
        self.made().write_together(self.folder / "names" / "localhost.pem")
        with self.server("--tls-sni", "names") as server:
            self.assertNotEqual(self.shown(server), self.local.der)
            renewed = self.made()
            renewed.write_together(self.folder / "names" / "localhost.pem")
            server.stop(signal.SIGHUP)
            server.wait_for_log("certificate reloaded: .*localhost.pem")
            self.assertEqual(self.shown(server), renewed.der)


class TestSelfSigned(Case):
    def test_fingerprint(self) -> None:
        """The log has the fingerprint of what a client is shown."""
        with self.server("--tls-self-signed", port="ssl:0:interface=127.0.0.1") as server:
            logged = server.wait_for_log(r"fingerprint: ([0-9A-F:]{95})")[1]
            pem = ssl.get_server_certificate(("127.0.0.1", server.port))
            command = [needs("openssl", "openssl"), "x509", "-noout", "-fingerprint", "-sha256"]
            done = subprocess.run(command, input=pem, capture_output=True, text=True, timeout=DEADLINE, check=True)
            self.assertEqual(done.stdout.strip().partition("=")[2], logged)


class TestMistakes(Case):
    def test_one_line(self) -> None:
        """Each is one line and status 1, before any port is open."""
        mistakes = {
            ("--tls-client-ca", "none.pem"): "--tls-client-ca: .*none.pem",
            ("--tls-client-ca", "root.pem", "--tls-crl", "root.pem"): "--tls-crl: root.pem holds no revocation list",
            ("--tls-crl", "root.pem"): "--tls-crl: only with --tls-client-ca",
            ("--tls-sni", "."): "--tls-sni: .*pem",
            ("--tls-profile", "old"): "--tls-profile: 'old' is not one of intermediate, modern",
        }
        for options, text in mistakes.items():
            done = run_to_end(self.folder, "--port", self.port, *options)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rf"\Amtserver: {text}.*\n\Z")


class TestHandshakes(Case):
    def test_slow_ones(self) -> None:
        """A silent client, half a handshake, and one that does not answer close_notify are gone in time."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = self.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLWantReadError, hello.do_handshake)
        text = outgoing.read()
        with self.server("--idle-timeout", "1") as server:
            peers = [server.connect() for _ in range(2)]
            with peers[0], peers[1], self.peer(server) as deaf:
                peers[1].send(text[:100])
                server.wait_for_log(r"client \d+ from .* closed \(idle\)", 2 * DEADLINE)
                for peer in peers:
                    with contextlib.suppress(ConnectionError):
                        self.assertEqual(peer.rest(), b"")
                wait_until(lambda: server.log.count("no TLS handshake in time") == 2, "cut")
                self.assertEqual(server.log.count("handshake-failed"), 2)
                del deaf
