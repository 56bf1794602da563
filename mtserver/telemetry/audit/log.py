"""
The audit log of one process, from its start to its stop: where events go, and how many.

Opened when the process has the rights it will serve with, so that the file is theirs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall

from mtserver.telemetry import audit
from mtserver.telemetry.audit.file import AuditFile
from mtserver.telemetry.rate_limit import Rate

#: Seconds in which so many events of one kind are recorded, and the others counted.
WINDOW = 60.0
#: 600 lines of 200 bytes are 170 MB a day, of a peer that floods all day.
MOST = 600


class AuditLog:
    """
    :param path: of the file; without one, events are lines of the ordinary log.
    :param reactor: for time.
    """

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor
        self._file: AuditFile | None = None
        self._turn_call: IDelayedCall | None = None

    def open(self) -> None:
        """Raises ``OSError`` where the file cannot be opened."""
        if self._path:
            self._file = AuditFile(self._path)
            audit.direct(self._file)
        audit.bound(Rate(MOST))
        self._turn_call = self._reactor.callLater(WINDOW, self._turn)

    def _turn(self) -> None:
        self._turn_call = self._reactor.callLater(WINDOW, self._turn)
        audit.summarise()

    def close(self) -> None:
        """Tell what was suppressed until now, and end."""
        if self._turn_call is None:
            return  # it was never opened
        self._turn_call.cancel()
        self._turn_call = None
        audit.summarise()
        audit.bound(None)
        audit.direct()
        if self._file is not None:
            self._file.close()
