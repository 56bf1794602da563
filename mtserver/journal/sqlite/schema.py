"""
Schema of a journal's file, an interface for other programs that read it. ``docs/journal.md`` explains it.

``PRAGMA user_version`` is the version. A server migrates older files when it opens them, in one transaction, and
refuses newer ones. Readers may rely on the tables and columns of a version; the next may add some at the end, and does
not change the meaning of those that are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

#: ``PRAGMA application_id`` of a journal: "mtsj".
APPLICATION = 0x6D74736A
#: ``PRAGMA user_version`` of the current schema.
VERSION = 2

#: Statements that make each version from the one before.
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
        # Senders: an identity and a name. Anonymous clients without a name have no row here.
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
        # Ids of --dedupe-window, by which duplicates are recognised.
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
        # A view for people with an sqlite3 shell.
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

#: Columns that readers of a version rely on.
_COLUMNS = {
    1: {"messages": {"seq", "time", "client", "address", "message"}},
    2: {
        "messages": {"seq", "time", "client", "address", "message", "source", "id"},
        "sources": {"source", "identity", "name", "last_seq", "last_id", "seen"},
        "ids": {"source", "id", "seq", "time"},
    },
}


def problem(connection: apsw.Connection) -> str:
    """Return why a database is no journal of a known version; empty if it is one, or an empty database."""
    version = connection.pragma("user_version")
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").get:
        return ""
    known = connection.pragma("application_id") in ((0, APPLICATION) if version == 1 else (APPLICATION,))
    # Asked in SQL, since the connection's own copy of the schema may be older than what another process has made.
    has = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'messages')"
    if not known or version < 1 or not connection.execute(has).get:
        return "that is a database, but not a journal"
    if version > VERSION:
        return f"that is a journal of version {version}, from a newer mtserver; this one knows {VERSION}"
    for table, wanted in _COLUMNS[version].items():
        # SQL compares the names, since damaged ones may be no valid text.
        has = "SELECT EXISTS (SELECT * FROM pragma_table_info(?) WHERE name = ?)"
        missing = [column for column in sorted(wanted) if not connection.execute(has, (table, column)).get]
        if missing:
            return f"that is a journal, but its table {table} lacks {', '.join(missing)}"
    return ""


def migrate(connection: apsw.Connection) -> tuple[int, int]:
    """Migrate an empty database or an older journal, inside a transaction; return the versions before and after."""
    before = connection.pragma("user_version")
    for version in range(before + 1, VERSION + 1):
        for statement in _STEPS[version]:
            connection.execute(statement)
        connection.pragma("user_version", version)
    return before, VERSION
