"""The protocol of a newcomer that there is no room for: it is told, and closed, and costs nothing else."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, INegotiated
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: Seconds a refused newcomer has to read why.
PATIENCE = 1.0


class Server(typing.Protocol):
    """What a refusal needs of the factory that made it."""

    seconds: Callable[[], float]

    def refusing(self, protocol: RefusingProtocol) -> None: ...

    def refused(self, protocol: RefusingProtocol) -> None: ...


@implementer(IHalfCloseableProtocol)
class RefusingProtocol(Protocol):
    """
    Writes one frame, ends its side, and drops whatever comes.

    :param frame: what to say; nothing if empty.
    """

    __slots__ = ("_deadline", "_frame", "_server", "connected", "factory", "transport")

    def __init__(self, frame: bytes, server: Server) -> None:
        self.transport: Any = None
        self.connected = 0
        self._frame = frame
        self._server = server
        self._deadline = server.seconds() + PATIENCE

    def connectionMade(self) -> None:
        self._server.refusing(self)
        if self._frame:
            self.transport.write(self._frame)
        if INegotiated.providedBy(self.transport):
            self.transport.loseConnection()
        else:
            # Not yet the whole: see the law of closing in mtserver.session.session.
            self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Nobody listens."""

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """It has been told."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's signature
        self._server.refused(self)

    def release(self) -> None:
        """Close, as soon as what was written is out: the descriptor is needed."""
        self._server.refused(self)
        if INegotiated.providedBy(self.transport):
            # It is told to close already. One that never makes its handshake would never close.
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def sweep(self, now: float) -> None:
        """Look at the deadline."""
        if now >= self._deadline:
            self._server.refused(self)
            self.transport.abortConnection()
