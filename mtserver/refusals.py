"""
Refusals of the server itself: its codes on the wire and one function per text. A handler raises refusals of
:mod:`mtserver.errors`; a framing raises its own where it is lost.
"""

from __future__ import annotations

import random

from mtserver.errors import BadMessage, Refusal

#: Codes on the wire, with the reason for each. A handler's own refusals may have others.
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

#: Answer where the handler raised or broke its contract. The log says more, the client is told no more.
INTERNAL = Refusal("internal", "the handler failed")
#: Answer to a login that is missing or failed. The audit log has the reason.
AUTH = Refusal("auth", "authentication missing or refused", closes=True)


def busy(text: str) -> Refusal:
    """Refuse a client for which there is no room."""
    return Refusal("busy", text, retry_after=retry_after(1, 10), closes=True)


def closing() -> Refusal:
    """Refuse because the server is stopping."""
    return Refusal("closing", "the server is stopping", retry_after=retry_after(1, 10), closes=True)


def idle(seconds: float) -> Refusal:
    """Close a client that has sent nothing for so many seconds."""
    return Refusal("idle", f"nothing heard for {seconds:g} seconds", closes=True)


def slow() -> Refusal:
    """Close a client that does not read what it is sent."""
    return Refusal("slow", "too much unread for too long", closes=True)


def too_many_bad(count: int) -> Refusal:
    """Close a client whose last messages, each of them refused already, were all bad."""
    return BadMessage(f"{count} bad messages in a row", closes=True)


def timeout(seconds: float) -> Refusal:
    """Close a client whose message has begun and not ended in time."""
    return Refusal("timeout", f"the message begun {seconds:g} seconds ago is not complete", closes=True)


def late(seconds: float) -> Refusal:
    """Close a client that has not authenticated in time."""
    return Refusal("timeout", f"no authentication within {seconds:g} seconds", closes=True)


def too_many_failures(seconds: float) -> Refusal:
    """Refuse a login unread, after too many failed ones from the client's network."""
    return Refusal("busy", "too many failed logins from your address", retry_after=seconds, closes=True)


def too_many_logins() -> Refusal:
    """Refuse a login while as many as can be checked are being checked."""
    return Refusal("busy", "too many logins at once", retry_after=retry_after(1, 10), closes=True)


def unchecked() -> Refusal:
    """Refuse a login that cannot be checked now."""
    return Refusal("unavailable", "authentication is not possible now", retry_after=retry_after(1, 10), closes=True)


def too_many_groups(most: int) -> Refusal:
    """Refuse a join to a client that is in the most groups already."""
    return Refusal("busy", f"in {most} groups already, which is the most")


def retry_after(least: int, most: int) -> int:
    """
    Choose whole seconds for a client to wait, evenly spread, so that clients refused together come back apart.

    :param least: the shortest wait that makes sense.
    :param most: the longest that is bearable.
    """
    return random.randint(least, most)  # noqa: S311 - spreads load, guards nothing
