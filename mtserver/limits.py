"""
Limits that are arithmetic: no timer, no clock of their own, no I/O. ``now`` is seconds on any monotonic clock.
"""

from __future__ import annotations

import math
import random
from collections import Counter


class TokenBucket:
    """
    At most `rate` messages per second over time, at most one second's worth (and at least one) at once.

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


class Rate:
    """
    Admits the first of each kind in each window, and counts the rest.

    The window is turned by whoever has a clock. Bounded per kind, so that a flood of one hides no other.

    :param most: events of one kind in one window.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: Counter[str] = Counter()

    def admits(self, event: str) -> bool:
        """Whether this one is to be recorded."""
        self._seen[event] += 1
        return self._seen[event] <= self._most

    def turn(self) -> dict[str, int]:
        """Begin a new window. Returns how many of which kind the old one did not admit."""
        seen, self._seen = self._seen, Counter()
        return {event: count - self._most for event, count in seen.items() if count > self._most}


class Once:
    """
    Tells texts that are new from those that have been seen, until it is cleared; no more than `most` of them are new.

    For lines in a log whose words come from somebody else.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def is_new(self, text: str) -> bool:
        """Whether this is to be said; it is seen from now on."""
        if text in self._seen or len(self._seen) >= self._most:
            return False
        self._seen.add(text)
        return True

    def clear(self) -> None:
        """Begin anew."""
        self._seen.clear()


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


def retry_after(least: int, most: int) -> int:
    """
    Whole seconds for a client to wait, spread evenly so that those refused together do not come back together.

    :param least: the shortest wait that makes sense.
    :param most: the longest that is bearable.
    """
    return random.randint(least, most)  # noqa: S311 - spreads load, guards nothing
