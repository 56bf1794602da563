"""
The writer: the one connection that writes, with what makes its next attempt a sound one after each that failed.

All of it runs in one thread, one call at a time; :mod:`mtserver.journal.sqlite.journal` sees to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
from twisted.logger import Logger

from mtserver.concurrency.threads import Threads
from mtserver.errors import Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.options import EVERYTHING, Keep
from mtserver.journal.sqlite import file
from mtserver.journal.sqlite.authorizer import Guard
from mtserver.journal.sqlite.checkpoints import Checkpoints, LogFullError
from mtserver.journal.sqlite.dedupe import Window
from mtserver.journal.sqlite.file import (
    Damaged,
    NotAJournal,
    identity,
    is_loss,
    open_for_writing,
    remove_leftovers,
    shared_path,
    sync_log,
)
from mtserver.journal.sqlite.insertion import Insertion
from mtserver.journal.sqlite.retention import Account, Retention

_log = Logger("mtserver.journal")

T = TypeVar("T")

#: Errors of the storage, and not of a statement.
_STORAGE = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NotADBError)


class Writer:
    """
    Writes to one file.

    :param fast: commits do not wait for the disk.
    :param window: how long ids are known.
    :param keep: how much is kept.
    :param checkpointer: a thread for what may take longer than a client should wait.
    """

    def __init__(
        self, path: Path, *, fast: bool, window: Window, checkpointer: Threads, keep: Keep = EVERYTHING
    ) -> None:
        self._path = path
        self._fast = fast
        self._insertion = Insertion(window)
        self._guard = Guard()
        self._retention = Retention(keep)
        self._account = Account(str(path))
        self._connection: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._shared: tuple[int, int] | None = None
        self._checkpoints = Checkpoints(path, checkpointer)
        self._stopped = ""
        #: Why nothing can be stored; empty while all is well. Any thread may read it.
        self.trouble = ""

    def open(self) -> Unavailable | None:
        """See that there is a connection, with all that others have committed on disk; or what clients are told."""
        connection = self._connection
        if connection is not None and (connection.in_transaction or self._is_in_place()):
            return None
        outcome = self._attempt(self._opened)
        return outcome if isinstance(outcome, Unavailable) else None

    def _opened(self) -> list[Stored]:
        self._connected()
        return []

    # Batches.

    def commit(self, batches: Sequence[Batch]) -> list[Stored] | Unavailable:
        """Store these in one transaction, all or none; or what clients are told."""
        return self._attempt(lambda: self._store(self._begin(), batches))

    # One transaction that somebody else has a part in: begun, used, and committed or rolled back.

    def begin(self, batch: Batch | None) -> Stored | Unavailable:
        """Begin one with this batch in it. If it is a duplicate there is no transaction afterwards."""
        try:
            connection = self._begin()
            with self._undone_if_it_fails():
                (stored,) = self._insertion.insert(connection, [batch]) if batch is not None else [Stored(())]
                if stored.duplicates:
                    self._end(connection, [stored])
        except Exception as error:
            return self._failed(error)
        return stored

    def commit_with(self, batches: Sequence[Batch]) -> list[Stored] | Unavailable:
        """Commit it, with these batches."""
        return self._attempt(lambda: self._store(self._in_transaction(), batches))

    def execute(self, sql: str, bindings: Any) -> list[tuple[Any, ...]]:
        """Execute a handler's statement in it."""
        with self._guarding() as connection:
            # Not from the cache: there might be one of ours, which the guard has not seen.
            return list(connection.execute(sql, bindings, can_cache=False))

    def executemany(self, sql: str, bindings: Sequence[Any]) -> None:
        """The same for many bindings."""
        with self._guarding() as connection:
            connection.executemany(sql, bindings, can_cache=False)

    @contextmanager
    def _guarding(self) -> Iterator[apsw.Connection]:
        """Inside, statements are a handler's; what is not its mistake is no error of its."""
        connection = self._in_transaction()
        try:
            with self._guard.up():
                yield connection
        except _STORAGE as error:
            raise self._failed(error) from None

    def interrupt(self) -> None:
        """End a handler's statement that may be under way, with an error. Any thread may."""
        connection = self._connection
        if connection is not None and self._guard.is_up:
            with suppress(apsw.ConnectionClosedError):
                connection.interrupt()

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
        if self._insertion.has_ids:
            self._chore(self._insertion.prune)
        if not self._retention.is_asked_for:
            return False
        now = time.time()
        step = self._chore(lambda connection: self._retention.step(connection, now))
        if step is None:
            return False
        self._retention.taken(step)
        if step.sources:
            self._insertion.forget()
        self._account.add(step, now)
        return step.more

    def _chore(self, work: Callable[[apsw.Connection], T]) -> T | None:
        """Do this in a transaction, for which nobody waits: None if it was left for later, since the file is locked."""
        try:
            connection = self._begin(patience=0)
            with self._undone_if_it_fails():
                result = work(connection)
                connection.execute("COMMIT")
        except apsw.BusyError:
            return None
        except Exception as error:
            self._failed(error)
            return None
        return result

    def stop(self, damage: str) -> None:
        """Store nothing any more: the file is damaged. (Unless it is another one by now.)"""
        if self._is_in_place():
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

    def _attempt(self, store: Callable[[], list[Stored]]) -> list[Stored] | Unavailable:
        """What has been stored; or what clients are told."""
        try:
            stored = store()
        except Exception as error:  # whatever it is, it is not stored, and nobody may be told it is
            return self._failed(error)
        if self.trouble:
            self.trouble = ""
            _log.warn("the journal {path} is back", path=str(self._path))
        return stored

    def _store(self, connection: apsw.Connection, batches: Sequence[Batch]) -> list[Stored]:
        """In a transaction that has begun."""
        with self._undone_if_it_fails():
            stored = self._insertion.insert(connection, batches)
            self._end(connection, stored)
        self._retention.added(batches, stored)
        return stored

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._roll_back()
            raise

    def _begin(self, *, patience: int | None = None) -> apsw.Connection:
        """
        Begin a transaction.

        :param patience: milliseconds to wait for others, if not as long as ever.
        """
        connection = self._connected()
        self._checkpoints.check()
        if patience is not None:
            connection.set_busy_timeout(patience)
        try:
            # IMMEDIATE: the lock comes before the number, so another process on the same file gets others.
            connection.execute("BEGIN IMMEDIATE")
        finally:
            if patience is not None:
                connection.set_busy_timeout(file.BUSY_TIMEOUT)
        self._insertion.begin(connection)
        return connection

    def _end(self, connection: apsw.Connection, stored: Sequence[Stored]) -> None:
        connection.execute("COMMIT")
        wrote = any(len(outcome.sequences) > len(outcome.duplicates) for outcome in stored)
        if stored and not wrote and not self._fast:
            # Somebody else has committed what these are duplicates of, and perhaps not waited for the disk.
            sync_log(self._path)

    def _connected(self) -> apsw.Connection:
        if self._stopped:
            raise OSError(self._stopped)
        if self._connection is not None and not self._is_in_place():
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
            self._guard.watch(connection)
            self._checkpoints.open(connection)
            self._identity = identity(self._path)
            self._shared = identity(shared_path(self._path))
            self._insertion.open(connection)
            self._retention.begin_anew()
        return self._connection

    def _is_in_place(self) -> bool:
        """The file that is open is the one that has its name."""
        return self._identity == identity(self._path)

    def _roll_back(self) -> None:
        self._insertion.forget()
        connection = self._connection
        if connection is not None and connection.in_transaction:
            connection.execute("ROLLBACK")

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
