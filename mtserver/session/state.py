"""
The states of a connection as one table: what each allows, what may happen in it, and what becomes of it then.

Three things are kept apart, in three attributes of a session:

* its **state**, one of :class:`State`, changed by steps of :data:`STEPS` alone;
* its **pauses**, bits: the reasons for which its handler is given no message now; each comes and goes by itself;
* its **facts**, bits: what has happened, or holds, whatever the state.

Pure data; ``tests/test_state.py`` draws docs/states.md from it, and walks it against the real session.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class State:
    """Where a connection stands, in the order in which states may follow one another. Plain numbers: an enum's cost."""

    HANDSHAKE = 0
    LOGIN = 1
    WAITING = 2
    OPEN = 3
    ENDING = 4
    CLOSING = 5
    LINGERING = 6
    FINISHED = 7
    GONE = 8
    ENDED = 9


class Step(enum.Enum):
    """A step that a connection takes, by what happens to it."""

    LOGIN_BEGUN = "the client has to say who it is"
    ADMITTED = "the client may come in"
    BEGUN = "the handler is given the client"
    CLOSE_ASKED = "the handler calls client.close()"
    CLOSED = "the last word is said: a refusal that closes, or the reply before a close"
    FLUSHED = "all that was held has been given to the transport"
    DROPPED = "the client does not read, and what was held for it is dropped"
    OUTPUT_FINISHED = "the transport has sent everything, and the end of our side"
    LOST = "the connection is gone"
    HANDLER_DONE = "the handler has handled what came complete, and is free"


class Row(NamedTuple):
    """One state: its name and meaning, what it allows, and which state each step leads to."""

    name: str
    meaning: str
    #: The client may be sent something.
    may_send: bool
    #: Messages are given to the handler.
    may_handle: bool
    steps: dict[Step, int]


_CLOSED = {Step.CLOSED: State.CLOSING}
_DROPPED = {Step.DROPPED: State.LINGERING}
_LOST = {Step.LOST: State.GONE}

TABLE = {
    State.HANDSHAKE: Row(
        "handshake",
        "TLS is being agreed on",
        may_send=False,
        may_handle=False,
        steps={Step.LOGIN_BEGUN: State.LOGIN, Step.ADMITTED: State.WAITING, **_CLOSED, **_LOST},
    ),
    State.LOGIN: Row(
        "login",
        "the first message has to say who the client is",
        may_send=True,
        may_handle=False,
        steps={Step.ADMITTED: State.WAITING, **_DROPPED, **_CLOSED, **_LOST},
    ),
    State.WAITING: Row(
        "waiting",
        "the app's lifespan is still opening",
        may_send=True,
        may_handle=False,
        steps={Step.BEGUN: State.OPEN, **_DROPPED, **_CLOSED, **_LOST},
    ),
    State.OPEN: Row(
        "open",
        "the handler has the client",
        may_send=True,
        may_handle=True,
        steps={Step.CLOSE_ASKED: State.ENDING, **_DROPPED, **_CLOSED, **_LOST},
    ),
    State.ENDING: Row(
        "ending",
        "the handler has closed; the reply to the message it is at still belongs in front of the end",
        may_send=True,
        may_handle=False,
        steps={**_DROPPED, **_CLOSED, **_LOST},
    ),
    State.CLOSING: Row(
        "closing",
        "the last word is said, and held until the client reads",
        may_send=False,
        may_handle=False,
        steps={Step.FLUSHED: State.LINGERING, **_DROPPED, **_LOST},
    ),
    State.LINGERING: Row(
        "lingering",
        "our side ends behind what was written; what still comes is read and dropped",
        may_send=False,
        may_handle=False,
        steps={Step.OUTPUT_FINISHED: State.FINISHED, **_LOST},
    ),
    State.FINISHED: Row(
        "finished",
        "all is sent, the end too; the client has a moment to close its side",
        may_send=False,
        may_handle=False,
        steps={**_LOST},
    ),
    State.GONE: Row(
        "gone",
        "the connection is lost; the handler may still be at what came complete",
        may_send=False,
        may_handle=True,
        steps={Step.HANDLER_DONE: State.ENDED},
    ),
    State.ENDED: Row("ended", "nothing is left to do", may_send=False, may_handle=False, steps={}),
}

#: The states in which the client may be sent something.
MAY_SEND = frozenset(state for state, row in TABLE.items() if row.may_send)


class Pause:
    """Why the handler is given no message now; bits of a session's ``pauses``."""

    #: The state allows none.
    STATE = 1
    #: The client does not read what it is sent.
    UNREAD = 2
    #: ``--message-rate``.
    THROTTLED = 4
    #: Other clients have their turn.
    SLICE_OVER = 8
    #: Handler whom nobody waits for any more.
    CANCELLED = 16


class Fact:
    """Things that have happened to a connection, or hold, in any state; bits of a session's ``facts``."""

    #: The handler was given the client.
    HANDLER_BEGUN = 1
    #: The client has closed its side.
    INPUT_ENDED = 2
    #: The transport has been told to read no further.
    READING_PAUSED = 4
    #: The last message was not complete.
    CUT_OFF = 8
    #: The handler has called ``client.close()`` before it was given the client: in its ``authenticate``.
    CLOSE_ASKED = 32
    #: A flush is due at the end of this iteration of the loop.
    FLUSH_DUE = 16
    #: Facts that an idle client does not have: something is to be done when the handler is free.
    UNSETTLED = INPUT_ENDED | READING_PAUSED


class IllegalStep(Exception):
    """A step that cannot happen in this state: a defect of mtserver, never a peer's doing."""


def after(state: int, step: Step) -> int:
    """The state that a step leads to; :class:`IllegalStep` if it cannot happen."""
    row = TABLE[state]
    try:
        return row.steps[step]
    except KeyError:
        raise IllegalStep(f"{step.name} in the state {row.name!r}") from None
