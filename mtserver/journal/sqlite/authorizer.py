"""
The guard: what a handler's statements may do in the journal's transaction, and what they may not.

They may not end it, change how it is kept, look into other files, leave something to those who come after, or touch the
journal's own tables but by reading. It is SQLite that asks, for each thing that a statement would do
(https://sqlite.org/c3ref/set_authorizer.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from mtserver.journal.sqlite import schema

_FORBIDDEN = {
    apsw.SQLITE_TRANSACTION,
    apsw.SQLITE_SAVEPOINT,
    apsw.SQLITE_ATTACH,
    apsw.SQLITE_DETACH,
    apsw.SQLITE_PRAGMA,
    # Of the connection, which others have after it.
    apsw.SQLITE_CREATE_TEMP_TABLE,
    apsw.SQLITE_CREATE_TEMP_INDEX,
    apsw.SQLITE_CREATE_TEMP_VIEW,
    apsw.SQLITE_CREATE_TEMP_TRIGGER,
}
_READING = {apsw.SQLITE_READ, apsw.SQLITE_SELECT}


class Guard:
    """Of one connection at a time."""

    def __init__(self) -> None:
        #: A handler's statement is under way. Any thread may read it.
        self.is_up = False

    def watch(self, connection: apsw.Connection) -> None:
        """The connection is a new one."""
        connection.authorizer = self._authorize

    @contextmanager
    def up(self) -> Iterator[None]:
        """Inside, statements are a handler's. They must not come from the cache: SQLite asks when it compiles them."""
        self.is_up = True
        try:
            yield
        finally:
            self.is_up = False

    def _authorize(self, action: int, one: str | None, two: str | None, _database: Any, _trigger: Any) -> int:
        if self.is_up and (
            action in _FORBIDDEN or (action not in _READING and (one in schema.OWN or two in schema.OWN))
        ):
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK
