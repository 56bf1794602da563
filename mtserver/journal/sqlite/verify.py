"""
Looking for damage: what SQLite can tell of its own structure, and what must hold of ours.

Laws:

* Beside a server that writes, the look goes by pages (:class:`Inspection`); each holds a snapshot for a moment.
* :func:`findings` is thorough, and in its first part (``integrity_check``) one snapshot: the write-ahead log grows
  meanwhile, and is emptied afterwards.
* A byte that has changed within a message is still a message: neither SQLite nor this sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from mtserver.journal.sqlite.file import QUICK, Damaged, log_of_another, log_path, quick_check, size_of
from mtserver.journal.sqlite.reading import open_existing, page_end, position

#: Findings that are told, at most.
MOST = 20

#: What is wrong with a message, by itself.
_OF_A_MESSAGE = """
    WHEN typeof(m.time) NOT IN ('real', 'integer') OR typeof(m.client) <> 'integer' OR typeof(m.address) <> 'text'
        OR typeof(m.message) <> 'blob' THEN 'message ' || m.seq || ' has a value of the wrong kind'
    WHEN length(m.message) > 0 AND substr(m.message, -1) IS NULL THEN 'message ' || m.seq || ' has no end'
"""
#: For each table of a version what is wrong in a page of it, in words. The last byte of each message is looked
#: at, since nothing else leads through all of its pages.
_LOOKS: dict[int, dict[str, str]] = {
    1: {
        "messages": f"""
            SELECT CASE {_OF_A_MESSAGE} END AS finding
            FROM messages AS m WHERE m.seq > ? AND m.seq <= ? AND finding IS NOT NULL
        """,
    },
    2: {
        "messages": f"""
            SELECT CASE {_OF_A_MESSAGE}
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
#: In tables that are small, at once.
_NUMBERS = {
    1: "SELECT max(seq) FROM messages",
    2: """
        SELECT max(n) FROM (SELECT max(seq) AS n FROM messages UNION ALL SELECT max(seq) FROM ids
            UNION ALL SELECT max(last_seq) FROM sources)
    """,
}


class Inspection:
    """A look through a file, page by page, whenever there is time for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: list[str] | None = None
        self._after = 0
        #: Nothing more is to be looked at.
        self.is_over = False

    def go_on(self, seconds: float) -> str:
        """Look for about so long; what was found first, or an empty text."""
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
        if self._left is None:
            self._left = [*_LOOKS.get(version, ())]
            # In one snapshot only where that is soon over.
            return quick_check(connection) if size_of(self._path) <= QUICK else ""
        if not self._left:
            self.is_over = True
            return ""
        after, found = _look_at_page(connection, version, self._left[0], self._after)
        if after is None:
            del self._left[0]
        self._after = after or 0
        return next(iter(found), "")


def findings(path: Path, connection: apsw.Connection, at: Callable[[int], object]) -> Iterator[str]:
    """
    What is wrong with a journal, in words, as far as it can be told.

    :param at: called with the sequence number that has been looked at.
    """
    try:
        yield from _findings(path, connection, at)
    except (apsw.CorruptError, Damaged, UnicodeDecodeError) as error:
        yield str(error)  # and nothing can be told of what is behind


def _findings(path: Path, connection: apsw.Connection, at: Callable[[int], object]) -> Iterator[str]:
    wrong = log_of_another(path)
    if wrong:
        yield wrong
    # Before the look: a server that writes makes it grow.
    size, log = size_of(path), size_of(log_path(path))
    if not log and size < connection.pragma("page_count") * connection.pragma("page_size"):
        yield "its end is missing"
    for (text,) in connection.execute(f"PRAGMA integrity_check({MOST})"):
        if text != "ok":
            yield from (line for line in str(text).splitlines() if not line.startswith("***"))
    version = connection.pragma("user_version")
    highest = connection.execute(_NUMBERS[version]).get or 0
    # Read later than that, it can only be greater.
    known = position(connection)
    if highest > known:
        yield f"there is a number {highest}, but the last one given is said to be {known}"
    for table in _LOOKS[version]:
        after: int | None = 0
        while after is not None:
            after, found = _look_at_page(connection, version, table, after)
            yield from found
            at(after or 0)


def _look_at_page(connection: apsw.Connection, version: int, table: str, after: int) -> tuple[int | None, list[str]]:
    """What is wrong in the page of a table behind a number; and the page's end, if there is one."""
    end = page_end(connection, after, table)
    if end is None:
        return None, []
    return end, [str(text) for (text,) in connection.execute(_LOOKS[version][table], (after, end))]
