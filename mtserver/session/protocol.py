"""
The Twisted protocol of one client: a :class:`~mtserver.session.session.Session` on a transport.

With :mod:`mtserver.server.rejection` the only module that touches one. What Twisted calls is camelCase; it tells the
session what has happened, and the verbs that the session asks for are done to the transport here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver import refusals
from mtserver.session.session import GOODBYE, LINGER, Server, Session
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import AUTHENTICATED, AUTHENTICATION_FAILED
from mtserver.transport.addresses import format_address, host_of, is_local
from mtserver.transport.tls.identity import identity_of


@implementer(IProtocol, IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class MtserverProtocol(Session):
    """Also the producer that its transport pauses when the client does not read. Parameters as of a session."""

    # Not of Twisted's Protocol, whose instances have a __dict__: 300 bytes for each client.
    __slots__ = ()

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server, number)
        self.transport: Any = None

    @property
    def factory(self) -> Any:
        return self._server

    # The transport calls these.

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        if INegotiated.providedBy(self.transport):  # that is, TLS
            self.expect_handshake()
        else:
            self.admit()

    def handshakeCompleted(self) -> None:
        certificate = self.transport.getPeerCertificate()
        if certificate is not None:  # it was asked for one, and that is good
            self.client.identity = identity = identity_of(certificate)
            if identity is None:
                reason = "the certificate has no name that is an identity"
                AUTHENTICATION_FAILED(
                    client=self.client.id,
                    peer=self.peer,
                    mechanism="EXTERNAL",
                    reason=reason,
                )
                self.turn_away(refusals.AUTH)
                return
            AUTHENTICATED(
                client=self.client.id,
                peer=self.peer,
                mechanism="EXTERNAL",
                identity=escape(identity),
            )
        self.admit()

    dataReceived = Session.received  # noqa: N815 - Twisted's names, here and below
    readConnectionLost = Session.input_ended  # noqa: N815
    writeConnectionLost = Session.output_ended  # noqa: N815

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        clean = reason.check(ConnectionDone) is not None
        self.lost("closed by the client" if clean else escape(reason.getErrorMessage()))

    # The transport calls these on its producer.

    pauseProducing = Session.output_blocked  # noqa: N815
    resumeProducing = Session.output_unblocked  # noqa: N815

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""

    # The session calls these.

    @property
    def peer(self) -> str:
        # Not kept: it is asked for twice in most lives, and 60 bytes of text.
        return format_address(self.transport.getPeer())

    @property
    def host(self) -> str:
        return host_of(self.transport.getPeer())

    @property
    def is_private(self) -> bool:
        return INegotiated.providedBy(self.transport) or is_local(self.transport.getPeer())

    @property
    def _linger(self) -> float:
        return GOODBYE if INegotiated.providedBy(self.transport) else LINGER

    def _pause_input(self) -> None:
        self.transport.pauseProducing()

    def _resume_input(self) -> None:
        self.transport.resumeProducing()

    def _end_output(self) -> float:
        transport = self.transport
        # A transport with a producer waits for it to end before it does.
        transport.unregisterProducer()
        if self.input_has_ended:
            transport.loseConnection()
        elif INegotiated.providedBy(transport) and not IHalfCloseableProtocol.providedBy(transport):
            # pyOpenSSL's: close_notify, and the peer's is waited for.
            transport.loseConnection()
            return GOODBYE
        else:
            transport.loseWriteConnection()
        patience: float = self._server.settings.send_timeout
        return patience

    def abort(self) -> None:
        self.transport.abortConnection()
