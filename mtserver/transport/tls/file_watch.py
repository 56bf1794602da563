"""
Values made of files, and made again when the files change.

A change is seen by times and sizes, at a system call for each file. Files that cannot be used change nothing, which is
logged once, until they change again.
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

    :param what: the word for it in the log.
    :param make: reads the files; raises ``OSError`` or ``ValueError`` where they cannot be used.
    :param objection: says why a new value (its first argument) must not replace the old one; empty: it may.
    """

    def __init__(
        self,
        what: str,
        paths: tuple[str, ...],
        make: Callable[[], T],
        *,
        objection: Callable[[T, T], str] = lambda _new, _old: "",
    ) -> None:
        self.what = what
        self._objection = objection
        self.paths = paths
        self._make = make
        # Taken before the files are read, so that a change in between is found the next time.
        self._seen = _state_of(paths)
        self.value = make()

    def look(self, *, force: bool = False) -> bool:
        """
        Make the value again if the files have changed; return whether it was.

        :param force: make it again in any case.
        """
        state = _state_of(self.paths)
        if state == self._seen and not force:
            return False
        self._seen = state
        files = ", ".join(map(escape, self.paths))
        try:
            made = self._make()
            if reason := self._objection(made, self.value):
                raise ValueError(f"{files}: {reason}")
            self.value = made
        except (OSError, ValueError) as error:
            refused(self.what, files, error)
            return False
        if files:  # a certificate made on the spot has no files, and has only changed whom it trusts
            CERTIFICATE_RELOADED(files=files)
            _log.info("{what} reloaded: {files}", what=self.what, files=files)
        return True


def refused(what: str, files: str, error: Exception) -> None:
    """Log that files cannot be used, so that the old value stays."""
    reason = escape(" ".join(str(error).split()))
    CERTIFICATE_REFUSED(files=files, reason=reason)
    _log.error("{what} not reloaded, what was there stays: {reason}", what=what, reason=reason)


def _state_of(paths: tuple[str, ...]) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(map(_state, paths))


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - half the price of Path.stat, for what may be thousands of files
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
