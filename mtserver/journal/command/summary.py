"""Summary of a journal in numbers: messages, their sources and times, and the room that they take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from mtserver.journal.command.format import size_text, timestamp, who
from mtserver.journal.sqlite.file import log_path, size_of
from mtserver.journal.sqlite.reading import page_end, position

#: Sources that are listed, at most: those with most messages.
LISTED = 20


class Tally(NamedTuple):
    """Numbers of one source."""

    messages: int
    bytes: int
    #: Times of the first and the last message, in seconds since the epoch.
    first: float
    last: float

    def joined(self, other: Tally) -> Tally:
        """Return the numbers of both together."""
        return Tally(
            self.messages + other.messages,
            self.bytes + other.bytes,
            min(self.first, other.first),
            max(self.last, other.last),
        )


EMPTY = Tally(0, 0, math.inf, -math.inf)


class Summary(NamedTuple):
    """Summary of a file."""

    version: int
    #: Numbers of the first and the last message that are kept; None if there is none.
    first: int | None
    last: int | None
    #: Last number given.
    position: int
    #: Tallies by identity and name; both are empty for anonymous clients.
    tallies: dict[tuple[str, str], Tally]
    #: Bytes of the file, of its free pages, and of the write-ahead log.
    file: int
    free: int
    log: int
    #: Number of known ids; None for a version without ids.
    ids: int | None

    @property
    def total(self) -> Tally:
        """Tally of all sources."""
        return functools.reduce(Tally.joined, self.tallies.values(), EMPTY)


def summarise(path: Path, connection: apsw.Connection, at: Callable[[int], None]) -> Summary:
    """
    Count the messages, in pages.

    :param at: called with the sequence number up to which messages are counted.
    """
    version = connection.pragma("user_version")
    tallies: dict[int, Tally] = {}
    first = connection.execute("SELECT min(seq) FROM messages").get
    after = 0
    while (end := page_end(connection, after)) is not None:
        for source, *tally in _page(connection, version, after, end):
            tallies[source] = tallies.get(source, EMPTY).joined(Tally(*tally))
        at(end)
        after = end
    return Summary(
        version=version,
        first=first,
        last=after or None,
        position=position(connection),
        tallies=_by_name(connection, tallies),
        file=size_of(path),
        # The list of free pages is as of the last commit, the file as of the last checkpoint and perhaps shorter.
        free=min(size_of(path), connection.pragma("freelist_count") * connection.pragma("page_size")),
        log=size_of(log_path(path)),
        ids=connection.execute("SELECT count(*) FROM ids").get if version > 1 else None,
    )


def _page(connection: apsw.Connection, version: int, after: int, end: int) -> Iterator[Any]:
    source = "coalesce(source, 0)" if version > 1 else "0"
    return connection.execute(
        f"""
        SELECT {source}, count(*), sum(length(message)), min(time), max(time)
        FROM messages WHERE seq > ? AND seq <= ? GROUP BY 1
        """,
        (after, end),
    )


def _by_name(connection: apsw.Connection, tallies: dict[int, Tally]) -> dict[tuple[str, str], Tally]:
    named: dict[tuple[str, str], Tally] = {}
    for source, tally in sorted(tallies.items(), key=lambda item: -item[1].messages):
        found = (
            source and connection.execute("SELECT identity, name FROM sources WHERE source = ?", (source,)).fetchone()
        )
        key = found or ("", "")
        named[key] = named.get(key, EMPTY).joined(tally)
    return named


def lines(summary: Summary) -> Iterator[str]:
    """Yield the summary as lines for people."""
    total = summary.total
    yield f"version   {summary.version}"
    yield f"messages  {total.messages} ({size_text(total.bytes)})"
    if total.messages:
        yield f"numbers   {summary.first} to {summary.last}; the last one given is {summary.position}"
        yield f"times     {timestamp(total.first)} to {timestamp(total.last)}"
    else:
        yield f"numbers   the last one given is {summary.position}"
    yield f"file      {size_text(summary.file)}, of which free: {size_text(summary.free)}"
    yield f"log       {size_text(summary.log)}"
    if summary.ids is not None:
        yield f"ids       {summary.ids} known"
    for place, ((identity, name), tally) in enumerate(summary.tallies.items()):
        if place == LISTED:
            yield f"from      {len(summary.tallies) - LISTED} more"
            return
        source = who(identity, name) if identity or name else "anonymous clients"
        yield f"from      {source}: {tally.messages} ({size_text(tally.bytes)}), last at {timestamp(tally.last)}"


def fields(summary: Summary) -> dict[str, Any]:
    """Return the summary as fields of JSON."""
    return {
        "version": summary.version,
        **_tally_fields(summary.total),
        "first": summary.first,
        "last": summary.last,
        "position": summary.position,
        "file_bytes": summary.file,
        "free_bytes": summary.free,
        "log_bytes": summary.log,
        "ids": summary.ids,
        "sources": [
            {"identity": identity, "name": name, **_tally_fields(tally)}
            for (identity, name), tally in summary.tallies.items()
        ],
    }


def _tally_fields(tally: Tally) -> dict[str, Any]:
    return {
        "messages": tally.messages,
        "bytes": tally.bytes,
        "first_time": timestamp(tally.first) if tally.messages else None,
        "last_time": timestamp(tally.last) if tally.messages else None,
    }
