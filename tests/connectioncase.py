"""A test case of connections to a reactor in this process, which is run a turn at a time."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.failure import Failure
from zope.interface import implementer

from tests import DEADLINE

#: Of a client that does not read.
MORE_THAN_THE_KERNEL_TAKES = 10_000_000

Act = Callable[["Server"], object]


class Server(Protocol):
    """The protocol of an accepted connection: notes what it is told, and does what the test gives it to do."""

    def __init__(self, acts: dict[str, Act]) -> None:
        self.acts = acts
        self.told: list[str] = []
        self.received = b""
        self.reasons: list[Failure] = []
        self.transport: Any = None

    def _tell(self, name: str) -> None:
        self.told.append(name)
        self.acts.get(name, lambda _: None)(self)

    def connectionMade(self) -> None:
        self._tell("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell("data")

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment] # Twisted's signature
        self.reasons.append(reason)
        self._tell("lost")

    @property
    def lost(self) -> bool:
        return bool(self.reasons)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Server):
    def readConnectionLost(self) -> None:
        self._tell("read lost")

    def writeConnectionLost(self) -> None:
        self._tell("write lost")


@implementer(IPushProducer, IPullProducer)
class Producer:
    """Notes what it is told; when resumed, calls `on_resume`."""

    def __init__(self, on_resume: Callable[[], object] = lambda: None) -> None:
        self.told: list[str] = []
        self._on_resume = on_resume

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self._on_resume()

    def stopProducing(self) -> None:
        self.told.append("stop")


class Client:
    """The peer: a socket that is read, if it is, whenever the reactor has had its turn."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.received = b""
        self.reading = True
        self.ended = False
        self.reset = False

    def send(self, data: bytes) -> None:
        self.socket.send(data)

    def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        chunks = []
        with contextlib.suppress(BlockingIOError):
            while self.reading and not self.ended:
                try:
                    chunk = self.socket.recv(1 << 20)
                except ConnectionResetError:
                    self.reset, chunk = True, b""
                chunks.append(chunk)
                self.ended = not chunk
        self.received += b"".join(chunks)

    def close(self) -> None:
        self.socket.close()
        self.reading = False

    def send_reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def segments(self) -> int:
        """How many with data have come: ``tcpi_data_segs_in``."""
        if sys.platform != "linux":
            raise SkipTest("needs Linux: segments are counted")
        found: tuple[int] = struct.unpack_from(
            "I", self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152
        )
        return found[0]


class Case(ReactorBuilder):
    """A reactor that is run a turn at a time, with a port."""

    # trial's, of the test case that this is mixed into.
    addCleanup: Callable[..., Any]  # noqa: N815 - its name there

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = self.buildReactor()
        self.reactor.startRunning(installSignalHandlers=False)
        #: Connections that were accepted, in their order; a test may take them from here.
        self.servers: list[Server] = []
        self._accepted: list[weakref.ref[Server]] = []
        self.clients: list[Client] = []
        self.addCleanup(self._end)

    def _end(self) -> None:
        for client in self.clients:
            client.close()
        for reference in self._accepted:
            if (server := reference()) and server.transport and not server.lost:
                server.acts.clear()
                server.transport.abortConnection()
        self.turns()
        if self.reactor.running:
            self.reactor.stop()
            self.until(lambda: not self.reactor.running)

    def turn(self) -> None:
        """Let the reactor do what there is to do."""
        raise NotImplementedError

    def turns(self) -> None:
        """As many as anything that is going to happen would need."""
        for _ in range(10):
            self.turn()

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {DEADLINE:g} s")
            self.turn()
            for client in self.clients:
                client.read()

    def listen(self, protocol: type[Server] = Server, **acts: Act) -> None:
        """Serve by `protocol`, which does `acts` when it is told of them."""
        named = {name.replace("_", " "): act for name, act in acts.items()}

        def build(_: object) -> Server:
            server = protocol(named)
            self.servers.append(server)
            self._accepted.append(weakref.ref(server))
            return server

        factory = Factory()
        factory.buildProtocol = build  # type: ignore[assignment,method-assign]
        self.port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")

    def connect(self) -> Client:
        client = Client(self.port.getHost().port)
        self.clients.append(client)
        return client

    def pair(self, protocol: type[Server] = Server, **acts: Act) -> tuple[Server, Client]:
        """A connection that both ends know of."""
        self.listen(protocol, **acts)
        client = self.connect()
        self.until(lambda: self.servers and self.servers[0].told)
        self.turns()
        return self.servers[0], client
