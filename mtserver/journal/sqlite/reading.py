"""
Reading a journal, in pages: whoever reads holds no snapshot for longer than a page takes, so that the write-ahead log
can be emptied behind it.

Laws:

* Nothing here writes to the file, and an older version is read as it is.
* A page looks at so many messages at most, and holds so many bytes, whatever is looked for among them.
* A message that cannot be one, because the file is damaged, raises :class:`~mtserver.journal.sqlite.file.Damaged`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from mtserver.journal.interface import Last, Record
from mtserver.journal.sqlite import schema
from mtserver.journal.sqlite.dedupe import find_source
from mtserver.journal.sqlite.file import Damaged, NotAJournal, log_path, size_of, whose

#: Milliseconds to wait where the file is locked as a whole, which is rare.
BUSY_TIMEOUT = 5000
#: Messages that a page looks at, at most.
ROWS = 2000
#: Bytes of messages from which on a page is full.
BYTES = 4 * 1024 * 1024

_RECORD = """
    SELECT seq, time, client, address, coalesce(identity, ''), coalesce(name, ''), coalesce(id, ''), message
    FROM messages LEFT JOIN sources USING (source)
"""
#: Of version 1.
_FIRST_RECORD = "SELECT seq, time, client, address, '', '', '', message FROM messages"

#: Of the values of a record.
_KINDS = (int, float, int, str, str, str, str, bytes)


class Filter(NamedTuple):
    """Which messages; each that is not None narrows it down."""

    client: int | None = None
    identity: str | None = None
    name: str | None = None
    id: str | None = None
    #: Received then or later; in seconds since the epoch.
    since: float | None = None
    #: Received before.
    until: float | None = None
    #: With this number at most.
    to: int | None = None

    def up_to(self, sequence: int) -> Filter:
        """The same, and none with a greater number than that."""
        return self._replace(to=sequence if self.to is None else min(sequence, self.to))

    def conditions(self, version: int) -> tuple[str, list[Any]]:
        """As SQL, with what is bound in it."""
        # Version 1 knows neither sources nor ids.
        terms: list[tuple[str, Any]] = [
            (f"coalesce({column}, '') = ?" if version > 1 else "'' = ?", value)
            for column, value in (("identity", self.identity), ("name", self.name), ("id", self.id))
        ]
        terms += [("client = ?", self.client), ("time >= ?", self.since), ("time < ?", self.until)]
        terms += [("seq <= ?", self.to)]
        wanted = [(term, value) for term, value in terms if value is not None]
        return "".join(f" AND {term}" for term, _ in wanted), [value for _, value in wanted]


#: All of them.
ALL = Filter()


class Page(NamedTuple):
    """What a look at some messages has found."""

    records: list[Record]
    #: The number of the last one that was looked at; the next page begins behind it.
    after: int
    #: There is none behind it so far.
    is_last: bool


def open_for_reading(path: Path) -> apsw.Connection:
    """A connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    return connection


def open_existing(path: Path) -> apsw.Connection:
    """
    The same for a file that somebody names.

    :raises NotAJournal: for one that is something else, or nothing.
    """
    if path.is_dir():
        raise NotAJournal("that is a folder")
    if not path.exists():
        raise NotAJournal("there is no such file")
    if not path.is_file():
        raise NotAJournal("that is no file")
    connection = open_for_reading(path.absolute())
    try:
        wrong = schema.stranger(connection)
        if not wrong and not connection.pragma("user_version"):
            wrong = "there is nothing in it yet"
    except apsw.NotADBError:
        wrong = "that is a file, but not a database"
    except apsw.CantOpenError:
        # Nobody may make the files beside it that readers share with writers. So nobody writes: a copy, for instance.
        connection.close()
        connection = _open_unchanging(path)
        wrong = whose(path)
    if wrong:
        connection.close()
        raise NotAJournal(wrong)
    return connection


def _open_unchanging(path: Path) -> apsw.Connection:
    log = log_path(path)
    if size_of(log):
        raise NotAJournal(f"it cannot be read without {log.name}, for which the folder has to be writable")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)


def read(connection: apsw.Connection, after: int, limit: int) -> list[Record]:
    """The next messages after a sequence number."""
    cursor = connection.execute(f"{_RECORD} WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return [Record(*row) for row in cursor]


def read_page(connection: apsw.Connection, after: int, wanted: Filter = ALL) -> Page:
    """Those of the next messages after a number that are wanted."""
    end = page_end(connection, after)
    if end is None:
        return Page([], after, is_last=True)
    version = connection.pragma("user_version")
    conditions, values = wanted.conditions(version)
    sql = f"{_RECORD if version > 1 else _FIRST_RECORD} WHERE seq > ? AND seq <= ?{conditions} ORDER BY seq"
    records: list[Record] = []
    size = 0
    cursor = connection.execute(sql, (after, end, *values))
    try:
        for row in cursor:
            record = _checked(row, after)
            records.append(record)
            size += len(record.message)
            if size > BYTES:
                end = record.sequence
                break
    except UnicodeDecodeError as error:
        raise Damaged(f"a text that is none, in a message behind number {after}: {error}") from None
    finally:
        cursor.close(force=True)
    return Page(records, end, is_last=False)


def page_end(connection: apsw.Connection, after: int, table: str = "messages") -> int | None:
    """The number that a page behind another ends with; None if there is nothing behind it."""
    rows = f"SELECT seq FROM {table} WHERE seq > ? ORDER BY seq LIMIT {ROWS}"
    end = connection.execute(f"SELECT max(seq) FROM ({rows})", (after,)).get
    if end is not None and not (type(end) is int and end > after):
        # Whoever goes on from there goes round in circles.
        raise Damaged(f"{table} are not in the order of their numbers behind {after}")
    return end


def pages(connection: apsw.Connection, after: int = 0, wanted: Filter = ALL) -> Iterator[Page]:
    """All there are."""
    while wanted.to is None or after < wanted.to:
        page = read_page(connection, after, wanted)
        if page.is_last:
            return
        yield page
        after = page.after


def _checked(row: tuple[Any, ...], after: int) -> Record:
    record = Record(*row)
    whole = record.sequence > after and all(type(value) is kind for value, kind in zip(record, _KINDS, strict=True))
    if not whole:
        raise Damaged(f"message {record.sequence} is none: a value is of the wrong kind")
    return record


def before_the_last(connection: apsw.Connection, count: int) -> int:
    """The number behind which there are so many messages, or fewer if there are not so many."""
    if not count:
        return position(connection)
    rows = "SELECT seq FROM messages ORDER BY seq DESC LIMIT ?"
    return int(connection.execute(f"SELECT coalesce(min(seq), 1) FROM ({rows})", (count,)).get) - 1


def before_the_first(connection: apsw.Connection) -> int:
    """The number behind which the first message stands that is still there."""
    return int(connection.execute("SELECT coalesce(min(seq), 1) FROM messages").get) - 1


def position(connection: apsw.Connection) -> int:
    """The sequence number of the last message there has been."""
    return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0)


def last(connection: apsw.Connection, identity: str, name: str) -> Last | None:
    """The last message with an id from there."""
    source = find_source(connection, identity, name)
    found = connection.execute("SELECT last_seq, last_id FROM sources WHERE source = ?", (source,)).fetchone()
    return Last(*found) if found and found[0] else None
