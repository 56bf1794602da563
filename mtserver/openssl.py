"""
TLS as Twisted's ``ssl:`` endpoints make it, with the one thing that they lack: an end of the client's stream that is
not the end of ours.

A client that has sent its last message says so with close_notify, and may well wait for the replies (``socat`` does).
Stock Twisted answers with its own close_notify at once, and replies not yet made, or waiting in its buffer for the
next iteration, are lost. Here the protocol is told ``readConnectionLost``, as over plain TCP, and closes when it has
answered. TLS 1.3 has it so (RFC 8446, 6.1: each direction is closed by itself); TLS 1.2 peers read on or do not care.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol, IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer


class _Connection(SSL.Connection):
    """An OpenSSL connection that reports the peer's close_notify to the protocol, and once."""

    def __init__(self, context: SSL.Context, transport: TLSMemoryBIOProtocol) -> None:
        super().__init__(context, None)
        self._transport: TLSMemoryBIOProtocol | None = transport

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        try:
            return super().recv(bufsiz, flags)
        except SSL.ZeroReturnError:
            transport, self._transport = self._transport, None
            protocol = getattr(transport, "wrappedProtocol", None)
            if not IHalfCloseableProtocol.providedBy(protocol):
                raise
            protocol.readConnectionLost()
            raise SSL.WantReadError from None


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, context_factory: Any) -> None:
        self._context_factory = context_factory

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return _Connection(self._context_factory.getContext(), tlsProtocol)


def tls_factory(context_factory: Any, factory: IProtocolFactory, clock: Any) -> TLSMemoryBIOFactory:
    """
    `factory` behind TLS.

    :param context_factory: as ``listenSSL`` takes it.
    """
    wrapped = TLSMemoryBIOFactory(_Creator(context_factory), False, factory, clock)
    # Ours writes once per batch already; the buffering default would only add an iteration of delay.
    wrapped.protocol = TLSMemoryBIOProtocol
    return wrapped
