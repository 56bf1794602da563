"""
Login of one client: its first message decides whether it is let in. The common part of all ways to decide.

Laws:

* Before a client is let in, no more of it is held than one small message and the bytes that came with it; none of them
  reaches the handler, and a deadline runs.
* All refused clients are told the same; the audit log has the reason.
"""

from __future__ import annotations

import abc
import typing
from typing import Any

from mtserver import refusals
from mtserver.errors import Refusal
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import AUTHENTICATED, AUTHENTICATION_FAILED

#: Most characters of an identity, which stands in every log line about its client.
MAX_IDENTITY = 1024


class Applicant(typing.Protocol):
    """A connection whose client is not let in yet, as far as a login needs it."""

    client: Any
    inbox: Any

    @property
    def peer(self) -> str: ...

    @property
    def host(self) -> str:
        """Address of the client without the port; empty where there is none."""
        ...

    @property
    def is_private(self) -> bool:
        """Whether only the client can read what is sent: TLS, or a connection that does not leave this machine."""
        ...

    def logged_in(self, identity: str, reply: bytes | None) -> None:
        """Let the client in under this identity, and tell it so by `reply`, if there is one."""
        ...

    def refuse(self, refusal: Refusal) -> None: ...


class Login(abc.ABC):
    """Decides once, by a client's first message, whether it is let in; now or later, as a subclass pleases."""

    __slots__ = ("_applicant", "_deciding", "_is_over")

    #: Most bytes of the first message.
    max_message: int

    def __init__(self, applicant: Applicant) -> None:
        self._applicant = applicant
        self._deciding = False
        self._is_over = False

    # The session calls these.

    def look(self) -> None:
        """Take the first message from the applicant's inbox, once it is complete."""
        inbox = self._applicant.inbox
        if self._deciding or self._is_over or inbox is None:
            return
        frames = inbox.take(1)
        if frames:
            self._deciding = True
            self._decide(frames[0])
        elif inbox.error is not None:
            self._refuse(inbox.error.text, inbox.error)

    def end_input(self) -> None:
        """Refuse a client that sends no more before its first message is complete."""
        if not self._deciding:
            self._refuse("closed by the client")

    def expire(self, seconds: float) -> None:
        """Refuse a client that has not been let in within so many seconds."""
        self._refuse("not in time", refusals.late(seconds))

    def cancel(self) -> None:
        """End the login of a connection that ends; a decision that comes later changes nothing."""
        if not self._is_over:
            self._is_over = True
            self._record_failure("the connection ended")

    # Subclasses decide.

    @abc.abstractmethod
    def _decide(self, message: bytes) -> None:
        """Decide, and call `_admit` or `_refuse` once, now or later."""

    def _admit(self, identity: str, mechanism: str, reply: bytes | None) -> None:
        if self._is_over:
            return
        if len(identity) > MAX_IDENTITY:
            self._refuse("an identity that is too long", mechanism=mechanism)
            return
        self._is_over = True
        applicant = self._applicant
        AUTHENTICATED(
            client=applicant.client.id,
            peer=applicant.peer,
            mechanism=mechanism,
            identity=escape(identity),
        )
        applicant.logged_in(identity, reply)

    def _refuse(self, reason: str, refusal: Refusal | None = None, mechanism: str = "") -> None:
        if self._is_over:
            return
        self._is_over = True
        self._record_failure(reason, mechanism)
        self._applicant.refuse(refusal or refusals.AUTH)

    def _record_failure(self, reason: str, mechanism: str = "") -> None:
        applicant = self._applicant
        AUTHENTICATION_FAILED(
            client=applicant.client.id,
            peer=applicant.peer,
            mechanism=mechanism,
            reason=reason,
        )
