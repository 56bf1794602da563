"""
Security events: who was let in, who was not, and why.

::

    audit.record("authentication-failed", client=7, peer="192.0.2.2:4711", mechanism="PLAIN", reason="...")

An event is a name and fields, both of :data:`~mtserver.telemetry.audit.events.EVENTS`, a documented contract. Laws:

* Whoever records one need not know where it goes: to the ordinary log, or to the file of ``--audit-log``
  (:func:`direct`).
* Fields are numbers and text; what comes from a peer is escaped by who records it; secrets are never among them.
* A flood of one kind does not hide the others, nor fill the disk (:func:`bound`).

Called in the loop's thread.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.logger import ILogObserver, Logger, globalLogPublisher

from mtserver.telemetry.rate_limit import Rate

__all__ = ["NAMESPACE", "bound", "direct", "record", "summarise"]

NAMESPACE = "mtserver.audit"

# What may stand in a line of text without quotes.
_WORD = re.compile(r"[!#-<>-~]+")

_log = Logger(NAMESPACE)
_rate: Rate | None = None


def record(event: str, **fields: Any) -> None:
    """
    Record a security event.

    :param event: its name, lower case with hyphens.
    :param fields: what is known of it.
    """
    if _rate is None or _rate.admits(event):
        text = " ".join([event, *(f"{name}={_shown(value)}" for name, value in fields.items())])
        _log.info("{text}", text=text, audit=event, **fields)


def direct(observer: ILogObserver = globalLogPublisher) -> None:
    """Have this process's events observed by `observer` alone, from now on; without one, by the ordinary log."""
    _log.observer = observer


def bound(rate: Rate | None) -> None:
    """Have this process record only what `rate` admits; see :func:`summarise`. Without one, everything."""
    global _rate  # noqa: PLW0603 - one process, one audit log
    _rate = rate


def summarise() -> None:
    """A window of the rate is over: tell how many events there were that it did not admit."""
    if _rate is not None:
        for event, count in _rate.turn().items():
            record("suppressed", kind=event, count=count)


def _shown(value: Any) -> str:
    """A value in a line of text: quoted where it could be taken for another field."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)
