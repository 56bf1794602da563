"""
How a client goes: what ends it, and what it is still told.

Law: the client is told before it is closed, and closed so that it can read it: the write side first, then what it
still sends is read and dropped for a while. To close a socket with unread bytes would send RST, and a peer that meets
RST may lose what it has not read yet (RFC 1122, 4.2.2.13; nginx calls it lingering_close).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mtserver import refusals
from mtserver.errors import Refusal
from mtserver.session.protocol import LINGER
from mtserver.session.sending import flush, refusal_frame
from mtserver.session.state import Fact, Pause, State, Step
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import CLIENT_CLOSED, CLIENT_UNREAD, MESSAGE_UNFINISHED

if TYPE_CHECKING:
    from mtserver.session.session import Session


# The client ends.


def input_ended(session: Session) -> None:
    """The client will send no more, and may well wait for replies: answer what has come, then close."""
    session.facts |= Fact.INPUT_ENDED
    if State.LOGIN <= session.state <= State.CLOSING:
        if session.login is not None:
            session.login.end_input()
        session.go_on()
    elif session.state in (State.LINGERING, State.FINISHED):
        session.end_output(input_ended=True)  # ours is sent, so this closes
    else:
        session.abort()


def lost(session: Session, reason: Failure) -> None:
    """The connection is gone. What arrived complete is handled all the same: a log shipper sends and goes."""
    session.step(Step.LOST)
    if not session.reason:
        clean = reason.check(ConnectionDone) is not None
        session.reason = "closed by the client" if clean else escape(reason.getErrorMessage())
    session.outbox = session.replies = None
    session.deadline = 0.0
    if not session.facts & Fact.HANDLER_BEGUN:
        session.handler = None  # not told of an end, even if it decides who is let in
    _cancel_login(session)
    session.listener.server.left(session, session.reason)
    session.pauses &= ~(Pause.UNREAD | Pause.THROTTLED | Pause.SLICE_OVER)
    session.wake()


# The server ends.


def settle(session: Session) -> None:
    """The handler is free and its replies are written: do what has waited for that."""
    inbox = session.inbox
    if session.state == State.ENDING:
        close(session, "closed by the handler")
    elif session.pauses:
        return
    elif inbox is not None and inbox.error is not None:
        session.refuse(inbox.error)
    elif session.facts & Fact.INPUT_ENDED:
        _discard_unfinished(session)
        close(session, "closed by the client")
    elif session.listener.server.draining:
        session.refuse(refusals.closing())
    else:
        session.resume()
        if inbox is None:
            return
        if inbox.is_empty:
            session.inbox = None
            session.arrived_at = 0.0
        elif not inbox.began_at:
            # The time of an unfinished message runs from its own first byte, and only while we read on.
            inbox.began_at = session.heard_at


def close(session: Session, reason: str) -> None:
    """Say no more than is already held, and end."""
    if session.state >= State.CLOSING:
        return
    session.reason = reason
    session.deadline = 0.0
    flush(session)
    session.step(Step.CLOSED)
    session.inbox = None
    _cancel_login(session)
    if not session.pauses & Pause.UNREAD:
        end_output(session, Step.FLUSHED)


def end_output(session: Session, step: Step) -> None:
    """End our side behind what the transport was given, and wait a while for the client to end its."""
    session.step(step)
    session.activity = session.client.bytes_received
    patience = session.end_output(input_ended=bool(session.facts & Fact.INPUT_ENDED))
    if patience is None:
        patience = session.listener.server.settings.send_timeout
    session.deadline = session.listener.server.seconds() + patience if patience else 0.0
    session.resume()


def output_finished(session: Session) -> None:
    """All that was owed has been sent, and the end with it."""
    if session.state == State.LINGERING:
        session.step(Step.OUTPUT_FINISHED)
        session.deadline = session.listener.server.seconds() + session.linger


def drop_unread(session: Session) -> None:
    """The client does not read: what is held is dropped, and a last word takes its place where a message may."""
    outbox = session.outbox
    if not session.listener.server.settings.quiet and not (outbox is not None and outbox.ends_within_frame):
        session.write(refusal_frame(session, refusals.slow()))
    session.outbox = session.replies = None
    unread = 0 if outbox is None else outbox.size
    CLIENT_UNREAD(client=session.client.id, size=unread)
    session.reason = "slow"
    audit_closed(session, refusals.slow())
    session.inbox = None
    _cancel_login(session)
    end_output(session, Step.DROPPED)
    session.deadline = session.listener.server.seconds() + LINGER


def audit_closed(session: Session, refusal: Refusal) -> None:
    """Have the audit log say why we close. What becomes of those who have to log in is recorded where it is decided."""
    if refusal.code != "closing" and session.login is None:
        client, reason = session.client.id, escape(refusal.text)
        CLIENT_CLOSED(client=client, peer=session.peer, code=refusal.code, reason=reason)


# The server stops.


def drain(session: Session) -> None:
    """Read no more, answer what is complete, and end."""
    if session.state == State.HANDSHAKE:
        session.abort()
    elif session.state in (State.LOGIN, State.WAITING):
        session.refuse(refusals.closing())
    elif session.state <= State.ENDING:
        session.pause()
        session.pauses &= ~Pause.THROTTLED
        session.go_on()


def abort_after_drain(session: Session) -> int | None:
    """
    End at once, for the drain's time is over.

    :returns: how many complete messages stay unanswered; None if nobody misses anything.
    """
    if session.state == State.FINISHED and not session.busy:
        return None  # it has read the end of what we had to say, and has only not closed its side
    unanswered = session.client.messages_received - session.answered
    inbox, session.inbox = session.inbox, None
    if inbox is not None:
        if inbox.has_given_back:
            inbox.take(1)  # counted when they were taken first
        while messages := inbox.take(1024):
            unanswered += len(messages)
    session.refuse(refusals.closing())
    session.reason = session.reason or "cut off by the stop"
    session.listener.dispatch.cancel(session)
    return unanswered


def abort(session: Session) -> None:
    """End the connection, if there is one, whatever is still to be sent."""
    if session.state < State.GONE:
        session.abort()


# The end.


def end(session: Session) -> None:
    """The connection is lost, and what came complete has been handled: tell the handler of the end."""
    flush(session)
    session.step(Step.HANDLER_DONE)
    _discard_unfinished(session)
    session.listener.dispatch.end(session, session.reason)


def _discard_unfinished(session: Session) -> None:
    """Drop what no end will come of: a message that has begun and not ended is none."""
    inbox, session.inbox = session.inbox, None
    if inbox is not None and inbox.is_unfinished:
        session.facts |= Fact.CUT_OFF
        MESSAGE_UNFINISHED(client=session.client.id, size=inbox.size)


def _cancel_login(session: Session) -> None:
    login, session.login = session.login, None
    if login is not None:
        login.cancel()
