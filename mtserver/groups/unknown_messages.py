"""
Log lines about messages of other nodes that cannot be understood, limited, since who reaches NATS can send any number.

The first few of a minute are logged one by one, the others as a count.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Rate

#: Most lines that are logged in so many seconds.
MOST, WINDOW = 20, 60.0

_log = Logger("mtserver.groups")


class UnknownMessages:
    """The log of such messages."""

    def __init__(self) -> None:
        self._rate = Rate(MOST)
        self._until = 0.0

    def add(self, why: str, now: float) -> None:
        """Log a message that was not understood, or count it."""
        self.turn(now)
        if self._rate.admits("not understood"):
            _log.warn("a message of another node is not understood: {error}", error=escape(why))

    def turn(self, now: float) -> None:
        """Log the count of the last minute, once it is over; to be called regularly."""
        if now < self._until:
            return
        for count in self._rate.turn().values():
            _log.warn("{count} more messages of other nodes were not understood", count=count)
        self._until = now + WINDOW
