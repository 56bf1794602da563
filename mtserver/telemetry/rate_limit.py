"""Limits to what is logged and audited, so that nobody can flood a log. Pure: whoever has a clock turns the window."""

from __future__ import annotations

from collections import Counter


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
