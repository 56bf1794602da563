"""
Log lines, for people and for machines, that no peer can forge.

Whatever comes from a peer is escaped where it enters a log event (:func:`~mtserver.telemetry.escape.escape`,
:func:`format_exception`), and once more by the observers here for what a handler's author logs as it came.
"""

from __future__ import annotations

import functools
import json
import math
import re
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)

from mtserver.telemetry.escape import escape

# C0 but tab and newline, DEL, C1: what drives a terminal. And the separators that some viewers show as new lines, and
# surrogates, which no file can hold: with one, the whole line would be lost.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# A format with nothing but text and names: ``{client}``, ``{duration:.3f}``.
_PLAIN = re.compile(r"(?:[^{}]|\{[a-z_]+(?::[^{}]*)?\})*")
# What makes Twisted write something else than that.
_SPECIAL = {"log_failure", "log_flattened", "log_system"}


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
    """Twisted's own line format, with control characters made visible."""

    def format_line(event: LogEvent) -> str | None:
        line = _plain_line(event) or formatEventAsClassicLogText(event)
        return None if line is None else _CONTROL.sub(lambda match: escape(match[0]), line)

    return FileLogObserver(file, format_line)


def _plain_line(event: LogEvent) -> str:
    """
    What Twisted makes of an event, for those that ask nothing special of it; otherwise an empty text.

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
    where they are numbers or text.
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
        return json.dumps(record) + "\n"

    return FileLogObserver(file, format_line)


#: What ``--log-format`` chooses from.
OBSERVERS: dict[str, Callable[[Any], FileLogObserver]] = {"text": text_observer, "json": json_observer}
