"""
Security events: who was let in, who was not, and why. The lines of those events whose `audit` is true.

Whoever serves clients has them written (:func:`follow`): to the ordinary log, unless the process has an audit log that
takes them instead (:class:`~mtserver.telemetry.audit.log.AuditLog`, by :func:`direct`). Names and fields are a
contract, which ``docs/audit.md`` explains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from mtserver.telemetry.events import EVENTS, Event, Subscriber, subscribe

__all__ = ["AUDITED", "NAMESPACE", "direct", "follow", "line", "to_log"]

NAMESPACE = "mtserver.audit"
#: Every security event.
AUDITED = tuple(event for event in EVENTS.values() if event.audit)

# Text that may stand in a line without quotes.
_WORD = re.compile(r"[!#-<>-~]+")

_log = Logger(NAMESPACE)


def follow() -> Callable[[], None]:
    """Have security events written; returns what ends that."""
    return subscribe(_hear, *AUDITED)


def _hear(event: Event, fields: Mapping[str, Any]) -> None:
    _write(event, fields)


def to_log(event: Event, fields: Mapping[str, Any]) -> None:
    """Write a security event to the ordinary log: a line of text whose fields are the event's."""
    _log.info("{text}", text=line(event, fields), audit=event.name, **fields)


_write: Subscriber = to_log


def direct(subscriber: Subscriber = to_log) -> None:
    """Have this process's security events written by `subscriber` alone; without one, to the ordinary log."""
    global _write  # noqa: PLW0603 - one process, one audit log
    _write = subscriber


def line(event: Event, fields: Mapping[str, Any]) -> str:
    """A security event as a line of text."""
    return " ".join([event.name, *(f"{name}={_shown(value)}" for name, value in fields.items())])


def _shown(value: Any) -> str:
    """A value in a line of text: quoted where it could be taken for another field."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)
