"""
The schema: what stands in a journal's file, as an interface for those who read it. ``docs/journal.md`` explains it.

A version is what ``PRAGMA user_version`` says. Older ones are brought forward when a server opens them, in one
transaction; newer ones are refused. Readers of a version may rely on its tables and columns; columns and tables may be
added in the next, at the end, and their meanings stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

#: In the file's header, ``PRAGMA application_id``: "mtsj".
APPLICATION = 0x6D74736A
#: In the file's header, ``PRAGMA user_version``.
VERSION = 2

#: What each version has that the one before it has not.
_STEPS: dict[int, Sequence[str]] = {
    1: (
        """
        CREATE TABLE messages (
            seq     INTEGER PRIMARY KEY AUTOINCREMENT,
            time    REAL    NOT NULL,  -- when it was received, in seconds since the epoch
            client  INTEGER NOT NULL,  -- its number since the server's start
            address TEXT    NOT NULL,
            message BLOB    NOT NULL
        )
        """,
    ),
    2: (
        # Who sends: an identity, and among those with it a name. Anonymous clients without a name have no row here.
        """
        CREATE TABLE sources (
            source   INTEGER PRIMARY KEY,
            identity TEXT    NOT NULL,  -- empty: none
            name     TEXT    NOT NULL,  -- what the client calls itself (RESUME); empty: nothing
            last_seq INTEGER NOT NULL DEFAULT 0,   -- of its last message with an id
            last_id  TEXT    NOT NULL DEFAULT '',  -- and the id
            seen     REAL    NOT NULL DEFAULT 0,   -- when it was last heard of; perhaps up to an hour later
            UNIQUE (identity, name)
        )
        """,
        "ALTER TABLE messages ADD COLUMN source INTEGER",  # NULL: anonymous, and without a name
        "ALTER TABLE messages ADD COLUMN id TEXT",  # as the client has numbered it; NULL: it has not
        # The ids that would be recognised if they came again: those of --dedupe-window.
        """
        CREATE TABLE ids (
            source INTEGER NOT NULL,
            id     TEXT    NOT NULL,
            seq    INTEGER NOT NULL,
            time   REAL    NOT NULL,
            PRIMARY KEY (source, id)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX ids_by_seq ON ids (seq, time)",
        # For people with a shell.
        """
        CREATE VIEW journal AS
            SELECT seq, datetime(time, 'unixepoch') AS time, client, address, identity, name, id,
                CAST(message AS TEXT) AS message
            FROM messages LEFT JOIN sources USING (source)
        """,
        f"PRAGMA application_id = {APPLICATION}",
    ),
}

#: Tables and views that are the journal's own, by the names that SQLite knows them by.
OWN = frozenset({"messages", "sources", "ids", "ids_by_seq", "journal", "sqlite_sequence"})

#: What readers of a version rely on.
_COLUMNS = {
    1: {"messages": {"seq", "time", "client", "address", "message"}},
    2: {
        "messages": {"seq", "time", "client", "address", "message", "source", "id"},
        "sources": {"source", "identity", "name", "last_seq", "last_id", "seen"},
        "ids": {"source", "id", "seq", "time"},
    },
}


def stranger(connection: apsw.Connection) -> str:
    """What is wrong with a database that is to be a journal, for good; an empty text if nothing is."""
    version = connection.pragma("user_version")
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").get:
        return ""  # an empty file becomes one
    known = connection.pragma("application_id") in ((0, APPLICATION) if version == 1 else (APPLICATION,))
    # Asked in SQL: what the connection remembers of the schema may be from before another process has made it.
    has = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'messages')"
    if not known or version < 1 or not connection.execute(has).get:
        return "that is a database, but not a journal"
    if version > VERSION:
        return f"that is a journal of version {version}, from a newer mtserver; this one knows {VERSION}"
    for table, wanted in _COLUMNS[version].items():
        # Names are compared there, since damaged ones may be no text.
        has = "SELECT EXISTS (SELECT * FROM pragma_table_info(?) WHERE name = ?)"
        missing = [column for column in sorted(wanted) if not connection.execute(has, (table, column)).get]
        if missing:
            return f"that is a journal, but its table {table} lacks {', '.join(missing)}"
    return ""


def migrate(connection: apsw.Connection) -> tuple[int, int]:
    """Make of an empty database, or of an older journal, one of this version, in a transaction that runs already."""
    before = connection.pragma("user_version")
    for version in range(before + 1, VERSION + 1):
        for statement in _STEPS[version]:
            connection.execute(statement)
        connection.pragma("user_version", version)
    return before, VERSION
