"""
How a client comes in: TLS, then who it is, then the app has to be open, then the handler has it.

Law: until then no more of a client is held than its first message and what it sent behind it in the same moments, and
a deadline runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtserver import refusals
from mtserver.session.state import Fact, State, Step
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import AUTHENTICATED, AUTHENTICATION_FAILED
from mtserver.transport.tls.identity import identity_of

if TYPE_CHECKING:
    from mtserver.session.session import Session

#: Seconds for a TLS handshake. Twisted has no limit of its own.
HANDSHAKE = 10.0


def connected(session: Session) -> None:
    """Begin with TLS, if there is any."""
    if session.is_tls:
        session.deadline = session.listener.server.seconds() + HANDSHAKE
    else:
        come_in(session)


def handshake_completed(session: Session) -> None:
    """TLS has been agreed on. A certificate that was asked for, and is good, says who the client is."""
    certificate = session.peer_certificate()
    if certificate is not None:
        client = session.client
        client.identity = identity = identity_of(certificate)
        if identity is None:
            reason = "the certificate has no name that is an identity"
            AUTHENTICATION_FAILED(client=client.id, peer=session.peer, mechanism="EXTERNAL", reason=reason)
            session.deadline = 0.0
            session.refuse(refusals.AUTH)
            return
        AUTHENTICATED(client=client.id, peer=session.peer, mechanism="EXTERNAL", identity=escape(identity))
    come_in(session)


def come_in(session: Session) -> None:
    """Have the client say who it is, where that has to be said and is not known."""
    listener = session.listener
    if listener.gate is None or session.client.identity is not None:
        _admitted(session)
        return
    patience = listener.server.settings.auth_timeout
    session.deadline = listener.server.seconds() + patience if patience else 0.0
    session.step(Step.LOGIN_BEGUN)
    session.login = listener.gate.receive(session)


def logged_in(session: Session, identity: str, reply: bytes | None) -> None:
    """The client has said who it is, and is told so."""
    session.login = None
    session.client.identity = identity
    if session.inbox is not None:
        session.inbox.allow(session.listener.max_message)
    if reply is not None:
        session.send_frame(session.listener.encode([reply]))
    if session.state == State.LOGIN:
        _admitted(session)


def _admitted(session: Session) -> None:
    session.deadline = 0.0
    session.step(Step.ADMITTED)
    if session.listener.server.is_open:
        begin(session)
    else:
        # The app's lifespan is still opening what handlers need.
        session.pause()
        session.listener.server.wait_for_opening(session)


def begin(session: Session) -> None:
    """Let the handler have this client; one that did not wait for it is left as it is."""
    if session.state != State.WAITING:
        return
    session.step(Step.BEGUN)
    session.facts |= Fact.HANDLER_BEGUN
    session.listener.server.joined(session)
    if session.facts & Fact.CLOSE_ASKED:
        session.step(Step.CLOSE_ASKED)
    session.resume()
    session.listener.dispatch.begin(session)
