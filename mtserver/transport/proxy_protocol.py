"""
``haproxy:``: the header by which a proxy says where its client is (HAProxy's PROXY protocol, versions 1 and 2).

Twisted's parsers read the header. Its wrapper is not used: it makes the protocol before the header has come, with the
proxy's own address, so that limits per host would take all clients behind one proxy for one host. Here the listener is
asked for a protocol once the client's address is known, as for any other port. The header may come in any pieces and
has a deadline; a connection without one is closed.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols import policies
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

#: Seconds for the header: the proxy sends it before anything else.
HEADER = 5.0
#: Most connections whose header is awaited; for one more, the oldest is closed. Each has a descriptor that no limit of
#: clients counts.
AWAITED = 64
#: Bytes of the longest header of version 1, with its CR and LF.
LONGEST = 107
#: Header of version 1 from a proxy that does not know its client, or tells nothing of it.
V1_UNKNOWN = b"PROXY UNKNOWN "


class ProxiedFactory(policies.WrappingFactory):
    """
    Makes a protocol of the wrapped factory for each client behind a proxy.

    :param reactor: the clock for deadlines.
    """

    noisy = False

    def __init__(self, wrapped: Any, reactor: IReactorTime) -> None:
        super().__init__(wrapped)
        self.reactor = reactor
        self._awaited: dict[ProxiedProtocol, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ARG002 - the proxy's
        return ProxiedProtocol(self)

    def awaiting(self, protocol: ProxiedProtocol) -> None:
        """Count a connection whose header is awaited; close the oldest where there are too many."""
        if len(self._awaited) >= AWAITED:
            next(iter(self._awaited)).abort_unproxied()
        self._awaited[protocol] = None

    def settled(self, protocol: ProxiedProtocol) -> None:
        """Stop counting a connection whose header has come, or will not come."""
        self._awaited.pop(protocol, None)


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(policies.ProtocolWrapper):
    """One connection from a proxy; once its header has come, the transport of the client's protocol."""

    factory: ProxiedFactory
    transport: Any

    def __init__(self, factory: ProxiedFactory) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._header = b""
        self._info: ProxyInfo | None = None
        self._deadline: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport), IHalfCloseableProtocol)
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self.factory.awaiting(self)
        self._deadline = self.factory.reactor.callLater(HEADER, self.abort_unproxied)

    def abort_unproxied(self) -> None:
        """Close a connection that has brought no header."""
        self._settle()
        self.transport.abortConnection()

    def _settle(self) -> None:
        self.factory.settled(self)
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._header += data
        try:
            info, rest = parse(self._header)
        except InvalidProxyHeader:
            self.abort_unproxied()
            return
        if info is not None:
            self._begin(info, rest)

    def _begin(self, info: ProxyInfo, rest: bytes) -> None:
        self._settle()
        self._header, self._info = b"", info
        protocol: Any = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if protocol is None:
            self.transport.abortConnection()
            return
        self.wrappedProtocol = protocol
        protocol.makeConnection(self)
        if rest and self.wrappedProtocol is not None:
            protocol.dataReceived(rest)

    def getPeer(self) -> Any:
        source = None if self._info is None else self._info.source
        return source or self.transport.getPeer()

    def getHost(self) -> Any:
        destination = None if self._info is None else self._info.destination
        return destination or self.transport.getHost()

    def readConnectionLost(self) -> None:
        protocol = self.wrappedProtocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._settle()
        self.factory.unregisterProtocol(self)
        protocol, self.wrappedProtocol = self.wrappedProtocol, None  # type: ignore[assignment]
        if protocol is not None:
            protocol.connectionLost(reason)


def parse(data: bytes) -> tuple[ProxyInfo | None, bytes]:
    """
    Parse a header; return its addresses and the bytes behind it, or None while it is not complete.

    :raises InvalidProxyHeader: for bytes that are no header.
    """
    try:
        if data[:12] == V2Parser.PREFIX[: len(data)]:
            info, rest = V2Parser().feed(data) if len(data) >= 16 else (None, None)
        elif data[:6] == b"PROXY "[: len(data)]:
            line, end, rest = data.partition(b"\r\n")
            if len(line) + len(b"\r\n") > LONGEST:
                raise InvalidProxyHeader
            if line.split(b" ")[1:2] == [b"UNKNOWN"]:  # Twisted's parser wants addresses behind it
                line = V1_UNKNOWN
            info = V1Parser.parse(line) if end else None
        else:
            raise InvalidProxyHeader
    except (ValueError, KeyError, struct.error):  # raised by int, decode and struct inside Twisted's parsers
        raise InvalidProxyHeader from None
    return info, rest or b""
