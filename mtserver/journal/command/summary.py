"""What is in a journal, in numbers: how many messages, by whom, since when, and how much room they take."""

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

#: Sources that are named, at most: those with most messages.
NAMED = 20


class Share(NamedTuple):
    """Of one source."""

    messages: int
    bytes: int
    #: In seconds since the epoch, and so is the next.
    first: float
    last: float

    def joined(self, other: Share) -> Share:
        """Of both together."""
        return Share(
            self.messages + other.messages,
            self.bytes + other.bytes,
            min(self.first, other.first),
            max(self.last, other.last),
        )


#: Of nobody.
NOTHING = Share(0, 0, math.inf, -math.inf)


class Summary(NamedTuple):
    """Of a file."""

    version: int
    #: Of the messages that are kept; None: there is none.
    first: int | None
    last: int | None
    #: The last number that was given.
    position: int
    #: By identity and name; of anonymous clients, both are empty.
    shares: dict[tuple[str, str], Share]
    file: int
    free: int
    log: int
    #: None: the version knows none.
    ids: int | None

    @property
    def total(self) -> Share:
        """Of all sources."""
        return functools.reduce(Share.joined, self.shares.values(), NOTHING)


def summarise(path: Path, connection: apsw.Connection, at: Callable[[int], None]) -> Summary:
    """
    Count, in pages.

    :param at: called with the sequence number that has been looked at.
    """
    version = connection.pragma("user_version")
    shares: dict[int, Share] = {}
    first = connection.execute("SELECT min(seq) FROM messages").get
    after = 0
    while (end := page_end(connection, after)) is not None:
        for source, *share in _page(connection, version, after, end):
            shares[source] = shares.get(source, NOTHING).joined(Share(*share))
        at(end)
        after = end
    return Summary(
        version=version,
        first=first,
        last=after or None,
        position=position(connection),
        shares=_by_name(connection, shares),
        file=size_of(path),
        # As of now, be it that the file is what it was at the last checkpoint.
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


def _by_name(connection: apsw.Connection, shares: dict[int, Share]) -> dict[tuple[str, str], Share]:
    named: dict[tuple[str, str], Share] = {}
    for source, share in sorted(shares.items(), key=lambda item: -item[1].messages):
        found = (
            source and connection.execute("SELECT identity, name FROM sources WHERE source = ?", (source,)).fetchone()
        )
        key = found or ("", "")
        named[key] = named.get(key, NOTHING).joined(share)
    return named


def lines(summary: Summary) -> Iterator[str]:
    """For people."""
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
    for place, ((identity, name), share) in enumerate(summary.shares.items()):
        if place == NAMED:
            yield f"from      {len(summary.shares) - NAMED} more"
            return
        source = who(identity, name) if identity or name else "anonymous clients"
        yield f"from      {source}: {share.messages} ({size_text(share.bytes)}), last at {timestamp(share.last)}"


def fields(summary: Summary) -> dict[str, Any]:
    """For programs."""
    total = summary.total
    return {
        "version": summary.version,
        "messages": total.messages,
        "bytes": total.bytes,
        "first": summary.first,
        "last": summary.last,
        "position": summary.position,
        "first_time": timestamp(total.first) if total.messages else None,
        "last_time": timestamp(total.last) if total.messages else None,
        "file_bytes": summary.file,
        "free_bytes": summary.free,
        "log_bytes": summary.log,
        "ids": summary.ids,
        "sources": [
            {
                "identity": identity,
                "name": name,
                "messages": share.messages,
                "bytes": share.bytes,
                "first_time": timestamp(share.first),
                "last_time": timestamp(share.last),
            }
            for (identity, name), share in summary.shares.items()
        ],
    }
