"""
Log lines, for people and for machines, that no peer can forge.

The log listens to events (:func:`follow`) and writes a line for each that has a text. What else is logged, with
Twisted's logger or Python's (:mod:`mtserver.telemetry.std_logging`), is written likewise, with the client whose message
the handler was at.

Whatever comes from a peer is escaped where it enters a log event (:func:`~mtserver.telemetry.escape.escape`,
:func:`format_exception`), and once more by the observers here for what a handler's author logs as it came.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
    globalLogPublisher,
)
from zope.interface import implementer

from mtserver.telemetry import context
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import EVENTS, Event, subscribe
from mtserver.telemetry.levels import Levels

#: Namespace of mtserver's own lines.
NAMESPACE = "mtserver"

# C0 but tab and newline, DEL, C1: what drives a terminal. And the separators that some viewers show as new lines, and
# surrogates, which no file can hold: with one, the whole line would be lost.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# A format with nothing but text and names: ``{client}``, ``{duration:.3f}``.
_PLAIN = re.compile(r"(?:[^{}]|\{[a-z_]+(?::[^{}]*)?\})*")
# Fields that make Twisted write something else than that.
_SPECIAL = {"log_failure", "log_flattened", "log_system"}
# A part of an event's text that is left out where its field is empty.
_OPTIONAL = re.compile(r"\[([^\]]*\{([a-z_]+)\}[^\]]*)\]")

# Beginnings of namespaces that speak for themselves, or have to say something while any client has its turn.
_NOT_HANDLERS = {"mtserver", "twisted", "asyncio"}

_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_COLOURS = {"debug": _DIM, "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}

_log = Logger(NAMESPACE)


def follow(levels: Levels) -> Callable[[], None]:
    """
    Have a line in the log for each event that has a text; returns what ends that.

    :param levels: which lines are wanted. To others we do not listen, so they cost nothing.
    """
    wanted = [event for event in EVENTS.values() if event.text and levels.shows(NAMESPACE, event.level)]
    return subscribe(_write, *wanted)


def _write(event: Event, fields: Mapping[str, Any]) -> None:
    level, template, without, optional = _line_of(event.text, event.level)
    # Made as Twisted's Logger would, which takes longer: there are two lines for each client.
    globalLogPublisher(
        {
            "log_logger": _log,
            "log_level": level,
            "log_namespace": NAMESPACE,
            "log_source": None,
            "log_format": template if not optional or fields.get(optional) else without,
            "log_time": time.time(),
            **fields,
        }
    )


@functools.cache
def _line_of(text: str, level: str) -> tuple[Any, str, str, str]:
    """The level, the format with its optional part and without it, and that part's field; empty where there is none."""
    optional = _OPTIONAL.search(text)
    twisted_level = LogLevel.levelWithName(level)
    if optional is None:
        return twisted_level, text, text, ""
    return twisted_level, _OPTIONAL.sub(r"\1", text), _OPTIONAL.sub("", text), optional[2]


@implementer(ILogObserver)
class Filtered:
    """
    Hands on to another observer what is to be logged at these levels.

    What has no level, as some of Twisted's older events, is handed on.
    """

    def __init__(self, observer: FileLogObserver, levels: Levels) -> None:
        self.observer = observer
        self._shows = levels.shows

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level is None or self._shows(event.get("log_namespace", ""), level.name):
            self.observer(event)


def format_exception(error: BaseException) -> str:
    """
    A traceback with the text of each exception escaped: it often quotes what a peer sent.

    Chained exceptions and the members of groups are shown in the order Python has them.
    """
    lines: list[str] = []
    _add_exception(lines, error, set())
    return "\n".join(lines)


def _add_exception(lines: list[str], error: BaseException, seen: set[int]) -> None:
    seen.add(id(error))
    earlier, link = error.__cause__, "The above exception was the direct cause of the following exception:"
    if earlier is None and not error.__suppress_context__:
        earlier, link = error.__context__, "During handling of the above exception, another exception occurred:"
    if earlier is not None and id(earlier) not in seen:
        _add_exception(lines, earlier, seen)
        lines.append(link)
    lines.append("Traceback (most recent call last):")
    lines += "".join(traceback.format_tb(error.__traceback__)).splitlines()
    text = _text_of(error)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    lines.append(f"{name}: {text}" if text else name)
    lines += [escape(str(note)) for note in getattr(error, "__notes__", ())]
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            if id(member) not in seen:
                _add_exception(lines, member, seen)


def _text_of(error: BaseException) -> str:
    try:
        return escape(str(error))
    except Exception as broken:  # a __str__ of the author's; his traceback is needed all the more
        return f"<its text raised {type(broken).__name__}>"


def text_observer(file: TextIO) -> FileLogObserver:
    """
    Twisted's own line format, with control characters made visible; in colours on a terminal, unless the environment
    has NO_COLOR (https://no-color.org).
    """
    in_colours = _takes_colours(file)

    def format_line(event: LogEvent) -> str | None:
        line = _plain_line(event) or formatEventAsClassicLogText(event)
        if line is None:
            return None
        line = _CONTROL.sub(lambda match: escape(match[0]), line)
        client = _client_of(event)
        if client is None and not in_colours:
            return line
        head, bracket, text = line.partition("] ")
        if client is not None:
            text = f"[client {client}] {text}"
        if in_colours:
            stamp, _, system = head.partition(" ")
            level = event.get("log_level", LogLevel.info).name
            return f"{_DIM}{stamp}{_RESET} {_COLOURS[level]}{system}]{_RESET} {text}"
        return head + bracket + text

    return FileLogObserver(file, format_line)


def _takes_colours(file: Any) -> bool:
    is_terminal = hasattr(file, "isatty") and file.isatty()
    return bool(is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def _client_of(event: LogEvent) -> int | None:
    """The number of the client whose message the handler was at when it said this; None where nobody's handler did."""
    client = context.current()
    if client is None or event.get("log_namespace", "").partition(".")[0] in _NOT_HANDLERS:
        return None
    return client


def _plain_line(event: LogEvent) -> str:
    """
    Format an event as Twisted does, if it asks nothing special of it; otherwise an empty text.

    Twisted's formatter knows calls, attributes and flattened events, and takes ten times as long: with two lines for
    each client that was a third of what a connection costs.
    """
    template = event.get("log_format")
    if type(template) is not str or not _is_plain(template) or not event.keys().isdisjoint(_SPECIAL):
        return ""
    try:
        text = template.format_map(event)
        stamp = _stamp(int(event["log_time"]))
        line = f"{stamp} [{event['log_namespace']}#{event['log_level'].name}] {text}"
    except BaseException:  # a field is missing, or its text raises: Twisted has words for that
        return ""
    return line.replace("\n", "\n\t") + "\n" if text else ""


@functools.lru_cache(256)  # an author's log may have formats without end
def _is_plain(template: str) -> bool:
    return _PLAIN.fullmatch(template) is not None


@functools.lru_cache(2)
def _stamp(second: int) -> str:
    return formatTime(second)


def json_observer(file: TextIO) -> FileLogObserver:
    """
    One JSON object per line: ``time`` (RFC 3339, UTC), ``level``, ``namespace``, ``text``, and the event's own fields
    where they are numbers or text; ``client`` also where the event has none of it, for what a handler says.
    """

    def format_line(event: LogEvent) -> str | None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = "\n".join(part for part in (text, format_exception(failure.value)) if part)
        if not text:
            return None
        level = event.get("log_level")
        record: dict[str, Any] = {
            "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="microseconds"),
            "level": level.name if level is not None else "info",
            "namespace": event.get("log_namespace", ""),
            "text": text,
        }
        for key, value in event.items():
            if key not in record and not key.startswith(("log_", "_")) and isinstance(value, (str, int, float)):
                # JSON has no nan and no infinity.
                record[key] = str(value) if isinstance(value, float) and not math.isfinite(value) else value
        client = _client_of(event)
        if client is not None:
            record.setdefault("client", client)
        return json.dumps(record) + "\n"

    return FileLogObserver(file, format_line)


#: Observers that ``--log-format`` chooses from.
OBSERVERS: dict[str, Callable[[Any], FileLogObserver]] = {"text": text_observer, "json": json_observer}
