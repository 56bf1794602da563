"""
What the server itself tells a peer, one function per code of the wire. A handler's own refusals are exceptions of
:mod:`mtserver.errors`; those of a framing are raised where it is lost.
"""

from __future__ import annotations

import random

from mtserver.errors import BadMessage, Refusal

#: The codes of the wire, and when each is sent. A handler's own refusals may have others.
CODES = {
    "busy": "too many clients",
    "too-long": "the message is over --max-message",
    "bad-message": "the message does not fit the framing, its encoding or its type",
    "auth": "authentication is missing or was refused",
    "timeout": "a message begun and not finished in time, or no authentication",
    "idle": "nothing sent for --idle-timeout",
    "slow": "the client does not read what it is sent",
    "closing": "the server is stopping",
    "unavailable": "what is needed to answer is away",
    "internal": "the handler failed",
}

#: The handler raised, or broke its contract. What exactly is for the log, not for the peer.
INTERNAL = Refusal("internal", "the handler failed")
#: Authentication is missing, or failed. For what reason is for the audit log.
AUTH = Refusal("auth", "authentication missing or refused", closes=True)


def busy(text: str) -> Refusal:
    """There is no room for this client."""
    return Refusal("busy", text, retry_after=retry_after(1, 10), closes=True)


def closing() -> Refusal:
    """The server is stopping."""
    return Refusal("closing", "the server is stopping", retry_after=retry_after(1, 10), closes=True)


def idle(seconds: float) -> Refusal:
    """Nothing has come for so long."""
    return Refusal("idle", f"nothing heard for {seconds:g} seconds", closes=True)


def slow() -> Refusal:
    """It does not read what it is sent."""
    return Refusal("slow", "too much unread for too long", closes=True)


def too_many_bad(count: int) -> Refusal:
    """None of its last messages fitted; each was answered already."""
    return BadMessage(f"{count} bad messages in a row", closes=True)


def timeout(seconds: float) -> Refusal:
    """A message has begun and not ended in time."""
    return Refusal("timeout", f"the message begun {seconds:g} seconds ago is not complete", closes=True)


def late(seconds: float) -> Refusal:
    """It has not authenticated in time."""
    return Refusal("timeout", f"no authentication within {seconds:g} seconds", closes=True)


def too_many_failures(seconds: float) -> Refusal:
    """Others, or this one, have failed too often from where it comes from; this attempt was not looked at."""
    return Refusal("busy", "too many failed logins from your address", retry_after=seconds, closes=True)


def unchecked() -> Refusal:
    """Whether it may come in cannot be found out now."""
    return Refusal("unavailable", "authentication is not possible now", retry_after=retry_after(1, 10), closes=True)


def too_many_groups(most: int) -> Refusal:
    """A client is in so many groups, and may be in no more."""
    return Refusal("busy", f"in {most} groups already, which is the most")


def retry_after(least: int, most: int) -> int:
    """
    Whole seconds for a client to wait, spread evenly so that those refused together do not come back together.

    :param least: the shortest wait that makes sense.
    :param most: the longest that is bearable.
    """
    return random.randint(least, most)  # noqa: S311 - spreads load, guards nothing
