"""
Following a journal: yields each message once and in order, as it is stored.

A poll of an unchanged file costs one read of SQLite's shared memory. When the file is moved away and another is begun
in its place, the rest of the old one comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw

from mtserver.journal.interface import Record
from mtserver.journal.sqlite.file import NotAJournal, inode_of
from mtserver.journal.sqlite.reading import ALL, Filter, open_existing, read_page


class Follower:
    """
    Follower of one path.

    :param after: sequence number behind which it begins.
    :param moved: called when it goes on with a new file.
    """

    def __init__(self, path: Path, after: int, wanted: Filter = ALL, moved: Callable[[], None] = lambda: None) -> None:
        self._path = path.absolute()
        self._after = after
        self._wanted = wanted
        self._moved = moved
        self._connection, self._inode = self._open()
        #: Value of ``data_version``, which changes with each commit, when the end of the file was reached.
        self._seen: int | None = None

    def poll(self) -> list[Record]:
        """Return the next messages, a page at most; none if there are none yet."""
        records = self._next_in_file()
        successor = None if records else self._successor()
        if successor is None:
            return records
        # Once more, for what was stored in the old file before the new one was begun.
        records = self._next_in_file()
        if records:
            successor[0].close()
            return records
        self._switch_to(*successor)
        return self._next_in_file()

    def _next_in_file(self) -> list[Record]:
        """Return the next messages of the open file."""
        # data_version is read before the page, so that what is stored while the page is read counts as new.
        while (version := self._connection.pragma("data_version")) != self._seen:
            page = read_page(self._connection, self._after, self._wanted)
            self._after = page.after
            if page.records:
                return page.records
            if page.is_last:
                self._seen = version
        return []

    def _successor(self) -> tuple[apsw.Connection, tuple[int, int]] | None:
        """Open the file that has taken the place of the open one; None if there is none, or it is not ready."""
        found = inode_of(self._path)
        if found is None or found == self._inode:
            return None
        try:
            connection, inode = self._open()
            if connection.pragma("user_version"):
                return connection, inode
            connection.close()
        except (NotAJournal, apsw.BusyError):
            pass  # not ready yet
        return None

    def _switch_to(self, connection: apsw.Connection, inode: tuple[int, int]) -> None:
        self._connection.close()
        self._connection, self._inode = connection, inode
        self._after, self._seen = 0, None
        self._moved()

    def _open(self) -> tuple[apsw.Connection, tuple[int, int]]:
        while True:
            before = inode_of(self._path)
            connection = open_existing(self._path)
            if before is not None and inode_of(self._path) == before:
                return connection, before
            connection.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
