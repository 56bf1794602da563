"""
Lines in the log about what other nodes say and nobody understands: whoever reaches NATS can say any amount of it.

The first few are logged as they are; of the others of the same minute, their number.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Rate

#: Lines that are logged in so many seconds.
MOST, WINDOW = 20, 60.0

_log = Logger("mtserver.groups")


class Oddities:
    """See above."""

    def __init__(self) -> None:
        self._rate = Rate(MOST)
        self._until = 0.0

    def add(self, why: str, now: float) -> None:
        """Something has not been understood."""
        self.turn(now)
        if self._rate.admits("not understood"):
            _log.warn("a message of another node is not understood: {error}", error=escape(why))

    def turn(self, now: float) -> None:
        """Called from time to time: say what the last minute has had, once it is over."""
        if now < self._until:
            return
        for count in self._rate.turn().values():
            _log.warn("{count} more messages of other nodes were not understood", count=count)
        self._until = now + WINDOW
