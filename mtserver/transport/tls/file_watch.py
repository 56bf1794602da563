"""
What is made of files, and made anew when they change.

Whether they have is seen by their times and sizes, so it costs a system call each. What cannot be used changes
nothing, and is said once: until they change again there is nothing new to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import CERTIFICATE_REFUSED, CERTIFICATE_RELOADED

T = TypeVar("T")

_log = Logger("mtserver")


class Watched(Generic[T]):
    """
    A value and the files it is made of.

    :param what: one word for it, in the log.
    :param make: reads them; raises ``OSError`` or ``ValueError`` where they cannot be used.
    :param better: why a new value (the first) is not to take the place of the old one; an empty text if it is.
    """

    def __init__(
        self,
        what: str,
        paths: tuple[str, ...],
        make: Callable[[], T],
        *,
        better: Callable[[T, T], str] = lambda _new, _old: "",
    ) -> None:
        self.what = what
        self._better = better
        self.paths = paths
        self._make = make
        # Before they are read: a change in between is found the next time.
        self._seen = _state_of(paths)
        self.value = make()

    def look(self, *, anyway: bool = False) -> bool:
        """
        Make it anew if the files have changed; whether it was.

        :param anyway: also if not.
        """
        state = _state_of(self.paths)
        if state == self._seen and not anyway:
            return False
        self._seen = state
        files = ", ".join(map(escape, self.paths))
        try:
            made = self._make()
            if reason := self._better(made, self.value):
                raise ValueError(f"{files}: {reason}")
            self.value = made
        except (OSError, ValueError) as error:
            refused(self.what, files, error)
            return False
        if files:  # there is nothing to tell of what was made on the spot, which has only been told whom to trust
            CERTIFICATE_RELOADED(files=files)
            _log.info("{what} reloaded: {files}", what=self.what, files=files)
        return True


def refused(what: str, files: str, error: Exception) -> None:
    """Say that what is in the files cannot be used, and is not."""
    reason = escape(" ".join(str(error).split()))
    CERTIFICATE_REFUSED(files=files, reason=reason)
    _log.error("{what} not reloaded, what was there stays: {reason}", what=what, reason=reason)


def _state_of(paths: tuple[str, ...]) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(map(_state, paths))


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - half as dear, and there may be thousands
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
