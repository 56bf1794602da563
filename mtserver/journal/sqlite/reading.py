"""
Reading a journal, in pages: a reader holds no snapshot for longer than a page takes, so that the write-ahead log can
restart behind it.

Laws:

* Nothing here writes to the file, and an older version is read as it is.
* A page scans a bounded number of messages and holds a bounded number of bytes, whatever the filter.
* A row that is no message, because the file is damaged, raises :class:`~mtserver.journal.sqlite.file.Damaged`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from mtserver.journal.interface import Last, Record
from mtserver.journal.sqlite import schema
from mtserver.journal.sqlite.dedupe import find_source
from mtserver.journal.sqlite.file import Damaged, NotAJournal, file_problem, log_path, size_of

#: Milliseconds to wait where the file is locked as a whole, which is rare.
BUSY_TIMEOUT = 5000
#: Messages that a page scans, at most.
ROWS = 2000
#: Bytes of messages from which on a page is full.
BYTES = 4 * 1024 * 1024

_RECORD = """
    SELECT seq, time, client, address, coalesce(identity, ''), coalesce(name, ''), coalesce(id, ''), message
    FROM messages LEFT JOIN sources USING (source)
"""
_RECORD_V1 = "SELECT seq, time, client, address, '', '', '', message FROM messages"

#: Types of the values of a record.
_KINDS = (int, float, int, str, str, str, str, bytes)


class Filter(NamedTuple):
    """Filter for messages; each field that is not None narrows it down."""

    client: int | None = None
    identity: str | None = None
    name: str | None = None
    id: str | None = None
    #: Earliest time of reception, in seconds since the epoch.
    since: float | None = None
    #: Time before which messages were received.
    until: float | None = None
    #: Greatest sequence number.
    to: int | None = None

    def up_to(self, sequence: int) -> Filter:
        """Return this filter without the messages of greater numbers."""
        return self._replace(to=sequence if self.to is None else min(sequence, self.to))

    def conditions(self, version: int) -> tuple[str, list[Any]]:
        """Return the filter as SQL, with its bindings."""
        # Version 1 has neither sources nor ids.
        terms: list[tuple[str, Any]] = [
            (f"coalesce({column}, '') = ?" if version > 1 else "'' = ?", value)
            for column, value in (("identity", self.identity), ("name", self.name), ("id", self.id))
        ]
        terms += [("client = ?", self.client), ("time >= ?", self.since), ("time < ?", self.until)]
        terms += [("seq <= ?", self.to)]
        wanted = [(term, value) for term, value in terms if value is not None]
        return "".join(f" AND {term}" for term, _ in wanted), [value for _, value in wanted]


#: Filter that passes all messages.
ALL = Filter()


class Page(NamedTuple):
    """Messages that a scan of one page has found."""

    records: list[Record]
    #: Number of the last message scanned; the next page begins behind it.
    after: int
    #: Whether there is no message behind the page so far.
    is_last: bool


def open_for_reading(path: Path) -> apsw.Connection:
    """Open a connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    return connection


def open_existing(path: Path) -> apsw.Connection:
    """
    Open a connection that cannot write, to a file that a user has named.

    :raises NotAJournal: if there is no file, or it is something else.
    """
    if path.is_dir():
        raise NotAJournal("that is a folder")
    if not path.exists():
        raise NotAJournal("there is no such file")
    if not path.is_file():
        raise NotAJournal("that is no file")
    connection = open_for_reading(path.absolute())
    try:
        wrong = schema.problem(connection)
        if not wrong and not connection.pragma("user_version"):
            wrong = "there is nothing in it yet"
    except apsw.NotADBError:
        wrong = "that is a file, but not a database"
    except apsw.CantOpenError:
        # The folder does not allow the side files that readers share with writers, so nobody writes: a copy, say.
        connection.close()
        connection = _open_unchanging(path)
        wrong = file_problem(path)
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
    """Read the messages that follow a sequence number."""
    cursor = connection.execute(f"{_RECORD} WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return [Record(*row) for row in cursor]


def read_page(connection: apsw.Connection, after: int, wanted: Filter = ALL) -> Page:
    """Scan the page that follows a sequence number."""
    end = page_end(connection, after)
    if end is None:
        return Page([], after, is_last=True)
    version = connection.pragma("user_version")
    conditions, values = wanted.conditions(version)
    sql = f"{_RECORD if version > 1 else _RECORD_V1} WHERE seq > ? AND seq <= ?{conditions} ORDER BY seq"
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
    """Return the number with which the page that follows a number ends; None if nothing follows."""
    rows = f"SELECT seq FROM {table} WHERE seq > ? ORDER BY seq LIMIT {ROWS}"
    end = connection.execute(f"SELECT max(seq) FROM ({rows})", (after,)).get
    if end is not None and not (type(end) is int and end > after):
        # Going on from there would never end.
        raise Damaged(f"{table} are not in the order of their numbers behind {after}")
    return end


def pages(connection: apsw.Connection, after: int = 0, wanted: Filter = ALL) -> Iterator[Page]:
    """Yield all pages that follow a sequence number."""
    while wanted.to is None or after < wanted.to:
        page = read_page(connection, after, wanted)
        if page.is_last:
            return
        yield page
        after = page.after


def _checked(row: tuple[Any, ...], after: int) -> Record:
    record = Record(*row)
    is_valid = record.sequence > after and all(type(value) is kind for value, kind in zip(record, _KINDS, strict=True))
    if not is_valid:
        raise Damaged(f"message {record.sequence} is none: a value is of the wrong kind")
    return record


def before_the_last(connection: apsw.Connection, count: int) -> int:
    """Return the number behind which the last `count` messages stand, or all if there are fewer."""
    if not count:
        return position(connection)
    rows = "SELECT seq FROM messages ORDER BY seq DESC LIMIT ?"
    return int(connection.execute(f"SELECT coalesce(min(seq), 1) FROM ({rows})", (count,)).get) - 1


def before_the_first(connection: apsw.Connection) -> int:
    """Return the number behind which the first message stands that is still kept."""
    return int(connection.execute("SELECT coalesce(min(seq), 1) FROM messages").get) - 1


def position(connection: apsw.Connection) -> int:
    """Return the last sequence number given; 0 if there is none."""
    return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0)


def last(connection: apsw.Connection, identity: str, name: str) -> Last | None:
    """Return the last message with an id of a source; None if there is none."""
    source = find_source(connection, identity, name)
    found = connection.execute("SELECT last_seq, last_id FROM sources WHERE source = ?", (source,)).fetchone()
    return Last(*found) if found and found[0] else None
