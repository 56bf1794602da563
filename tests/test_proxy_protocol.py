"""Behind a proxy: the client's own address is known before anybody is asked whether it may come in."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client
from mtserver.errors import ConfigurationError
from mtserver.settings import Settings
from mtserver.testing import Harness
from mtserver.testing.transport import FakeTransport
from mtserver.transport import listeners
from mtserver.transport.proxy_protocol import AWAITED, HEADER, ProxiedFactory, parse
from mtserver.transport.tls import TLSPolicy

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 9999\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 192, 0, 2, 1]) + b"\x12\x67\x27\x0f"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\0\0\0"
PROXY = IPv4Address("TCP", "198.51.100.1", 40000)


async def shout(client: Client, message: bytes) -> bytes:
    return b"%s %s" % (client.peer.encode(), message.upper())


class Behind(SynchronousTestCase):
    def serve(self, **options: Any) -> None:
        self.harness = Harness(shout, **options)
        self.factory = ProxiedFactory(self.harness.reactor.tcpServers[0][1], self.harness.reactor)

    def connect(self, *segments: bytes) -> FakeTransport:
        with self.harness._running():
            protocol = self.factory.buildProtocol(PROXY)
            transport = FakeTransport(self.harness.reactor, protocol, PROXY, PROXY)
            self.harness._connected.append(cast("Any", Seat(transport)))
            transport.startReading()
            protocol.makeConnection(transport)
            for segment in segments:
                transport.deliver(segment)
        return transport

    def test_address(self) -> None:
        """Its client is who the header says, in version 1 and 2."""
        for header in (V1, V2):
            self.serve()
            self.assertEqual(self.connect(header + b"a\n").output, b"192.0.2.7:4711 A\n")

    def test_pieces(self) -> None:
        """The header may come in any pieces, and what follows it may come with it."""
        self.serve()
        for header in (V1, V2):
            for cut in range(1, len(header)):
                self.assertEqual(
                    self.connect(header[:cut], header[cut:] + b"a\n").output, b"192.0.2.7:4711 A\n", header[:cut]
                )

    def test_admission(self) -> None:
        """Clients behind one proxy are counted by their own addresses, and refused by them."""
        self.serve(max_clients_per_host=1)
        first, second = (self.connect(V1), self.connect(V1))
        other = self.connect(V1.replace(b"192.0.2.7", b"192.0.2.8"))
        self.assertRegex(bytes(second.output), b"^ERR busy")
        with self.harness._running():
            for transport in (first, other):
                transport.deliver(b"a\n")
        self.assertEqual((first.output, other.output), (b"192.0.2.7:4711 A\n", b"192.0.2.8:4711 A\n"))

    def test_local(self) -> None:
        """What the proxy sends for itself has its own address."""
        self.serve()
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            self.assertEqual(self.connect(header + b"a\n").output, b"198.51.100.1:40000 A\n")

    def test_none(self) -> None:
        """Without a header in time, or with something else, the connection is closed, and nobody has come."""
        self.serve()
        silent, other = self.connect(), self.connect(b"hello\n")
        self.assertTrue(other.aborted)
        self.harness.advance(HEADER - 1)
        self.assertFalse(silent.aborted)
        self.harness.advance(1)
        self.assertTrue(silent.aborted)
        self.assertEqual(len(self.harness.clients), 0)

    def test_many_silent(self) -> None:
        """Connections without a header take a bounded number of descriptors: the oldest goes."""
        self.serve()
        transports = [self.connect() for _ in range(AWAITED + 1)]
        self.assertEqual([transport.aborted for transport in transports], [True] + [False] * AWAITED)

    def test_half_close(self) -> None:
        """A client that sends, and ends its side, has its replies."""
        self.serve()
        transport = self.connect(V1 + b"a\nb\n")
        with self.harness._running():
            transport.end(main.CONNECTION_DONE)
        self.assertEqual(transport.output, b"192.0.2.7:4711 A\n192.0.2.7:4711 B\n")
        self.assertTrue(transport.write_closed)

    def test_lost(self) -> None:
        """A connection may be lost before its header and after it."""
        self.serve()
        for segments in ((), (V1,)):
            transport = self.connect(*segments)
            with self.harness._running():
                transport.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((len(self.harness.clients), len(self.factory._awaited)), (0, 0))

    def test_draining(self) -> None:
        """Whose header comes when the server is stopping is not let in."""
        self.serve()
        transport = self.connect()
        self.harness.server.draining = True
        with self.harness._running():
            transport.deliver(V1)
        self.assertTrue(transport.aborted)


class Seat:
    """A place in the harness, which looks after its transport."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport


class Parsing(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=200),
            st.binary(max_size=200).map(lambda data: b"PROXY " + data),
            st.binary(max_size=200).map(lambda data: V2[:12] + data),
        )
    )
    def test_noise(self, data: bytes) -> None:
        """Whatever comes is a header, the beginning of one, or none."""
        try:
            info, rest = parse(data)
        except InvalidProxyHeader:
            return
        if info is None:
            self.assertLessEqual(len(data), 16 + 65535)
        else:
            self.assertTrue(data.endswith(rest))

    def test_long(self) -> None:
        """A line of version 1 has 107 bytes at most."""
        self.assertEqual(parse(b"PROXY UNKNOWN ".ljust(105, b"x"))[0], None)
        self.assertRaises(InvalidProxyHeader, parse, b"PROXY UNKNOWN ".ljust(106, b"x"))


class Endpoints(SynchronousTestCase):
    def test_strings(self) -> None:
        """``haproxy:`` before an endpoint string has the listener asked behind the header."""
        harness = Harness(shout)
        made = listeners.endpoint(harness.reactor, "haproxy:tcp:1", TLSPolicy("intermediate"))
        made.listen(harness.reactor.tcpServers[0][1])
        self.assertIsInstance(harness.reactor.tcpServers[-1][1], ProxiedFactory)
        self.assertRaises(
            ConfigurationError, listeners.endpoint, harness.reactor, "haproxy:nonsense", TLSPolicy("intermediate")
        )
        self.assertEqual(Settings(port=("haproxy:tcp:1",)).listens[0].port, "haproxy:tcp:1")
