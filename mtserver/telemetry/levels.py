"""
Levels of the log (``--log-level``): one for all, and others by name. Pure.

A name is that of a logger of Python's :mod:`logging` or a namespace of Twisted's, and of those below it: ``till`` is
also for ``till.receipts``. The longest that fits decides.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from mtserver.errors import ConfigurationError
from mtserver.telemetry.event import LEVELS

# Python's words for two of them.
_ALIASES = {"warning": "warn", "fatal": "critical"}


class Levels:
    """
    Decides what is logged.

    :param words: each a level, or ``LOGGER=LEVEL``; of two for the same, the later. Raises
        :class:`~mtserver.errors.ConfigurationError` for one that is neither.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        #: The level of loggers that are not named.
        self.default = "info"
        #: Levels by the name of a logger or namespace.
        self.named: dict[str, str] = {}
        for word in words:
            name, equals, level = word.rpartition("=")
            level = _level(level)
            if not equals:
                self.default = level
            elif name.strip():
                self.named[name.strip()] = level
            else:
                raise ConfigurationError(f"{word!r} names no logger before its =")
        # An author may have names without end.
        self._least = functools.lru_cache(1024)(lambda name: LEVELS.index(self.of(name)))

    def of(self, name: str) -> str:
        """The level from which on this logger's lines are written."""
        while name:
            if name in self.named:
                return self.named[name]
            name = name.rpartition(".")[0]
        return self.default

    def shows(self, name: str, level: str) -> bool:
        """Whether a line of this level by this logger is written."""
        return _NUMBERS[level] >= self._least(name)


_NUMBERS = {level: number for number, level in enumerate(LEVELS)}


def _level(word: str) -> str:
    level = word.strip().lower()
    level = _ALIASES.get(level, level)
    if level not in LEVELS:
        raise ConfigurationError(f"{word!r} is not one of {', '.join(LEVELS)}")
    return level
