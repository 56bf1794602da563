"""
An accepted TCP connection: one object that is uvloop's protocol on one side and Twisted's transport on the other.

uvloop reads, buffers and writes in C; per message, only the bytes are handed on here. The rest is what Twisted promises
its protocols and uvloop does not know: producers, half-close, reasons, writing before the connection is ready.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet import error, main
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.transport.reactor.accepted_socket import AcceptedSocket
from mtserver.transport.reactor.early import PausedTransport, PendingTransport, serve

# Bits of a connection's state. While it is just CONNECTED, writing takes no detour.
CONNECTED = 1
CLOSING = 2  # loseConnection was called
WRITE_CLOSING = 4  # loseWriteConnection was called
WRITE_CLOSED = 8  # nothing more can be written
READ_CLOSED = 16  # nothing more is to be read
FULL = 32  # uvloop holds more than its high-water mark, or is not ready: each write may pause the producer
CHECK_SCHEDULED = 64  # _check_sent will be called
PAUSED = 128  # the producer was told to pause
PULLED = 256  # the producer is a pull producer: resumed each time that all it wrote is sent

#: Unsent bytes above which a producer is paused: Twisted's number, and uvloop's.
_HIGH_WATER = 65536

_log = Logger("mtserver.reactor")


class Reactor(Protocol):
    """The reactor, as a connection sees it."""

    loop: Any
    connections: dict[Connection, None]


# IPushProducer is named for twisted.web, which does without back-pressure where it is missing.
@implementer(ITCPTransport, ISystemHandle, IPushProducer, IConsumer, ILoggingContext)
class Connection(AcceptedSocket):
    """The server's side of a TCP connection; made by a port, with the parameters of Twisted's own ``tcp.Server``."""

    __slots__ = ("_reactor", "_reason", "_state", "_uv", "producer", "protocol")

    # Attributes that Twisted's TLS reads: this is the server's side, and TLS is not on.
    _tlsClientDefault = False  # noqa: N815 - its name in Twisted
    TLS = False

    def __init__(
        self, sock: socket.socket, protocol: Any, client: tuple[Any, ...], _port: Any, _number: int, reactor: Reactor
    ) -> None:
        super().__init__(sock, client)
        self.protocol = protocol
        self.producer: Any = None
        self._reactor = reactor
        #: Reason for the end of the connection, if the network does not give it.
        self._reason: BaseException | None = None
        self._state = CONNECTED | FULL
        #: Transport of uvloop's, or a substitute for it.
        self._uv: Any = PendingTransport()
        reactor.connections[self] = None
        serve(reactor.loop, self, sock, self._start_failed)

    # uvloop calls these.

    def connection_made(self, uv: Any) -> None:
        pending, self._uv = self._uv, uv
        if not self._state & CONNECTED or pending.aborted:
            uv.abort()
            return
        self._state &= ~FULL
        pending.pass_on(uv)
        if not pending.is_reading():
            self._uv = PausedTransport(self, uv, self._reactor.loop)
        if self._state & PAUSED and not self._state & FULL:
            self._check_sent_soon()

    def use(self, transport: Any) -> None:
        """Put uvloop's transport in the place of its substitute."""
        self._uv = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.protocol.dataReceived(data)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            self._protocol_raised(problem)

    def eof_received(self) -> bool:
        """Tell the protocol that the client sends no more; True keeps the connection open for replies."""
        self._state |= READ_CLOSED
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self._uv.abort()  # unsent bytes are dropped, as Twisted's own transports do
        else:
            self._guarded(half_closeable.readConnectionLost)
        return True

    def pause_writing(self) -> None:
        """Pause the producer: uvloop holds more unsent bytes than its high-water mark."""
        self._state |= FULL
        self._pause_producer()

    def resume_writing(self) -> None:
        """Go on with whatever has waited until all is sent."""
        self._state &= ~FULL
        self._all_sent()

    def connection_lost(self, problem: BaseException | None) -> None:
        reason = self._reason or (main.CONNECTION_DONE if problem is None else main.CONNECTION_LOST)
        self.connectionLost(Failure(reason))

    # The reactor calls these, by the names that Twisted's own transports have for them.

    def connectionLost(self, reason: Failure) -> None:
        if not self._state & CONNECTED:
            return
        self._state = WRITE_CLOSED
        self._reactor.connections.pop(self, None)
        with contextlib.suppress(OSError):  # the client has closed already
            if reason.check(error.ConnectionAborted):
                self._reset_on_close()
            else:
                # Closing is not enough where a child process has inherited the descriptor.
                self.socket.shutdown(socket.SHUT_RDWR)
        producer, self.producer = self.producer, None
        if producer is not None:
            self._guarded(producer.stopProducing)
        self._uv.abort()
        self._guarded(self.protocol.connectionLost, reason)
        self.protocol = None

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    # ITransport

    @property
    def connected(self) -> bool:
        return bool(self._state & CONNECTED)

    @property
    def disconnected(self) -> bool:
        return not self._state & CONNECTED

    @property
    def disconnecting(self) -> bool:
        return bool(self._state & CLOSING)

    def write(self, data: bytes) -> None:
        if self._state == CONNECTED:
            self._uv.write(data)
        elif not self._state & WRITE_CLOSED:
            self._uv.write(data)
            if self._state & FULL:
                self._pause_producer()
            if data and self._state & (CLOSING | WRITE_CLOSING | PULLED):
                self._check_sent_soon()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(data)

    def loseConnection(self) -> None:
        if self._state & CONNECTED and not self._state & CLOSING:
            self._state |= CLOSING
            self._uv.pause_reading()
            self._check_sent_soon()

    def abortConnection(self) -> None:
        if self._state & CONNECTED and self._reason is None:
            self._abort(error.ConnectionAborted())

    def loseWriteConnection(self) -> None:
        if self._state & CONNECTED and not self._state & WRITE_CLOSING:
            self._state |= WRITE_CLOSING
            self._check_sent_soon()

    # IConsumer, for the protocol's producer; IPushProducer, for reading

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if not self._state & CONNECTED:
            producer.stopProducing()
            return
        self.producer = producer
        if not streaming:
            self._state |= PULLED
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._state &= ~(PAUSED | PULLED)
        if self._state & (CLOSING | WRITE_CLOSING):
            self._check_sent_soon()

    def pauseProducing(self) -> None:
        self._uv.pause_reading()

    def resumeProducing(self) -> None:
        if self.receives:
            self._uv.resume_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Part of no interface, but of every transport of Twisted's, and in use.

    @property
    def receives(self) -> bool:
        """Whether more may be received: neither side has ended, and loseConnection was not called."""
        return self._state & (CONNECTED | CLOSING | READ_CLOSED) == CONNECTED

    @property
    def reading(self) -> bool:
        return bool(self._uv.is_reading())

    stopReading = pauseProducing  # noqa: N815 - Twisted's name
    startReading = resumeProducing  # noqa: N815 - Twisted's name

    # Ends, and steps that wait until all is sent.

    def _check_sent_soon(self) -> None:
        """Check in the next iteration whether all is sent, so that bytes still written in this one count."""
        if not self._state & CHECK_SCHEDULED:
            self._state |= CHECK_SCHEDULED
            self._reactor.loop.call_soon(self._check_sent)

    def _check_sent(self) -> None:
        self._state &= ~CHECK_SCHEDULED
        if not self._state & CONNECTED:
            return
        if self._uv.get_write_buffer_size():
            self._uv.set_write_buffer_limits(0, 0)  # so resume_writing will be called
        else:
            self.resume_writing()

    def _all_sent(self) -> None:
        """Take the next step after the last byte is sent, in the order of Twisted's ``FileDescriptor.doWrite``."""
        if self._reason is not None:
            return
        if self._state & (PAUSED | PULLED):
            self._state &= ~PAUSED
            self._guarded(self.producer.resumeProducing)
        elif self._state & CLOSING:
            self._state |= WRITE_CLOSED
            self._uv.close()
        elif self._state & WRITE_CLOSING and not self._state & WRITE_CLOSED:
            self._state |= WRITE_CLOSED
            self._uv.write_eof()
            half_closeable = IHalfCloseableProtocol(self.protocol, None)
            if half_closeable is not None:
                self._guarded(half_closeable.writeConnectionLost)

    def _abort(self, reason: BaseException) -> None:
        self._reason = reason
        self._state |= WRITE_CLOSED | READ_CLOSED
        self._uv.abort()

    def _start_failed(self, problem: BaseException) -> None:
        """End a connection that had gone before uvloop was ready for it."""
        self.connection_lost(problem)
        self.socket.close()

    def _pause_producer(self) -> None:
        if self.producer is None or self._state & (PAUSED | PULLED):
            return
        if self._uv.get_write_buffer_size() > _HIGH_WATER:
            self._state |= PAUSED
            self._guarded(self.producer.pauseProducing)

    def _protocol_raised(self, problem: BaseException) -> None:
        """Log an exception of the protocol's and abort, as Twisted's own transports do."""
        _log.failure("Unhandled error in {protocol}", Failure(problem), protocol=self.logPrefix())
        if self._state & CONNECTED:
            self._abort(self._reason or problem)

    def _guarded(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            self._protocol_raised(problem)
