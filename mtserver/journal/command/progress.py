"""How far long work has got: on a line of standard error that is written again and again, and only on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Self

#: Seconds before anything is said, and between two words.
PATIENCE = 1.0
PAUSE = 0.2


class Progress:
    """
    Of one piece of work. Use it with ``with``: its line is gone when the work is done.

    :param what: is done.
    :param begin: what :meth:`at` is told at first,
    :param end: and at last; 0: nobody knows.
    """

    def __init__(self, what: str, begin: int = 0, end: int = 0) -> None:
        self._what = what
        self._begin = begin
        self._end = end
        self._next = time.monotonic() + PATIENCE
        self._begun = time.monotonic()
        self._shown = False
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def at(self, place: int) -> None:
        """As far as that."""
        now = time.monotonic()
        if not self._visible or now < self._next:
            return
        self._next = now + PAUSE
        self._shown = True
        if self._end > self._begin and place:
            share = min(max((place - self._begin) / (self._end - self._begin), 0), 1)
            text = f"{self._what}: {share:.0%}"
        else:
            text = f"{self._what}: {now - self._begun:.0f} s"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Make room for something else."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
