"""
The way in, where it is not the usual case of :meth:`Session.dataReceived`: what has to be held, and taken later.

What is held for a client is bounded: reading pauses at :data:`HIGH_WATER` undecoded bytes while the handler is busy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mtserver import refusals
from mtserver.session.inbox import Inbox
from mtserver.session.limits import Streak
from mtserver.session.state import MAY_SEND, Fact, Pause, State
from mtserver.telemetry.events import MESSAGES_HANDLED

if TYPE_CHECKING:
    from mtserver.session.session import Session

#: Undecoded bytes at which reading pauses while the handler is busy: one read of Twisted's.
HIGH_WATER = 65536
#: Messages handed to the handler in one go.
BATCH = 64
#: Bytes that are read and dropped of a client that has been told of the end, at most.
LINGER_SIZE = 16 * 1024 * 1024


def collect(session: Session, data: bytes) -> None:
    """Hold bytes that cannot be handled at once, and have them looked at by whoever may."""
    if session.state >= State.CLOSING or session.facts & Fact.INPUT_ENDED:
        _drop(session)
        return
    session.heard_at = session.listener.server.seconds()
    inbox = inbox_of(session)
    if not inbox.size:
        inbox.arrived_at = session.heard_at
    inbox.feed(data)
    if session.login is not None:
        session.login.look()
    elif not (session.busy or session.pauses):
        session.wake()
    if (session.busy or session.pauses) and session.inbox is not None and session.inbox.size >= HIGH_WATER:
        session.pause()


def _drop(session: Session) -> None:
    """Leave bytes that nobody wants. They are read, so that closing does not reset; a flood of them is not."""
    lingers = session.state in (State.LINGERING, State.FINISHED)
    if lingers and session.client.bytes_received - session.activity > LINGER_SIZE:
        session.abort()


def inbox_of(session: Session) -> Inbox:
    """The inbox of a session, made where there is none."""
    inbox = session.inbox
    if inbox is None:
        listener, login = session.listener, session.login
        max_message = listener.max_message if login is None else login.max_message
        inbox = session.inbox = Inbox(listener.framing(max_message))
    return inbox


def take(session: Session) -> list[bytes]:
    """The next messages for the handler; an empty list where there are none, or they have to wait."""
    inbox = session.inbox
    if session.pauses or inbox is None:
        return []
    if inbox.has_given_back:
        return inbox.take(BATCH)  # counted when they were taken first
    listener = session.listener
    messages = _take_at_rate(session, inbox) if listener.server.buckets else inbox.take(BATCH)
    gate = listener.gate
    if gate is not None and gate.verb:
        messages = _without_attempts(inbox, messages, gate.verb)
    if messages:
        session.client.messages_received += len(messages)
        inbox.began_at = 0.0  # what is left began later
        if MESSAGES_HANDLED.subscribers:
            session.arrived_at, inbox.arrived_at = inbox.arrived_at, session.heard_at
    return messages


def _take_at_rate(session: Session, inbox: Inbox) -> list[bytes]:
    """Take as many messages as ``--message-rate`` allows; where that is none, the server wakes the client later."""
    server = session.listener.server
    if session.state == State.GONE or server.draining:
        return inbox.take(BATCH)
    if not inbox.size:
        return []
    bucket = server.buckets[session]
    tokens = bucket.available(server.seconds())
    if not tokens:
        session.pauses |= Pause.THROTTLED
        session.pause()
        server.throttle(session)
        return []
    messages = inbox.take(min(BATCH, tokens))
    bucket.spend(len(messages))
    return messages


def _without_attempts(inbox: Inbox, messages: list[bytes], verb: bytes) -> list[bytes]:
    """The messages before one of authentication, which never reaches the handler: it may well write it down."""
    for place, message in enumerate(messages):
        if message.startswith(verb):
            inbox.fail(refusals.AUTH)
            return messages[:place]
    return messages


def give_back(session: Session, messages: list[bytes]) -> None:
    """Keep messages that were taken and not handled after all: they come first next time, where there is one."""
    if messages and not State.CLOSING <= session.state <= State.FINISHED:
        inbox_of(session).give_back(messages)


def slice_over(session: Session) -> None:
    """Have the handler go on when other clients have had their turn."""
    session.pauses |= Pause.SLICE_OVER
    session.listener.server.soon(partial(_next_slice, session))


def _next_slice(session: Session) -> None:
    session.pauses &= ~Pause.SLICE_OVER
    session.go_on()


def pause(session: Session) -> None:
    """Read no further, until the handler is done with what it has."""
    if session.state < State.CLOSING and not session.facts & (Fact.READING_PAUSED | Fact.INPUT_ENDED):
        session.facts |= Fact.READING_PAUSED
        session.pause_reading()


def resume(session: Session) -> None:
    """Read on."""
    if session.state < State.GONE and session.facts & Fact.READING_PAUSED:
        session.facts &= ~Fact.READING_PAUSED
        session.resume_reading()


def unthrottle(session: Session, now: float) -> bool:
    """Go on if there are tokens again. Returns whether it did."""
    if session.state < State.GONE and not session.listener.server.buckets[session].available(now):
        return False
    session.pauses &= ~Pause.THROTTLED
    session.go_on()
    return True


def count_bad(session: Session) -> None:
    """Note a message that did not fit; a client that has sent nothing else for too long is closed."""
    if session.bad is None:
        session.bad = Streak()
    # The replies that wait are those to the messages right before this one.
    session.bad.add(session.answered + len(session.replies or ()))
    limit = session.listener.server.settings.max_bad_messages
    if limit and session.bad.in_a_row == limit and session.state in MAY_SEND:
        session.refuse(refusals.too_many_bad(limit))
