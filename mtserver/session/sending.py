"""
The way out: replies and all else that is said to a client leave by :func:`flush`, and what cannot leave is held.

The replies of a batch leave in one write. What the client does not read is held in its outbox, behind which everything
queues up, so that the order is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtserver import refusals
from mtserver.dispatch import IN_TURN
from mtserver.errors import HandlerError, Refusal
from mtserver.session.outbox import Outbox
from mtserver.session.state import MAY_SEND, Fact, State
from mtserver.telemetry.events import HANDLER_FAILED
from mtserver.telemetry.logs import format_exception

if TYPE_CHECKING:
    from mtserver.session.session import Session

#: The most bytes given to the transport at once. Each time it has sent them it asks for more, which shows that a slow
#: client reads on; and replies of more than this are not kept back until their batch is over.
WRITE_SIZE = 131072


def flush(session: Session) -> None:
    """Write what there is, unless the client has to read first."""
    replies = session.replies
    if replies:
        if session.state not in MAY_SEND:
            session.answered += len(replies)
            replies.clear()
        else:
            data = _framed(session, replies)
            if session.outbox is None and len(data) <= WRITE_SIZE:
                session.client.bytes_sent += len(data)
                session.write(data)
                return  # the usual case: nothing is held, and nothing will be
            outbox_of(session).add(data)
    outbox = session.outbox
    if outbox is not None and outbox.unread_since is None:
        while outbox.size and outbox.unread_since is None and session.state <= State.CLOSING:
            data = outbox.next_piece(WRITE_SIZE)
            session.client.bytes_sent += len(data)
            session.write(data)
        if not outbox.size and outbox.unread_since is None:
            session.outbox = None


def flush_if_large(session: Session) -> None:
    """Write the replies of a handler that is still busy, where they are many."""
    if session.replies and sum(map(len, session.replies)) > WRITE_SIZE:
        flush(session)


def flush_soon(session: Session) -> None:
    """Write at the end of this iteration of the loop."""
    # A handler that is at work has its replies flushed when it is done, or waits.
    if not session.facts & Fact.FLUSH_DUE and session.busy != IN_TURN:
        session.facts |= Fact.FLUSH_DUE
        session.listener.server.soon(session.flush_now)


def flush_now(session: Session) -> None:
    """Write what :func:`flush_soon` was asked for."""
    session.facts &= ~Fact.FLUSH_DUE
    flush(session)


def hold(session: Session, frame: bytes, messages: int) -> int:
    """Put a frame behind all that was said before. Returns the bytes that are held then."""
    outbox = outbox_of(session)
    if session.replies:
        outbox.add(_framed(session, session.replies))
    outbox.add(frame)
    session.client.messages_sent += messages
    return outbox.size


def outbox_of(session: Session) -> Outbox:
    """The outbox of a session, made where there is none."""
    outbox = session.outbox
    if outbox is None:
        outbox = session.outbox = Outbox()
    return outbox


def refusal_frame(session: Session, refusal: Refusal) -> bytes:
    """A refusal as it is written."""
    return session.listener.encode([session.listener.codec.refuse(refusal)])


def log_failure(session: Session, error: BaseException) -> None:
    """Log what the handler raised, or did wrong."""
    HANDLER_FAILED(client=session.client.id, traceback=format_exception(error))


def _framed(session: Session, replies: list[bytes]) -> bytes:
    """The replies of a batch as they are written; the list is empty then, and they count as answers."""
    session.answered += len(replies)
    session.client.messages_sent += len(replies)
    try:
        data = session.listener.encode(replies)
    except HandlerError:
        # One of them cannot be carried by the framing; the others are not to pay for it.
        data = b"".join([_framed_alone(session, reply) for reply in replies])
    replies.clear()
    return data


def _framed_alone(session: Session, reply: bytes) -> bytes:
    try:
        return session.listener.encode([reply])
    except HandlerError as error:
        log_failure(session, error)
        return b"" if session.listener.server.settings.quiet else refusal_frame(session, refusals.INTERNAL)
