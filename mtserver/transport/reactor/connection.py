"""
An accepted TCP connection: one object that is uvloop's protocol on one side and Twisted's transport on the other.

uvloop reads, buffers and writes in C; what is left to do here per message is to hand the bytes on. The rest is what
Twisted promises its protocols and uvloop does not know: producers, half-close, reasons, writing before it is ready.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import error, main
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.transport.reactor.early import Held, Unborn

if TYPE_CHECKING:
    from mtserver.transport.reactor.uv import UVReactor

#: SO_LINGER on, for 0 seconds: to close sends RST.
_RESET = struct.pack("ii", 1, 0)

# Bits of a connection's state. While it is just _CONNECTED, writing takes no detour.
_CONNECTED = 1
_CLOSING = 2  # loseConnection was called
_WRITE_CLOSING = 4  # loseWriteConnection was called
_WRITE_CLOSED = 8  # nothing more can be written
_READ_CLOSED = 16  # nothing more is to be read
_FULL = 32  # uvloop has more than it likes to hold, or is not ready: each write looks whether to pause the producer
_SCHEDULED = 64  # _look will be called
_PAUSED = 128  # the producer was told to pause
_PULLED = 256  # the producer is one that wants to be asked for more whenever what it wrote is sent

#: More unsent bytes than this pause a producer. Twisted's number, and uvloop's.
_HIGH_WATER = 65536

_log = Logger("mtserver.reactor")


# twisted.web asks for IPushProducer, and does without back-pressure where there is none.
@implementer(ITLSTransport, ITCPTransport, ISystemHandle, IPushProducer, IConsumer, ILoggingContext)
class Connection:
    """
    A server's side of a TCP connection; made by a port, with the parameters of Twisted's own ``tcp.Server``.

    :param sock: the accepted socket.
    :param client: the address that ``accept`` gave with it.
    """

    __slots__ = (
        "_client",
        "_reactor",
        "_reason",
        "_state",
        "_uv",
        "producer",
        "protocol",
        "socket",
    )

    # Twisted's TLS reads these: we are the server, and TLS is not on.
    _tlsClientDefault = False  # noqa: N815 - its name in Twisted
    TLS = False

    def __init__(
        self, sock: socket.socket, protocol: Any, client: tuple[Any, ...], _port: Any, _number: int, reactor: UVReactor
    ) -> None:
        self.socket = sock
        self.protocol = protocol
        self.producer: Any = None
        self._client = _packed(client)
        self._reactor = reactor
        #: Why the connection ends, if not for a reason of the network's.
        self._reason: BaseException | None = None
        self._state = _CONNECTED | _FULL
        #: uvloop's transport, or what stands in for it.
        self._uv: Any = Unborn()
        reactor.connections[self] = None
        sock.setblocking(False)
        try:
            _drive(reactor.loop.connect_accepted_socket(lambda: self, sock), self._stillborn)
        except (OSError, RuntimeError) as problem:
            reactor.loop.call_soon(self._stillborn, problem)

    # uvloop calls these.

    def connection_made(self, uv: Any) -> None:
        unborn, self._uv = self._uv, uv
        if not self._state & _CONNECTED or unborn.aborted:
            uv.abort()
            return
        self._state &= ~_FULL
        unborn.pass_on(uv)
        if not unborn.is_reading():
            self._uv = Held(self, uv, self._reactor.loop)
        if self._state & _PAUSED and not self._state & _FULL:
            self._look_soon()

    def release(self, uv: Any) -> None:
        """Go on with uvloop's transport itself."""
        self._uv = uv

    def data_received(self, data: bytes) -> None:
        try:
            self.protocol.dataReceived(data)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            self._fail(problem)

    def eof_received(self) -> bool:
        """Returns whether uvloop is to keep the connection."""
        self._state |= _READ_CLOSED
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self._uv.abort()  # with all that is unsent, as Twisted's own transports do
        else:
            self._guarded(half_closeable.readConnectionLost)
        return True

    def pause_writing(self) -> None:
        """More is unsent than uvloop likes to hold."""
        self._state |= _FULL
        self._pause_producer()

    def resume_writing(self) -> None:
        """Everything is sent."""
        self._state &= ~_FULL
        self._drained()

    def connection_lost(self, problem: BaseException | None) -> None:
        reason = self._reason or (main.CONNECTION_DONE if problem is None else main.CONNECTION_LOST)
        self.connectionLost(Failure(reason))

    # The reactor calls these; those of Twisted's own transports have the same names.

    def connectionLost(self, reason: Failure) -> None:
        if not self._state & _CONNECTED:
            return
        self._state = _WRITE_CLOSED
        self._reactor.connections.pop(self, None)
        with contextlib.suppress(OSError):  # the peer was faster
            if reason.check(error.ConnectionAborted):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                # Were a child process to hold the descriptor too, to close would not be enough.
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
        return bool(self._state & _CONNECTED)

    @property
    def disconnected(self) -> bool:
        return not self._state & _CONNECTED

    @property
    def disconnecting(self) -> bool:
        return bool(self._state & _CLOSING)

    def write(self, data: bytes) -> None:
        if self._state == _CONNECTED:
            self._uv.write(data)
        elif not self._state & _WRITE_CLOSED:
            self._uv.write(data)
            if self._state & _FULL:
                self._pause_producer()
            if data and self._state & (_CLOSING | _WRITE_CLOSING | _PULLED):
                self._look_soon()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(data)

    def loseConnection(self) -> None:
        if self._state & _CONNECTED and not self._state & _CLOSING:
            self._state |= _CLOSING
            self._uv.pause_reading()
            self._look_soon()

    def abortConnection(self) -> None:
        if self._state & _CONNECTED and self._reason is None:
            self._end(error.ConnectionAborted())

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(_unpacked(self._client))

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self.socket.getsockname())

    # ITCPTransport, ISystemHandle

    def loseWriteConnection(self) -> None:
        if self._state & _CONNECTED and not self._state & _WRITE_CLOSING:
            self._state |= _WRITE_CLOSING
            self._look_soon()

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def getHandle(self) -> socket.socket:
        return self.socket

    def fileno(self) -> int:
        return self.socket.fileno()

    # IConsumer, and the producer of our protocol

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if not self._state & _CONNECTED:
            producer.stopProducing()
            return
        self.producer = producer
        if not streaming:
            self._state |= _PULLED
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._state &= ~(_PAUSED | _PULLED)
        if self._state & (_CLOSING | _WRITE_CLOSING):
            self._look_soon()

    def pauseProducing(self) -> None:
        self._uv.pause_reading()

    def resumeProducing(self) -> None:
        if self.receives:
            self._uv.resume_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # In no interface, but on every transport of Twisted's, and used.

    @property
    def receives(self) -> bool:
        """Whether there may be more to receive: both sides, and whoever uses it, are for it."""
        return self._state & (_CONNECTED | _CLOSING | _READ_CLOSED) == _CONNECTED

    @property
    def reading(self) -> bool:
        return bool(self._uv.is_reading())

    def stopReading(self) -> None:
        self.pauseProducing()

    def startReading(self) -> None:
        self.resumeProducing()

    # ITLSTransport

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        from twisted.internet import _newtls  # with pyOpenSSL, which takes 60 ms to import
        from twisted.protocols.tls import TLSMemoryBIOFactory

        producer, streaming = self.producer, not self._state & _PULLED
        self.producer = None
        self._state &= ~(_PAUSED | _PULLED)
        tls_factory = TLSMemoryBIOFactory(contextFactory, not normal, None)  # type: ignore[arg-type] # as Twisted
        self.protocol = tls_factory.protocol(tls_factory, self.protocol, False)
        self.__class__ = _OverTLS
        self.protocol.makeConnection(_newtls._BypassTLS(Connection, self))  # noqa: SLF001 - as Twisted's transports do
        if producer is not None:
            self.registerProducer(producer, streaming)

    # Ends, and what happens when all is sent.

    def _look_soon(self) -> None:
        """Look whether all is sent; in the next iteration, so that what is still written in this one counts."""
        if not self._state & _SCHEDULED:
            self._state |= _SCHEDULED
            self._reactor.loop.call_soon(self._look)

    def _look(self) -> None:
        self._state &= ~_SCHEDULED
        if not self._state & _CONNECTED:
            return
        if self._uv.get_write_buffer_size():
            self._uv.set_write_buffer_limits(0, 0)  # so resume_writing will be called
        else:
            self.resume_writing()

    def _drained(self) -> None:
        """All is sent. The order of cases is that of Twisted's ``FileDescriptor.doWrite``."""
        if self._reason is not None:
            return
        if self._state & (_PAUSED | _PULLED):
            self._state &= ~_PAUSED
            self._guarded(self.producer.resumeProducing)
        elif self._state & _CLOSING:
            self._state |= _WRITE_CLOSED
            self._uv.close()
        elif self._state & _WRITE_CLOSING and not self._state & _WRITE_CLOSED:
            self._state |= _WRITE_CLOSED
            self._uv.write_eof()
            half_closeable = IHalfCloseableProtocol(self.protocol, None)
            if half_closeable is not None:
                self._guarded(half_closeable.writeConnectionLost)

    def _end(self, reason: BaseException) -> None:
        self._reason = reason
        self._state |= _WRITE_CLOSED | _READ_CLOSED
        self._uv.abort()

    def _stillborn(self, problem: BaseException) -> None:
        """The connection had gone before uvloop was ready for it."""
        self.connection_lost(problem)
        self.socket.close()

    def _pause_producer(self) -> None:
        if self.producer is None or self._state & (_PAUSED | _PULLED):
            return
        if self._uv.get_write_buffer_size() > _HIGH_WATER:
            self._state |= _PAUSED
            self._guarded(self.producer.pauseProducing)

    def _fail(self, problem: BaseException) -> None:
        """The protocol raised: as ever in Twisted, that costs it the connection."""
        _log.failure("Unhandled error in {protocol}", Failure(problem), protocol=self.logPrefix())
        if self._state & _CONNECTED:
            self._end(self._reason or problem)

    def _guarded(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            self._fail(problem)


@implementer(ISSLTransport)
class _OverTLS(Connection):
    """What a connection becomes by ``startTLS``. TLS itself calls the methods of the class above."""

    __slots__ = ()
    TLS = True

    def write(self, data: bytes) -> None:
        if self._state & _CONNECTED:
            self.protocol.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._state & _CONNECTED:
            self.protocol.writeSequence(iovec)

    def loseConnection(self) -> None:
        if self._state & _CONNECTED and not self._state & _CLOSING:
            self.protocol.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.protocol.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self._state & _CONNECTED:
            self.protocol.unregisterProducer()

    def getHandle(self) -> Any:
        return self.protocol.getHandle()

    def getPeerCertificate(self) -> Any:
        return self.protocol.getPeerCertificate()


def _drive(coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None]) -> None:
    """Run a coroutine that waits for one future; a task would do so at three times the price."""
    coroutine.send(None).add_done_callback(functools.partial(_finish, coroutine, failed))


def _finish(coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None], _: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    except (OSError, RuntimeError) as problem:
        failed(problem)


def _packed(name: tuple[Any, ...]) -> Any:
    """A peer's address for as long as nobody asks for it: of IPv4 one number of 32 bytes, where the tuple takes 180."""
    if len(name) != 2:
        return name
    host, port = name
    return int.from_bytes(socket.inet_aton(host), "big") << 16 | port


def _unpacked(packed: Any) -> tuple[Any, ...]:
    if isinstance(packed, tuple):
        return packed
    return socket.inet_ntoa((packed >> 16).to_bytes(4, "big")), packed & 0xFFFF


def _address(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)  # with the scope, if it has one
    return IPv6Address("TCP", host, *name[1:])
