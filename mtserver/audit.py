"""
Security events: who was let in, who was not, and why.

::

    audit.record("auth-failed", client=7, peer="192.0.2.2:4711", mechanism="PLAIN", reason="...")

An event is a name and fields. What observes them decides where they go; whoever records one need not know. Fields are
numbers and text; what comes from a peer is escaped by who records it; secrets are never among them.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

NAMESPACE = "mtserver.audit"

_log = Logger(NAMESPACE)


def record(event: str, **fields: Any) -> None:
    """
    Record a security event.

    :param event: its name, lower case with hyphens.
    :param fields: what is known of it.
    """
    _log.info("{audit}", audit=event, **fields)
