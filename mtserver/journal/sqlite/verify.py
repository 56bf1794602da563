"""
Verification: looks for damage in SQLite's structures and in the journal's.

Laws:

* :class:`Inspection` runs inside a server, page by page, and holds a snapshot only for each page.
* :func:`findings` is thorough; its first part (``integrity_check``) holds one snapshot, and the write-ahead log grows
  meanwhile.
* A changed byte inside a message is found by neither: there is no checksum over messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from mtserver.journal.sqlite.file import QUICK, Damaged, log_path, log_problem, quick_check, size_of
from mtserver.journal.sqlite.reading import open_existing, page_end, position

#: Findings that are listed, at most.
MOST = 20

#: Conditions of damage in one row of messages. The last byte of each message is read, since only that leads through
#: all of its pages.
_MESSAGE_CASES = """
    WHEN typeof(m.time) NOT IN ('real', 'integer') OR typeof(m.client) <> 'integer' OR typeof(m.address) <> 'text'
        OR typeof(m.message) <> 'blob' THEN 'message ' || m.seq || ' has a value of the wrong kind'
    WHEN length(m.message) > 0 AND substr(m.message, -1) IS NULL THEN 'message ' || m.seq || ' has no end'
"""
#: Queries for the damage in a page of a table, in words; by version and table.
_QUERIES: dict[int, dict[str, str]] = {
    1: {
        "messages": f"""
            SELECT CASE {_MESSAGE_CASES} END AS finding
            FROM messages AS m WHERE m.seq > ? AND m.seq <= ? AND finding IS NOT NULL
        """,
    },
    2: {
        "messages": f"""
            SELECT CASE {_MESSAGE_CASES}
                WHEN m.source IS NOT NULL AND s.identity IS NULL
                    THEN 'message ' || m.seq || ' is from source ' || m.source || ', which is not there'
                WHEN m.id IS NOT NULL AND m.source IS NULL
                    THEN 'message ' || m.seq || ' has an id, and no source'
                WHEN m.id IS NOT NULL AND m.seq > s.last_seq
                    THEN 'message ' || m.seq || ' is later than what its source says is the last one, ' || s.last_seq
                WHEN m.seq = s.last_seq AND m.id IS NOT s.last_id
                    THEN 'message ' || m.seq || ' has another id than its source says'
                END AS finding
            FROM messages AS m LEFT JOIN sources AS s USING (source)
            WHERE m.seq > ? AND m.seq <= ? AND finding IS NOT NULL
        """,
        "ids": """
            SELECT CASE
                WHEN s.identity IS NULL
                    THEN 'an id of message ' || i.seq || ' is of source ' || i.source || ', which is not there'
                WHEN m.seq IS NOT NULL AND (m.id IS NOT i.id OR m.source IS NOT i.source)
                    THEN 'an id is said to be of message ' || i.seq || ', which has another'
                END AS finding
            FROM ids AS i LEFT JOIN sources AS s USING (source) LEFT JOIN messages AS m ON m.seq = i.seq
            WHERE i.seq > ? AND i.seq <= ? AND finding IS NOT NULL
        """,
    },
}
#: Queries for the greatest sequence number that a file mentions; by version.
_HIGHEST = {
    1: "SELECT max(seq) FROM messages",
    2: """
        SELECT max(n) FROM (SELECT max(seq) AS n FROM messages UNION ALL SELECT max(seq) FROM ids
            UNION ALL SELECT max(last_seq) FROM sources)
    """,
}


class Inspection:
    """Check of a whole file for damage, in slices of time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Tables that are not checked yet; None before the first step.
        self._tables: list[str] | None = None
        self._after = 0
        #: Whether the whole file is checked, or damage was found.
        self.is_over = False

    def go_on(self, seconds: float) -> str:
        """Check for about so long; return the first damage found, or an empty text."""
        end = time.monotonic() + seconds
        found = ""
        try:
            connection = open_existing(self._path)
            try:
                while not found and not self.is_over and time.monotonic() < end:
                    found = self._step(connection)
            finally:
                connection.close()
        except (apsw.CorruptError, apsw.NotADBError, Damaged, UnicodeDecodeError) as error:
            found = str(error)
        except (OSError, apsw.Error):
            pass  # away or busy, which may pass
        self.is_over = self.is_over or bool(found)
        return found

    def _step(self, connection: apsw.Connection) -> str:
        version = connection.pragma("user_version")
        if self._tables is None:
            self._tables = [*_QUERIES.get(version, ())]
            # SQLite's own check holds one snapshot, so it is only for files where that is soon over.
            return quick_check(connection) if size_of(self._path) <= QUICK else ""
        if not self._tables:
            self.is_over = True
            return ""
        after, found = _check_page(connection, version, self._tables[0], self._after)
        if after is None:
            del self._tables[0]
        self._after = after or 0
        return next(iter(found), "")


def findings(path: Path, connection: apsw.Connection, at: Callable[[int], object]) -> Iterator[str]:
    """
    Yield what is wrong with a journal, in words.

    :param at: called with the sequence number up to which the table in turn is checked.
    """
    try:
        yield from _findings(path, connection, at)
    except (apsw.CorruptError, Damaged, UnicodeDecodeError) as error:
        yield str(error)  # nothing behind it can be read


def _findings(path: Path, connection: apsw.Connection, at: Callable[[int], object]) -> Iterator[str]:
    wrong = log_problem(path)
    if wrong:
        yield wrong
    # The sizes come first, since a server that writes makes the file grow meanwhile.
    size, log = size_of(path), size_of(log_path(path))
    if not log and size < connection.pragma("page_count") * connection.pragma("page_size"):
        yield "its end is missing"
    for (text,) in connection.execute(f"PRAGMA integrity_check({MOST})"):
        if text != "ok":
            yield from (line for line in str(text).splitlines() if not line.startswith("***"))
    version = connection.pragma("user_version")
    highest = connection.execute(_HIGHEST[version]).get or 0
    # Read afterwards, since a server that writes makes it greater.
    known = position(connection)
    if highest > known:
        yield f"there is a number {highest}, but the last one given is said to be {known}"
    for table in _QUERIES[version]:
        after: int | None = 0
        while after is not None:
            after, found = _check_page(connection, version, table, after)
            yield from found
            at(after or 0)


def _check_page(connection: apsw.Connection, version: int, table: str, after: int) -> tuple[int | None, list[str]]:
    """Return the end of the page of a table behind a number, None if there is none, and what is wrong in the page."""
    end = page_end(connection, after, table)
    if end is None:
        return None, []
    return end, [str(text) for (text,) in connection.execute(_QUERIES[version][table], (after, end))]
