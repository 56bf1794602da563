"""
Limits of one client that are arithmetic: no timer, no clock of their own, no I/O. ``now`` is seconds on any monotonic
clock.
"""

from __future__ import annotations

import math


class TokenBucket:
    """
    Allows `rate` messages per second over time, and one second's worth (and at least one) at once.

    The classic token bucket: tokens drop in at `rate`, each message takes one, none are saved beyond the burst.
    """

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = max(rate, 1.0)
        self._tokens = self._burst
        self._filled_at = now

    def available(self, now: float) -> int:
        """How many messages may be taken now."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        # A hair under a whole token is one: 0.1 * 10 is not always 1.0.
        return math.floor(self._tokens + 1e-9)

    def spend(self, count: int) -> None:
        """Take tokens that :meth:`available` has just offered."""
        self._tokens -= count


class Streak:
    """
    How many of a client's messages were bad, and how many of them in a row.

    A bad one is noted by its place among all; a good one is not noted at all, and so costs nothing.
    """

    __slots__ = ("_last", "in_a_row", "total")

    def __init__(self) -> None:
        self.total = 0
        self.in_a_row = 0
        self._last = -1

    def add(self, place: int) -> None:
        """
        One more.

        :param place: counted up by one with each message, bad or good.
        """
        self.total += 1
        self.in_a_row = self.in_a_row + 1 if place == self._last + 1 else 1
        self._last = place
