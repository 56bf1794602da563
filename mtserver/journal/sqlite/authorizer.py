"""
Authorizer: limits what a handler's statements may do in the journal's transaction.

Forbidden are the end of the transaction, pragmas, other files, temporary tables (the next transaction would find them
on the connection), and any change of the journal's own tables. SQLite asks about each action of a statement when it
compiles it (https://sqlite.org/c3ref/set_authorizer.html).
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
    apsw.SQLITE_CREATE_TEMP_TABLE,
    apsw.SQLITE_CREATE_TEMP_INDEX,
    apsw.SQLITE_CREATE_TEMP_VIEW,
    apsw.SQLITE_CREATE_TEMP_TRIGGER,
}
_READING = {apsw.SQLITE_READ, apsw.SQLITE_SELECT}


class Authorizer:
    """Authorizer of one connection at a time."""

    def __init__(self) -> None:
        #: Whether a handler's statement is under way. Any thread may read it.
        self.is_restricted = False

    def attach(self, connection: apsw.Connection) -> None:
        """Authorize the statements of a new connection."""
        connection.authorizer = self._authorize

    @contextmanager
    def restricted(self) -> Iterator[None]:
        """
        Treat the statements in this block as a handler's.

        Cached statements are compiled already, and would not be asked about.
        """
        self.is_restricted = True
        try:
            yield
        finally:
            self.is_restricted = False

    def _authorize(self, action: int, one: str | None, two: str | None, _database: Any, _trigger: Any) -> int:
        if self.is_restricted and (
            action in _FORBIDDEN or (action not in _READING and (one in schema.OWN or two in schema.OWN))
        ):
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK
