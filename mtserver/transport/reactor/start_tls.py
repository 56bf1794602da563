"""Connections that begin in clear text and may go on under TLS: ``ITLSTransport.startTLS``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import ISSLTransport, ITLSTransport
from zope.interface import implementer

from mtserver.transport.reactor.connection import CLOSING, CONNECTED, PAUSED, PULLED, Connection


@implementer(ITLSTransport)
class StartTLSConnection(Connection):
    """A connection in clear text that ``startTLS`` turns into one under Twisted's TLS."""

    __slots__ = ()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        from twisted.internet import _newtls  # brings pyOpenSSL, which takes 60 ms to import
        from twisted.protocols.tls import TLSMemoryBIOFactory

        producer, streaming = self.producer, not self._state & PULLED
        self.producer = None
        self._state &= ~(PAUSED | PULLED)
        tls_factory = TLSMemoryBIOFactory(contextFactory, not normal, None)  # type: ignore[arg-type] # as Twisted
        self.protocol = tls_factory.protocol(tls_factory, self.protocol, False)
        self.__class__ = _TLSConnection  # type: ignore[assignment]
        self.protocol.makeConnection(_newtls._BypassTLS(Connection, self))  # noqa: SLF001 - as Twisted's transports do
        if producer is not None:
            self.registerProducer(producer, streaming)


@implementer(ISSLTransport)
class _TLSConnection(Connection):
    """The class of a connection after ``startTLS``. TLS itself goes on with the methods of :class:`Connection`."""

    __slots__ = ()
    TLS = True

    def write(self, data: bytes) -> None:
        if self._state & CONNECTED:
            self.protocol.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._state & CONNECTED:
            self.protocol.writeSequence(iovec)

    def loseConnection(self) -> None:
        if self._state & CONNECTED and not self._state & CLOSING:
            self.protocol.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.protocol.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self._state & CONNECTED:
            self.protocol.unregisterProducer()

    def getHandle(self) -> Any:
        return self.protocol.getHandle()

    def getPeerCertificate(self) -> Any:
        return self.protocol.getPeerCertificate()
