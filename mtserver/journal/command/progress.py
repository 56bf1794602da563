"""Progress of long work: one line on standard error that is overwritten, and only on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Self

#: Seconds of work before anything is shown.
DELAY = 1.0
#: Seconds between two updates.
INTERVAL = 0.2


class Progress:
    """
    Progress of one piece of work, for a ``with`` statement, which removes the line at the end.

    :param what: word for the work.
    :param begin: place at the beginning.
    :param end: place at the end; 0 if it is unknown.
    """

    def __init__(self, what: str, begin: int = 0, end: int = 0) -> None:
        self._what = what
        self._begin = begin
        self._end = end
        self._next = time.monotonic() + DELAY
        self._begun = time.monotonic()
        self._shown = False
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def at(self, place: int) -> None:
        """Show that the work has reached a place."""
        now = time.monotonic()
        if not self._visible or now < self._next:
            return
        self._next = now + INTERVAL
        self._shown = True
        if self._end > self._begin and place:
            share = min(max((place - self._begin) / (self._end - self._begin), 0), 1)
            text = f"{self._what}: {share:.0%}"
        else:
            text = f"{self._what}: {now - self._begun:.0f} s"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, so that something else can be printed."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
