"""
One client at the door: its first message decides whether it is let in. What is common to all ways to decide that.

Laws:

* Before it is let in, no more of a client is held than one small message and what it sent behind it in the same
  moments; nothing of it reaches the handler, and a deadline runs.
* Whatever is wrong, it is told the same; the audit log has the reason.
"""

from __future__ import annotations

import abc
import typing
from typing import Any

from mtserver import refusals
from mtserver.errors import Refusal
from mtserver.framing import Framing
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import AUTHENTICATED, AUTHENTICATION_FAILED

#: Characters of an identity: it stands in every line about its client.
LONGEST = 1024


class Applicant(typing.Protocol):
    """A connection that wants to be a client's, as far as the door sees it."""

    client: Any
    framing: Framing | None

    @property
    def peer(self) -> str: ...

    @property
    def host(self) -> str:
        """Its address without the port; an empty text where there is none."""
        ...

    @property
    def is_private(self) -> bool:
        """Nobody but its peer reads what is sent: TLS, or a connection that does not leave this machine."""
        ...

    def enter(self, identity: str, reply: bytes | None) -> None:
        """Be let in, and told so."""
        ...

    def refuse(self, refusal: Refusal) -> None: ...


class Entry(abc.ABC):
    """See the module."""

    __slots__ = ("_applicant", "_is_over", "_judging")

    #: What the first message may have, in bytes.
    most: int

    def __init__(self, applicant: Applicant) -> None:
        self._applicant = applicant
        self._judging = False
        self._is_over = False

    # The session calls these.

    def look(self) -> None:
        """Bytes have come."""
        framing = self._applicant.framing
        if self._judging or self._is_over or framing is None:
            return
        frames = framing.take(1)
        if frames:
            self._judging = True
            self._judge(frames[0])
        elif framing.error is not None:
            self._turn_away(framing.error.text, framing.error)

    def end_input(self) -> None:
        """The client will send no more."""
        if not self._judging:
            self._turn_away("closed by the client")

    def expire(self, seconds: float) -> None:
        """It has taken too long."""
        self._turn_away("not in time", refusals.late(seconds))

    def abandon(self) -> None:
        """The connection has gone."""
        if not self._is_over:
            self._is_over = True
            self._failed("the connection ended")

    # Subclasses decide, now or later.

    @abc.abstractmethod
    def _judge(self, message: bytes) -> None:
        """Decide, and call one of those below, once."""

    def _let_in(self, identity: str, mechanism: str, reply: bytes | None) -> None:
        if self._is_over:
            return
        if len(identity) > LONGEST:
            self._turn_away("an identity that is too long", mechanism=mechanism)
            return
        self._is_over = True
        applicant = self._applicant
        AUTHENTICATED(
            client=applicant.client.id,
            peer=applicant.peer,
            mechanism=mechanism,
            identity=escape(identity),
        )
        applicant.enter(identity, reply)

    def _turn_away(self, reason: str, refusal: Refusal | None = None, mechanism: str = "") -> None:
        if self._is_over:
            return
        self._is_over = True
        self._failed(reason, mechanism)
        self._applicant.refuse(refusal or refusals.AUTH)

    def _failed(self, reason: str, mechanism: str = "") -> None:
        applicant = self._applicant
        AUTHENTICATION_FAILED(
            client=applicant.client.id,
            peer=applicant.peer,
            mechanism=mechanism,
            reason=reason,
        )
