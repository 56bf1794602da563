"""The server that a test holds in its hand. Usage stands in the package's docstring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.app import App
from mtserver.auth import checkers as checkers_named
from mtserver.client import Client
from mtserver.codecs import TypedCodec, codec_for
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import InPlace
from mtserver.dispatch.plan import plan
from mtserver.errors import BadMessage
from mtserver.process.service import ServerService
from mtserver.server.listener import Listener
from mtserver.server.server import Server
from mtserver.session.session import Session
from mtserver.settings import Settings
from mtserver.testing.loop import ClockLoop
from mtserver.testing.transport import FakeTransport

_SERVER = IPv4Address("TCP", "192.0.2.1", 9999)


@implementer(IReactorFromThreads)
class _Reactor(MemoryReactorClock):
    """Twisted's reactor for tests, which leaves out threads and starting."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Twisted's name
        self.callLater(0, callable, *args, **kwargs)

    def callWhenRunning(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Twisted's name
        self.callLater(0, callable, *args, **kwargs)

    def stop(self) -> None:
        self.hasStopped = True


class Harness:
    """
    A server with one app, and as many clients as the test connects.

    :param handler: a handler function, a Handler class or an App.
    :param asyncio_loop: whether there is an asyncio loop (on the same clock); without one, handlers may await
        Deferreds only, as under ``--reactor epoll``.
    :param checkers: of credentials, beside those that ``auth`` names.
    :param ports: more ports of the same server: for each a handler, as the first one, and its framing.
    :param settings: options of the server, by their names in :class:`~mtserver.settings.Settings`.
    """

    #: Steps at one moment of the clock before it is said that they have no end.
    TURNS = 1_000_000

    def __init__(
        self,
        handler: Callable[..., Any] | App,
        *,
        asyncio_loop: bool = True,
        checkers: Sequence[Any] = (),
        ports: Sequence[tuple[Callable[..., Any] | App, str]] = (),
        **settings: Any,
    ) -> None:
        self.app = handler if isinstance(handler, App) else App(handler)
        apps = [self.app, *(other if isinstance(other, App) else App(other) for other, _ in ports)]
        values = {name.replace("_", "-"): value for name, value in settings.items()}
        tables = [{"port": f"tcp:{10000 + place}", "framing": framing} for place, (_, framing) in enumerate(ports)]
        self.settings = Settings.read({**values, "port": "tcp:9999", "listen": tables})
        self.reactor: Any = _Reactor()

        self.loop: Any = ClockLoop(self.reactor) if asyncio_loop else None
        loop_calls = LoopCalls(self.reactor)
        self._offload = Offload(loop_calls, InPlace(), in_place=True)
        self.service = ServerService(
            self.settings,
            apps,
            self.reactor,
            checkers=[*checkers, *checkers_named(self.settings.auth)],
            loop_calls=loop_calls,
            threads=InPlace(),
            offload=self._offload,
        )
        self._connected: list[HarnessClient] = []
        with self._running():
            self.service.startService()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def connect(self, host: str = "192.0.2.2", *, port: int = 0) -> HarnessClient:
        """
        A new client.

        :param host: its address. Each client has a port of its own.
        :param port: which of the server's ports it connects to; 0 is the first.
        """
        peer = IPv4Address("TCP", host, 50000 + len(self._connected))
        with self._running():
            listener = self.reactor.tcpServers[port][1]
            protocol = listener.buildProtocol(peer)
            client = HarnessClient(self, protocol, peer, listener)
            self._connected.append(client)
            client.transport.startReading()
            protocol.makeConnection(client.transport)
        return client

    @property
    def server(self) -> Server:
        """The server, which the clients of all ports share."""
        server = self.service.server
        assert server is not None, "made when the harness is"  # noqa: S101 - for the type checker
        return server

    @property
    def clients(self) -> Collection[Client]:
        """The clients as the app sees them."""
        return self.app.clients

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that happens in it at its own moment."""
        end = self.reactor.seconds() + seconds
        with self._running():
            while True:
                calls = self.reactor.getDelayedCalls()
                due = min((call.getTime() for call in calls), default=end)
                if due > end:
                    break
                self.reactor.advance(max(0.0, due - self.reactor.seconds()))
                self._settle()
                if not calls:
                    break
            self.reactor.advance(end - self.reactor.seconds())

    def stop(self) -> None:
        """Stop the server as SIGTERM would. Time moves until it has: at most the drain timeout and a little."""
        if not self.service.running:
            return
        stopped: list[Any] = []
        with self._running():
            self.service.stopService().addBoth(stopped.append)
        while not stopped:
            self.advance(0.25)

    def fire(self, deferred: Deferred[Any], result: Any = None) -> None:
        """Fire a Deferred that a handler waits for, with a result or an exception, and see what comes of it."""
        with self._running():
            if isinstance(result, BaseException):
                deferred.errback(result)
            else:
                deferred.callback(result)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Inside, this harness's loop and threads are those in use, whatever the test itself or another has."""
        outer = asyncio._get_running_loop()
        # A test may be a task itself. It steps aside: from Python 3.14 on the current task is the thread's, not the
        # loop's, and asyncio lets no other one begin a step in it.
        task = None if outer is None else asyncio.current_task(outer)
        if outer is not None and task is not None:
            asyncio.tasks._leave_task(outer, task)  # noqa: SLF001 - asyncio's own door for frameworks
        asyncio._set_running_loop(self.loop)
        self._offload.enter()
        try:
            yield
            self._settle()
        finally:
            self._offload.leave()
            asyncio._set_running_loop(outer)
            if outer is not None and task is not None:
                asyncio.tasks._enter_task(outer, task)  # noqa: SLF001 - as above

    def _settle(self) -> None:
        """Until nothing is left to do at this moment of the clock."""
        for _ in range(self.TURNS):
            moved = [client.transport.turn() for client in self._connected]
            if self.loop is not None:
                moved.append(self.loop.turn())
            now = self.reactor.seconds()
            due = any(call.getTime() <= now for call in self.reactor.getDelayedCalls())
            if due:
                self.reactor.advance(0)
            if not due and not any(moved):
                return
        raise AssertionError("the server does not come to rest: something calls itself again without end")


class HarnessClient:
    """One client of a harness, from its own side of the connection."""

    def __init__(self, harness: Harness, protocol: Session, peer: IPv4Address, listener: Listener) -> None:
        self._harness = harness
        self._framing = listener.framing(1 << 30)
        codec = plan(listener.app.handler, harness.settings).codec
        # A typed handler's clients know nothing of its types: they see what is on the wire.
        self._codec = codec_for(Any, Any, harness.settings.encoding) if isinstance(codec, TypedCodec) else codec
        self._received: list[Any] = []
        self._read = 0
        self.protocol = protocol
        self.transport = FakeTransport(harness.reactor, protocol, peer, _SERVER)

    def send(self, *messages: Any) -> None:
        """
        Send messages, framed, together in one segment.

        Bytes are sent as they are, whatever the handler; a str to a handler of bytes or str as UTF-8; to a typed one
        any value, encoded as its clients would: ``Reading(21)`` and ``{"celsius": 21}`` are the same.
        """
        self.send_raw(self._framing.encode([self._encoded(message) for message in messages]))

    def _encoded(self, message: Any) -> bytes:
        if isinstance(message, str) and not isinstance(self._codec, TypedCodec):
            return message.encode()
        return message if isinstance(message, bytes) else self._codec.encode(message)

    def send_raw(self, *segments: bytes) -> None:
        """Send bytes as they are, each argument a segment of its own."""
        with self._harness._running():
            for segment in segments:
                self.transport.deliver(segment)

    def half_close(self) -> None:
        """Send the end of the stream, and go on reading, as ``nc -N`` does."""
        with self._harness._running():
            self.transport.end(main.CONNECTION_DONE)

    def reset(self) -> None:
        """Reset the connection, at once."""
        with self._harness._running():
            self.transport.connectionLost(Failure(ConnectionLost()))

    def read(self, size: int | None) -> None:
        """Read `size` more bytes and no more; or, with None, everything from now on. ``read(0)`` stops reading."""
        with self._harness._running():
            self.transport.window = size

    @property
    def received(self) -> list[Any]:
        """
        All messages it has read: bytes, or str from a handler of str.

        From a typed handler, what a client that knows no types makes of them: dicts, lists, numbers, text. A frame
        that holds no such value (the ``OK`` of authentication, say) is bytes.
        """
        self._framing.feed(bytes(self.transport.output[self._read :]))
        self._read = len(self.transport.output)
        while messages := self._framing.take(1000):
            self._received += map(self._decoded, messages)
        return self._received

    def _decoded(self, frame: bytes) -> Any:
        try:
            return self._codec.decode(frame)
        except BadMessage:
            return frame

    @property
    def received_raw(self) -> bytes:
        """All bytes it has read."""
        return bytes(self.transport.output)

    @property
    def disconnected(self) -> bool:
        """The server has ended its side, or all of it."""
        return self.transport.write_closed
