"""TLS on fake transports: the handshake has a deadline, and the end of a client's stream is not the end of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

from mtserver import Client
from mtserver.errors import ConfigurationError
from mtserver.session.opening import HANDSHAKE
from mtserver.session.protocol import GOODBYE
from mtserver.testing import Harness
from mtserver.testing.transport import FakeTransport
from mtserver.transport.tls import TLSPolicy
from mtserver.transport.tls.pyopenssl import check, tls_factory
from tests.integration.certificates import Made, write_certificate
from tests.logcase import LogCase


def options(folder: Path) -> CertificateOptions:
    """Make the options that an ``ssl:`` endpoint makes of its key and certificate."""
    write_certificate(folder)
    pem = (folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes()
    made: CertificateOptions = PrivateCertificate.loadPEM(pem).options()
    return made


class TlsClient:
    """OpenSSL's own client, its bytes carried by hand."""

    def __init__(self, harness: Harness, transport: FakeTransport) -> None:
        self.tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.tls.set_connect_state()
        self._harness = harness
        self._transport = transport
        self._carried = 0
        self.received = b""

    def exchange(self, step: Any = None, *args: Any) -> None:
        """Take a step, once its bytes allow it, and carry bytes until none move."""
        for _ in range(20):
            if step is not None:
                try:
                    step(*args)
                    step = None
                except SSL.WantReadError:
                    pass
            self._carry()
            try:
                while data := self.tls.recv(65536):
                    self.received += data
            except SSL.Error:
                pass

    def _carry(self) -> None:
        try:
            outgoing = self.tls.bio_read(65536)
        except SSL.WantReadError:
            outgoing = b""
        with self._harness._running():
            if outgoing:
                self._transport.deliver(outgoing)
        incoming = bytes(self._transport.output[self._carried :])
        if incoming:
            self.tls.bio_write(incoming)
            self._carried += len(incoming)


class Case(LogCase):
    policy = TLSPolicy()

    def connect(self, handler: Any, wrapped: Any = None, **settings: Any) -> TlsClient:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.harness = Harness(handler, **settings)
        factory = wrapped or self.harness.reactor.tcpServers[0][1]
        peer = IPv4Address("TCP", "192.0.2.2", 50000)
        protocol = tls_factory(options(folder), factory, self.harness.reactor, self.policy).buildProtocol(peer)
        assert protocol is not None
        self.transport = FakeTransport(self.harness.reactor, protocol, peer, peer)
        # A client of the harness, as far as the harness looks.
        self.harness._connected.append(cast("Any", self))
        with self.harness._running():
            self.transport.startReading()
            protocol.makeConnection(self.transport)
        return TlsClient(self.harness, self.transport)


class Tls(Case):
    def test_exchange(self) -> None:
        """Messages and replies pass, however large."""

        async def large(client: Client, message: bytes) -> bytes:
            return message * 100000

        client = self.connect(large)
        client.exchange(client.tls.do_handshake)
        client.exchange(client.tls.write, b"abc\n")
        self.assertEqual(client.received, b"abc" * 100000 + b"\n")

    def test_close_notify(self) -> None:
        """A client that has said close_notify still reads the reply, however late it comes."""
        gate: Deferred[None] = Deferred()

        async def late(client: Client, message: bytes) -> bytes:
            await gate
            return message

        client = self.connect(late)
        client.exchange(client.tls.do_handshake)

        client.exchange(client.tls.write, b"last\n")
        client.exchange(client.tls.shutdown)
        self.assertEqual(client.received, b"")
        self.harness.fire(gate)
        client.exchange()
        self.assertEqual(client.received, b"last\n")
        self.assertFalse(self.transport.connected)

    def test_silent_handshake(self) -> None:
        """A client that does not finish its handshake is cut."""

        async def never(client: Client, message: bytes) -> bytes:
            raise AssertionError(message)

        self.connect(never)
        self.harness.advance(HANDSHAKE - 1)
        self.assertTrue(self.transport.connected)
        self.harness.advance(3)
        self.assertFalse(self.transport.connected)

    def test_unanswered_close(self) -> None:
        """A client that does not answer our close_notify is cut."""

        async def bye(client: Client, message: bytes) -> bytes:
            client.close()
            return b"bye"

        client = self.connect(bye)
        client.exchange(client.tls.do_handshake)
        client.exchange(client.tls.write, b"x\n")
        self.assertEqual(client.received, b"bye\n")
        self.assertTrue(self.transport.connected)
        self.harness.advance(GOODBYE + 1)
        self.assertFalse(self.transport.connected)

    def test_refused(self) -> None:
        """A newcomer over the limit reads why, over TLS too."""

        async def never(client: Client, message: bytes) -> bytes:
            raise AssertionError(message)

        harness = Harness(never, max_clients=1)
        harness.connect()
        client = self.connect(never, harness.reactor.tcpServers[0][1])
        client.exchange(client.tls.do_handshake)
        self.assertIn(b"ERR busy", client.received)

    def test_other_protocols(self) -> None:
        """A protocol that knows no half-closing gets Twisted's usual behaviour."""
        lost: list[Any] = []

        class Plain(Protocol):
            def connectionLost(self, reason: Any = None) -> None:
                lost.append(reason)

        async def never(client: Client, message: bytes) -> bytes:
            raise AssertionError(message)

        client = self.connect(never, Factory.forProtocol(Plain))
        client.exchange(client.tls.do_handshake)
        client.exchange(client.tls.shutdown)
        with self.harness._running():
            self.transport.end(main.CONNECTION_DONE)
        self.assertEqual(len(lost), 1)


class Policy(Case):
    """The same as that of the usual TLS."""

    async def echo(self, client: Client, message: bytes) -> bytes:
        return message

    def assert_openssl(self, reason: str) -> None:
        """The server's OpenSSL has refused: a line of its words, and none of those that we have for who leaves."""
        self.assertRegex(reason, r"\A[a-z][\w ]+\Z")
        self.assertNotIn("the client left", reason)
        self.assertNotIn("not done by the time", reason)

    def refused(self, context: SSL.Context) -> str:
        """Why, as it was recorded: once, with the address."""
        self.events.clear()
        client = self.connect(self.echo)
        client.tls = SSL.Connection(context, None)
        client.tls.set_connect_state()
        self.assertRaises(SSL.Error, client.exchange, client.tls.do_handshake)
        client.exchange()
        self.assertFalse(self.transport.connected)
        (event,) = self.audited()
        self.assertEqual((event["audit"], event["peer"]), ("handshake-failed", "192.0.2.2:50000"))
        return str(event["reason"])

    def client_context(self, minimum: int, maximum: int, ciphers: bytes) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(minimum)
        context.set_max_proto_version(maximum)
        context.set_cipher_list(ciphers)
        return context

    def test_versions(self) -> None:
        """TLS 1.1 is refused; with the modern profile, 1.2 is."""
        old = self.client_context(SSL.TLS1_1_VERSION, SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0")
        self.assert_openssl(self.refused(old))
        self.policy = TLSPolicy("modern")
        self.assert_openssl(self.refused(self.client_context(0, SSL.TLS1_2_VERSION, b"ALL")))

    def test_ciphers(self) -> None:
        """Ciphers without AEAD or ephemeral keys are refused, as are those with DH alone."""
        for cipher in (b"AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-SHA256", b"DHE-RSA-AES128-GCM-SHA256"):
            context = self.client_context(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION, cipher)
            self.assert_openssl(self.refused(context))

    def test_not_in_time(self) -> None:
        """A handshake that is not done in time is recorded once."""
        self.connect(self.echo)
        self.harness.advance(HANDSHAKE + 2)
        self.assertEqual(len(self.audited()), 1)
        self.assertIn("not done by the time", self.audited()[0]["reason"])

    def test_only_looked(self) -> None:
        """A probe whether the port is open is not recorded."""
        self.connect(self.echo)
        with self.harness._running():
            self.transport.end(main.CONNECTION_DONE)
        self.assertEqual(self.audited(), [])

    def test_cannot_hold(self) -> None:
        """Options that cannot be kept are a mistake: old methods, other contexts, clients' certificates, names."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        made = options(folder)
        with self.assertRaises(ConfigurationError):
            check(object(), TLSPolicy())
        for method in (SSL.TLSv1_METHOD, SSL.TLSv1_1_METHOD):
            made.method = method
            self.assertIn("older", str(self.assertRaises(ConfigurationError, check, made, TLSPolicy())))
        made.method = SSL.TLSv1_2_METHOD
        check(made, TLSPolicy())
        self.assertIn("older", str(self.assertRaises(ConfigurationError, check, made, TLSPolicy("modern"))))
        names = folder / "names"
        names.mkdir()
        Made("localhost").write_together(names / "localhost.pem")
        asking, naming = TLSPolicy(client_ca=str(folder / "cert.pem")), TLSPolicy(sni=str(names))
        for policy, name in ((asking, "--tls-client-ca"), (naming, "--tls-sni")):
            self.assertIn(name, str(self.assertRaises(ConfigurationError, check, made, policy)))
