"""
The writer: the one connection that writes, with what makes its next attempt a sound one after each that failed.

All of it runs in one thread, one call at a time; :mod:`mtserver.journal.sqlite` sees to that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import Logger

from mtserver.errors import Unavailable
from mtserver.journal import Batch, Stored, ids, schema
from mtserver.journal.checkpoints import Checkpoints, LogFullError
from mtserver.journal.file import (
    Damaged,
    NotAJournal,
    identity,
    is_loss,
    open_for_writing,
    remove_leftovers,
    shared_path,
    sync_log,
)
from mtserver.journal.options import EVERYTHING, Keep
from mtserver.journal.retention import Account, Retention
from mtserver.journal.statements import Rows, inserts
from mtserver.threads import Workers

_log = Logger("mtserver.journal")

#: What a handler's statements may not do: end the transaction, change how it is kept, look into other files.
_FORBIDDEN = {
    apsw.SQLITE_TRANSACTION,
    apsw.SQLITE_SAVEPOINT,
    apsw.SQLITE_ATTACH,
    apsw.SQLITE_DETACH,
    apsw.SQLITE_PRAGMA,
}
#: Errors of the storage, and not of a statement.
_STORAGE = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NotADBError)
#: What they may do to the journal's own tables.
_READING = {apsw.SQLITE_READ, apsw.SQLITE_SELECT}


class Writer:
    """
    Writes to one file.

    :param fast: commits do not wait for the disk.
    :param window: how long ids are known.
    :param keep: how much is kept.
    :param checkpointer: a thread for what may take longer than a client should wait.
    """

    def __init__(
        self, path: Path, *, fast: bool, window: ids.Window, checkpointer: Workers, keep: Keep = EVERYTHING
    ) -> None:
        self._path = path
        self._fast = fast
        self._window = window
        self._retention = Retention(keep)
        self._account = Account(str(path))
        self._connection: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._shared: tuple[int, int] | None = None
        self._checkpoints = Checkpoints(path, checkpointer)
        self._sources = ids.Sources()
        self._version = 0
        self._has_ids = False
        self._warned = False
        self._guarded = False
        self._stopped = ""
        #: Why nothing can be stored; empty while all is well. Any thread may read it.
        self.trouble = ""

    def open(self) -> Unavailable | None:
        """See that there is a connection, with all that others have committed on disk; or what clients are told."""
        if self._connection is None:
            try:
                if self._stopped:
                    raise OSError(self._stopped)
                self._connected()
            except Exception as error:
                return self._failed(error)
            self._well()
        return None

    # Batches.

    def commit(self, batches: Sequence[Batch]) -> list[Stored] | Unavailable:
        """Store these in one transaction, all or none; or what clients are told."""
        try:
            connection = self._begin()
            try:
                stored = self._insert(connection, batches)
                self._end(connection, stored)
            except BaseException:
                self._roll_back()
                raise
        except Exception as error:  # whatever it is, it is not stored, and nobody may be told it is
            return self._failed(error)
        self._well()
        return stored

    # One transaction that somebody else has a part in: begun, used, and committed or rolled back.

    def begin(self, batch: Batch | None) -> Stored | Unavailable:
        """Begin one with this batch in it. If it is a duplicate there is no transaction afterwards."""
        try:
            connection = self._begin()
            try:
                (stored,) = self._insert(connection, [batch]) if batch is not None else [Stored(())]
                if stored.duplicates:
                    self._end(connection, [stored])
            except BaseException:
                self._roll_back()
                raise
        except Exception as error:
            return self._failed(error)
        return stored

    def execute(self, sql: str, bindings: Any) -> list[tuple[Any, ...]]:
        """Execute a handler's statement in it."""
        with self._guarding() as connection:
            # Not from the cache: there might be one of ours, and the authorizer looks at what is new.
            return list(connection.execute(sql, bindings, can_cache=False))

    def executemany(self, sql: str, bindings: Sequence[Any]) -> None:
        """The same for many bindings."""
        with self._guarding() as connection:
            connection.executemany(sql, bindings, can_cache=False)

    @contextmanager
    def _guarding(self) -> Iterator[apsw.Connection]:
        """Inside, statements are a handler's; what is not its mistake is no error of its."""
        connection = self._in_transaction()
        self._guarded = True
        try:
            yield connection
        except _STORAGE as error:
            raise self._failed(error) from None
        finally:
            self._guarded = False

    def commit_with(self, batches: Sequence[Batch]) -> list[Stored] | Unavailable:
        """Commit it, with these batches."""
        try:
            connection = self._in_transaction()
            try:
                stored = self._insert(connection, batches)
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except Exception as error:
            return self._failed(error)
        self._well()
        return stored

    def roll_back(self) -> None:
        """Undo it."""
        try:
            self._roll_back()
        except apsw.Error as error:
            self._failed(error)

    def _in_transaction(self) -> apsw.Connection:
        connection = self._connection
        if connection is None or not connection.in_transaction:
            # Some errors (a full disk) end it.
            raise OSError("the transaction was rolled back")
        return connection

    # What takes its time.

    def between_commits(self, *, again: bool = False) -> None:
        """What nobody should wait for: whoever waited for the last commit has been told, and the next has not begun."""
        if self._connection is None or self._stopped:
            return
        try:
            self._checkpoints.advance(self._connection, again=again)
        except Exception as error:
            self._failed(error)

    def chores(self) -> bool:
        """What is to be done once in a while, in bounded time; whether there is more of it."""
        # A file that is away is tried again, so that it is known to be back before a client asks.
        if self._stopped or self.open() is not None:
            return False
        if self._has_ids:
            self._prune_ids()
        return self._retention.is_asked_for and self._retain()

    def _retain(self) -> bool:
        now = time.time()
        try:
            connection = self._begin()
            try:
                step = self._retention.step(connection, now)
                if step.sources:
                    self._sources.forget()
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except apsw.BusyError:
            return False  # nobody waits for it
        except Exception as error:
            self._failed(error)
            return False
        self._account.add(step, now)
        return step.more

    def _prune_ids(self) -> None:
        try:
            connection = self._begin()
            try:
                early = ids.prune(connection, time.time(), self._window)
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except Exception as error:
            self._failed(error)
            return
        if early is not None and not self._warned:
            self._warned = True
            _log.warn(
                "ids are forgotten after {age:.0f} s already, since there are more than --dedupe-messages {messages}",
                age=time.time() - early,
                messages=self._window.messages,
            )

    def stop(self, damage: str) -> None:
        """Store nothing any more: the file is damaged."""
        self._failed(Damaged(damage))

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._checkpoints.close()
                if self._stopped:
                    # SQLite would write the log into the database, sync what may be lost in it already, and throw the
                    # log away. It stays: the next start begins with it.
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()
            except apsw.Error as error:
                _log.warn("closing the journal {path}: {error}", path=str(self._path), error=str(error))

    # Inside.

    def _begin(self) -> apsw.Connection:
        if self._stopped:
            raise OSError(self._stopped)
        connection = self._connected()
        self._checkpoints.check()
        # IMMEDIATE: the lock comes before the number, so another process on the same file gets others.
        connection.execute("BEGIN IMMEDIATE")
        version = connection.pragma("data_version")
        if version != self._version:
            self._version = version  # somebody else has written, and may have removed sources
            self._sources.forget()
        return connection

    def _insert(self, connection: apsw.Connection, batches: Sequence[Batch]) -> list[Stored]:
        """Number and insert them, in a transaction that has begun."""
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0
        following = last + 1
        stored: list[Stored] = []
        rows: list[Rows] = []
        lasts: dict[int, tuple[int, str]] = {}
        for batch in batches:
            received, client, address, messages, owner, name, numbered = batch
            source = self._sources.number(connection, owner, name, received) if owner or name else None
            if numbered:
                outcome, messages, numbered = self._new_of(connection, source, batch, following)
                if messages:
                    lasts[source or 0] = (following + len(messages) - 1, numbered[-1])
            else:
                outcome = Stored(range(following, following + len(messages)))
            following += len(messages)
            stored.append(outcome)
            rows.append((received, client, address, messages, source, numbered))
        for statement, values in inserts(rows):
            connection.execute(statement, values)
        # AUTOINCREMENT has numbered them in their order, without gaps, since nobody else can write meanwhile.
        if following - 1 != last and connection.last_insert_rowid() != following - 1:
            raise OSError("the messages were not numbered one after another")
        if lasts:
            self._has_ids = True
            values_of = [(sequence, last_id, source) for source, (sequence, last_id) in lasts.items()]
            connection.executemany("UPDATE sources SET last_seq = ?, last_id = ? WHERE source = ?", values_of)
        return stored

    def _new_of(
        self, connection: apsw.Connection, source: int | None, batch: Batch, following: int
    ) -> tuple[Stored, Sequence[bytes], Sequence[str]]:
        """What becomes of a batch with ids, and those of its messages (and their ids) that are new."""
        if source is None or len(batch.ids) != len(batch.messages):
            raise ValueError("messages with ids have one each, and an identity or a name")
        known = ids.known(connection, source, batch, self._window)
        if not known and len(set(batch.ids)) == len(batch.ids):
            sequences: Sequence[int] = range(following, following + len(batch.ids))
            ids.remember(connection, source, batch.time, list(zip(batch.ids, sequences, strict=True)))
            return Stored(sequences), batch.messages, batch.ids
        numbers, duplicates = [], set()
        new: list[tuple[str, int]] = []
        messages: list[bytes] = []
        for place, (message, name) in enumerate(zip(batch.messages, batch.ids, strict=True)):
            number = known.get(name)
            if number is None:
                number = known[name] = following + len(new)
                new.append((name, number))
                messages.append(message)
            else:
                duplicates.add(place)
            numbers.append(number)
        ids.remember(connection, source, batch.time, new)
        return Stored(numbers, frozenset(duplicates)), messages, [name for name, _ in new]

    def _end(self, connection: apsw.Connection, stored: Sequence[Stored]) -> None:
        connection.execute("COMMIT")
        wrote = any(len(outcome.sequences) > len(outcome.duplicates) for outcome in stored)
        if stored and not wrote and not self._fast:
            # Somebody else has committed what these are duplicates of, and perhaps not waited for the disk.
            sync_log(self._path)

    def _connected(self) -> apsw.Connection:
        if self._connection is not None and self._identity != identity(self._path):
            # Moved or removed under us. SQLite would go on writing to a file that nobody will find again.
            _log.warn("the journal {path} was moved or replaced; going on with a new one", path=str(self._path))
            # SQLite looks for the write-ahead log by its name. What is still in it has to go into the old file now:
            # left there, it would be deleted with the next open, or taken for a part of the new file.
            self._checkpoints.close()
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.close()
            remove_leftovers(self._path, self._shared)
        if self._connection is None:
            self._connection = connection = open_for_writing(self._path, fast=self._fast)
            connection.authorizer = self._authorize
            self._checkpoints.open(connection)
            self._identity = identity(self._path)
            self._shared = identity(shared_path(self._path))
            self._sources.forget()
            # Those of an earlier process have to leave the window as well.
            self._has_ids = connection.execute("SELECT EXISTS (SELECT * FROM ids)").get == 1
        return self._connection

    def _authorize(self, action: int, one: str | None, two: str | None, _database: Any, _trigger: Any) -> int:
        if self._guarded and (
            action in _FORBIDDEN or (action not in _READING and (one in schema.OWN or two in schema.OWN))
        ):
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK

    def _roll_back(self) -> None:
        self._sources.forget()
        connection = self._connection
        if connection is not None and connection.in_transaction:
            connection.execute("ROLLBACK")

    def _well(self) -> None:
        if self.trouble:
            self.trouble = ""
            _log.warn("the journal {path} is back", path=str(self._path))

    def _failed(self, error: Exception) -> Unavailable:
        """Make of an error what clients are told; and whatever makes the next attempt a sound one."""
        stopped = self._stopped
        if is_loss(error):
            # After a failed fsync the kernel may hold pages as clean that never reached the disk, so a second fsync,
            # also through a new descriptor, proves nothing (LWN 752063, "PostgreSQL's fsync() surprise").
            self._stopped = "a write was lost on its way to the disk; restart after checking the disk"
        elif isinstance(error, (apsw.CorruptError, Damaged)):
            # What is written into a damaged file may be lost in it.
            self._stopped = f"the file is damaged; python -m mtserver.journal {self._path} --verify says more"
        if not isinstance(error, (apsw.BusyError, apsw.FullError, LogFullError)):
            self.close()
        text = str(error) if isinstance(error, NotAJournal) else f"{type(error).__name__}: {error}"
        if self._stopped != stopped:
            text = f"{text}; {self._stopped}"
        if not self.trouble or self._stopped != stopped:
            _log.error("the journal {path} cannot store: {error}", path=str(self._path), error=text)
        self.trouble = text
        return Unavailable("the journal cannot store this now")
