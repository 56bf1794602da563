"""
Reading a journal, in pages: whoever reads holds no snapshot for longer than a page takes, so that the write-ahead log
can be emptied behind it.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from mtserver.journal import Last, Record
from mtserver.journal.ids import find_source

#: Milliseconds to wait where the file is locked as a whole, which is rare.
BUSY_TIMEOUT = 5000

_RECORD = """
    SELECT seq, time, client, address, coalesce(identity, ''), coalesce(name, ''), coalesce(id, ''), message
    FROM messages LEFT JOIN sources USING (source)
"""


def open_for_reading(path: Path) -> apsw.Connection:
    """A connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    return connection


def read(connection: apsw.Connection, after: int, limit: int) -> list[Record]:
    """A page: the next messages after a sequence number."""
    cursor = connection.execute(f"{_RECORD} WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return [Record(*row) for row in cursor]


def position(connection: apsw.Connection) -> int:
    """The sequence number of the last message there has been."""
    return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0)


def last(connection: apsw.Connection, identity: str, name: str) -> Last | None:
    """The last message with an id from there."""
    source = find_source(connection, identity, name)
    found = connection.execute("SELECT last_seq, last_id FROM sources WHERE source = ?", (source,)).fetchone()
    return Last(*found) if found and found[0] else None
