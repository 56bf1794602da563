"""TLS on fake transports: the handshake has a deadline, and the end of a client's stream is not the end of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client
from mtserver.openssl import tls_factory
from mtserver.session import HANDSHAKE, LINGER
from mtserver.testing import Harness
from mtserver.testing.transport import FakeTransport
from tests.integration.certificates import write_certificate


class ContextFactory:
    """What an ``ssl:`` endpoint makes of its key and certificate."""

    def __init__(self, folder: Path) -> None:
        write_certificate(folder)
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_privatekey_file(str(folder / "key.pem"))
        self._context.use_certificate_file(str(folder / "cert.pem"))

    def getContext(self) -> SSL.Context:
        return self._context


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


class Tls(SynchronousTestCase):
    def connect(self, handler: Any, wrapped: Any = None, **settings: Any) -> TlsClient:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.harness = Harness(handler, **settings)
        factory = wrapped or self.harness.reactor.tcpServers[0][1]
        peer = IPv4Address("TCP", "192.0.2.2", 50000)
        protocol = tls_factory(ContextFactory(folder), factory, self.harness.reactor).buildProtocol(peer)
        assert protocol is not None
        self.transport = FakeTransport(self.harness.reactor, protocol, peer, peer)
        # A client of the harness, as far as the harness looks.
        self.harness._connected.append(cast("Any", self))
        with self.harness._running():
            self.transport.startReading()
            protocol.makeConnection(self.transport)
        return TlsClient(self.harness, self.transport)

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
        self.harness.advance(LINGER + 1)
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
