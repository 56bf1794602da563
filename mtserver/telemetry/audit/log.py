"""
The audit log of one process, from its start to its stop: where security events go, and how many.

Opened when the process has the rights it will serve with, so that the file is theirs. A flood of one kind does not
hide the others, nor fill the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from mtserver.telemetry import audit
from mtserver.telemetry.audit.file import AuditFile
from mtserver.telemetry.events import SUPPRESSED, Event, Subscriber
from mtserver.telemetry.rate_limit import Rate

#: Seconds in which so many events of one kind are recorded, and the others counted.
WINDOW = 60.0
#: 600 lines of 200 bytes are 170 MB a day, of a peer that floods all day.
MOST = 600


class AuditLog:
    """
    Takes the security events of a process, and writes a bounded number of each kind.

    :param path: of the file; without one, events are lines of the ordinary log.
    :param reactor: for time.
    :param most: events of one kind in one :data:`WINDOW`.
    """

    def __init__(self, path: str, reactor: Any, most: int = MOST) -> None:
        self._path = path
        self._reactor = reactor
        self._rate = Rate(most)
        self._write: Subscriber = audit.to_log
        self._file: AuditFile | None = None
        self._turn_call: IDelayedCall | None = None

    def open(self) -> None:
        """Begin. Raises ``OSError`` where the file cannot be opened."""
        if self._path:
            self._write = self._file = AuditFile(self._path)
        audit.direct(self._hear)
        self._turn_call = self._reactor.callLater(WINDOW, self._turn)

    def _hear(self, event: Event, fields: Mapping[str, Any]) -> None:
        if self._rate.admits(event.name):
            self._write(event, fields)

    def _turn(self) -> None:
        self._turn_call = self._reactor.callLater(WINDOW, self._turn)
        self._summarise()

    def _summarise(self) -> None:
        """The window is over: tell how many events there were that were not admitted."""
        for kind, count in self._rate.turn().items():
            SUPPRESSED(kind=kind, count=count)

    def close(self) -> None:
        """Tell what was suppressed until now, and end."""
        if self._turn_call is None:
            return  # it was never opened
        self._turn_call.cancel()
        self._turn_call = None
        self._summarise()
        audit.direct()
        if self._file is not None:
            self._file.close()
