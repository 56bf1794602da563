"""
Lines in the log about what other nodes say and nobody understands: whoever reaches NATS can say any amount of it.

The first few are logged as they are; of the others of the same minute, their number. Pure.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtserver.messages import escape

#: Lines that are logged in so many seconds.
MOST, WINDOW = 20, 60.0

_log = Logger("mtserver.groups")


class Oddities:
    """See above."""

    def __init__(self) -> None:
        self._until = 0.0
        self._count = 0

    def add(self, why: str, now: float) -> None:
        """Something has not been understood."""
        self.turn(now)
        self._count += 1
        if self._count <= MOST:
            _log.warn("a message of another node is not understood: {error}", error=escape(why))

    def turn(self, now: float) -> None:
        """Called from time to time: say what the last minute has had, once it is over."""
        if now < self._until:
            return
        if self._count > MOST:
            _log.warn("{count} more messages of other nodes were not understood", count=self._count - MOST)
        self._until, self._count = now + WINDOW, 0
