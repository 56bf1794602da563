"""The factory that puts TLS under the protocols of another one."""

from __future__ import annotations

import ssl

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from mtserver.transport.tls.protocol import TLSProtocol


class TLSFactory(Factory):
    """
    Puts TLS under the protocols of another factory.

    :param context: a server's context. Another may take its place at any time, for the handshakes to come.
    """

    noisy = False

    def __init__(self, context: ssl.SSLContext, wrapped: IProtocolFactory) -> None:
        self.context = context
        self.wrapped = wrapped

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    def logPrefix(self) -> str:
        return f"{type(self.wrapped).__name__} (TLS)"

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        inside = self.wrapped.buildProtocol(addr)  # type: ignore[arg-type] # Twisted passes None for some transports
        return None if inside is None else TLSProtocol(self.context, inside)
