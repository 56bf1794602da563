"""
Python's :mod:`logging` and :mod:`warnings` in Twisted's log: what a handler's author and the libraries say there.

::

    end = begin(Levels(["info", "till=debug"]))

Each record becomes an event of Twisted's log with its logger's name as its namespace, its level, its traceback, and
what `extra` has of numbers and text as fields. Without this Python writes warnings to standard error, which twistd logs
as errors without a name, and drops everything below them.

Where Twisted's log is itself handed to :mod:`logging` (``twistd --logger`` with ``STDLibLogObserver``), that is where
everything is already, and nothing is done.

For whoever owns the process: the levels of loggers are everybody's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from mtserver.telemetry.levels import Levels
from mtserver.telemetry.logs import format_exception

_NUMBERS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
#: Twisted's levels from the highest to the lowest, and the number from which on each is meant.
_LEVELS = [(_NUMBERS[name], LogLevel.levelWithName(name)) for name in reversed(_NUMBERS)]

#: Names that every record has.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def begin(levels: Levels, publish: Callable[[LogEvent], object] = globalLogPublisher) -> Callable[[], None]:
    """
    Have what is logged with :mod:`logging` from now on, and each warning, in Twisted's log; returns what ends that.

    Levels of loggers are only lowered: a handler that the author has for his own purposes, to a file say, misses
    nothing. One that writes all that is logged to standard output or standard error is set aside, since with Twisted's
    log that would be written twice.

    :param publish: what takes the events.
    """
    root = logging.getLogger()
    aside = [other for other in root.handlers if _writes_to_terminal(other)]
    for other in aside:
        root.removeHandler(other)
    handler = LogHandler(levels, publish, aside)
    root.addHandler(handler)
    lowered = []
    for name, level in [("", levels.default), *levels.named.items()]:
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() > _NUMBERS[level]:
            lowered.append((logger, logger.level))
            logger.setLevel(_NUMBERS[level])
    logging.captureWarnings(True)

    def end() -> None:
        logging.captureWarnings(False)
        for logger, level in reversed(lowered):
            logger.setLevel(level)
        root.removeHandler(handler)
        for other in aside:
            root.addHandler(other)

    return end


def _writes_to_terminal(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return type(handler) is logging.StreamHandler and handler.stream in streams


class LogHandler(logging.Handler):
    """
    Publishes each record as an event of Twisted's log. Parameters as of :func:`begin`.

    :param aside: handlers whose place it has taken.
    """

    def __init__(
        self, levels: Levels, publish: Callable[[LogEvent], object], aside: Sequence[logging.Handler] = ()
    ) -> None:
        super().__init__()
        self._levels = levels
        self._publish = publish
        self._aside = aside
        #: Twisted's log comes here: to publish anything would have it go round.
        self._gives_way = False

    def emit(self, record: logging.LogRecord) -> None:
        if type(record.msg).__module__ == "twisted.logger._stdlib" and not self._gives_way:
            self._gives_way = True
            for other in self._aside:
                logging.getLogger().addHandler(other)  # behind us, so that this record is not lost to it
        level = _level_of(record.levelno)
        if self._gives_way or not self._levels.shows(record.name, level.name):
            return
        try:
            event = _event(record)
        except Exception:  # an argument does not fit, or its text raises: logging has words for that
            self.handleError(record)
            return
        self._publish({**event, "log_level": level})


def _event(record: logging.LogRecord) -> LogEvent:
    parts = [record.getMessage().rstrip("\n")]  # a warning's text ends its line
    if record.exc_info and record.exc_info[1] is not None:
        parts.append(format_exception(record.exc_info[1]))
    if record.stack_info:
        parts.append(record.stack_info)
    extra: dict[str, Any] = {
        name: value
        for name, value in vars(record).items()
        if name not in _USUAL and not name.startswith(("log_", "_")) and isinstance(value, (str, int, float))
    }
    return {
        **extra,
        "text": "\n".join(parts),
        "log_format": "{text}",
        "log_namespace": record.name,
        "log_time": record.created,
    }


def _level_of(number: int) -> Any:
    for least, level in _LEVELS:
        if number >= least:
            return level
    return LogLevel.debug
