"""
A transport without a socket, with Twisted's real write buffer: it pauses its producer at 64 KiB, half-closes, aborts.

Built on ``abstract.FileDescriptor``, as the real ones are; ``StringTransport`` never pauses anybody.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet import abstract, main
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport)
class FakeTransport(abstract.FileDescriptor):
    """
    The server's end of a connection. What its peer does is the other half of the class.

    :param reactor: keeps account of who wants to read and write.
    """

    reactor: Any

    def __init__(self, reactor: Any, protocol: IProtocol, peer: IPv4Address, host: IPv4Address) -> None:
        super().__init__(reactor)
        self.protocol = protocol
        self._peer = peer
        self._host = host
        self.connected = 1
        self._incoming: deque[bytes] = deque()
        self._end: BaseException | None = None
        #: Bytes the peer will still read; None for any number.
        self.window: int | None = None
        #: Bytes that the peer has read.
        self.output = bytearray()
        #: How often the server has written.
        self.writes = 0
        #: The peer has read the end of the stream, or worse.
        self.write_closed = False
        self.aborted = False
        #: Number of bytes that the server has read so far.
        self.consumed = 0

    # The server's side.

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return self._host

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None: ...

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def writeSomeData(self, data: bytes) -> int:
        size = len(data) if self.window is None else min(self.window, len(data))
        if self.window is not None:
            self.window -= size
        self.output += data[:size]
        return size

    def _closeWriteConnection(self) -> None:
        self.write_closed = True
        protocol = IHalfCloseableProtocol(self.protocol, None)
        if protocol is not None:
            protocol.writeConnectionLost()

    def abortConnection(self) -> None:
        if not self.aborted and self.connected:
            self.aborted = True
            self.disconnecting = True
            self.stopReading()
            self.stopWriting()
            self.reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def connectionLost(self, reason: Failure) -> None:
        if self.connected:
            super().connectionLost(reason)
            self.write_closed = True
            self.protocol.connectionLost(reason)

    # The peer's side.

    def deliver(self, data: bytes) -> None:
        """The peer sends bytes, as one segment; read when the server reads."""
        self._incoming.append(data)

    def end(self, reason: BaseException) -> None:
        """The peer ends: after what it has sent, with ConnectionDone for half-closing, anything else for worse."""
        self._end = reason

    def turn(self) -> bool:
        """One step of what a reactor would do with this descriptor; whether there was any."""
        if not self.connected:
            return False
        stalled = self.window == 0 and bool(self.dataBuffer or self._tempDataBuffer)
        if self in self.reactor.getWriters() and not stalled:
            why = self.doWrite()
            if why is not None:
                self.connectionLost(Failure(why))
            return True
        if self not in self.reactor.getReaders():
            return False
        if self._incoming:
            data = self._incoming.popleft()
            self.consumed += len(data)
            self.protocol.dataReceived(data)
            return True
        if self._end is not None:
            end, self._end = self._end, None
            self.stopReading()
            if end is main.CONNECTION_DONE and IHalfCloseableProtocol.providedBy(self.protocol):
                IHalfCloseableProtocol(self.protocol).readConnectionLost()
            else:
                self.connectionLost(Failure(end))
            return True
        return False
