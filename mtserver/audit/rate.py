"""
How many events of one kind are recorded in one window of time, and how many were not.

The window is turned by whoever has a clock. Bounded per kind, so that a flood of refusals does not hide a stop.
"""

from __future__ import annotations

from collections import Counter

#: Seconds of a window.
WINDOW = 60.0
#: Events of one kind in one window. 600 lines of 200 bytes are 170 MB a day, of a peer that floods all day.
MOST = 600


class Rate:
    """
    Admits the first of each kind in each window, and counts the rest.

    :param most: events of one kind in one window.
    """

    def __init__(self, most: int = MOST) -> None:
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
