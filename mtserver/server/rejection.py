"""The protocol of a newcomer that there is no room for: it is told, and closed, and costs nothing else."""

from __future__ import annotations

import typing
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, INegotiated
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: Seconds a rejected newcomer has to read why.
PATIENCE = 1.0


class Admission(typing.Protocol):
    """The count of those who are being rejected."""

    def rejecting(self, protocol: RejectionProtocol) -> None: ...

    def rejected(self, protocol: RejectionProtocol) -> None: ...


@implementer(IHalfCloseableProtocol)
class RejectionProtocol(Protocol):
    """
    Writes one frame, ends its side, and drops whatever comes.

    :param frame: what to say; nothing if empty.
    :param now: seconds on the clock by which it will be swept.
    """

    __slots__ = ("_admission", "_deadline", "_frame", "connected", "factory", "transport")

    def __init__(self, frame: bytes, admission: Admission, now: float) -> None:
        self.transport: Any = None
        self.connected = 0
        self._frame = frame
        self._admission = admission
        self._deadline = now + PATIENCE

    def connectionMade(self) -> None:
        self._admission.rejecting(self)
        if self._frame:
            self.transport.write(self._frame)
        if INegotiated.providedBy(self.transport):
            self.transport.loseConnection()
        else:
            # The write side first: see the law of mtserver.session.closing.
            self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Drop it: nobody listens."""

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The newcomer has been told."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's signature
        self._admission.rejected(self)

    def release(self) -> None:
        """Close, as soon as what was written is out: the descriptor is needed."""
        self._admission.rejected(self)
        if INegotiated.providedBy(self.transport):
            # TLS has been told to close already; a client that never makes its handshake would never close.
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def sweep(self, now: float) -> None:
        """Abort if the newcomer has not gone in time."""
        if now >= self._deadline:
            self._admission.rejected(self)
            self.transport.abortConnection()
