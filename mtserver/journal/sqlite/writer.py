"""
Writer: the one connection that writes, and the recovery from each attempt that failed.

:mod:`mtserver.journal.sqlite.journal` calls it in one thread, one call at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import apsw
from twisted.logger import Logger

from mtserver.concurrency.threads import Threads
from mtserver.errors import Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.options import EVERYTHING, Keep
from mtserver.journal.sqlite import file
from mtserver.journal.sqlite.authorizer import Authorizer
from mtserver.journal.sqlite.checkpoints import Checkpoints, LogFullError
from mtserver.journal.sqlite.dedupe import Window
from mtserver.journal.sqlite.file import (
    Damaged,
    NotAJournal,
    inode_of,
    is_loss,
    open_for_writing,
    remove_leftovers,
    shared_path,
    sync_log,
)
from mtserver.journal.sqlite.insertion import Insertion
from mtserver.journal.sqlite.retention import RemovalLog, Retention
from mtserver.telemetry.events import JOURNAL_COMMITTED

_log = Logger("mtserver.journal")

T = TypeVar("T")

#: Errors of the storage, not of a statement.
_STORAGE = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NotADBError)


class Writer:
    """
    Writer of one file.

    :param fast: commits return before the disk has synced.
    :param window: limits on how long ids are known.
    :param keep: how much is kept.
    :param checkpoint_thread: thread for checkpoints, which may take longer than a client should wait.
    """

    def __init__(
        self, path: Path, *, fast: bool, window: Window, checkpoint_thread: Threads, keep: Keep = EVERYTHING
    ) -> None:
        self._path = path
        self._fast = fast
        self._insertion = Insertion(window)
        self._authorizer = Authorizer()
        self._retention = Retention(keep)
        self._removal_log = RemovalLog(str(path))
        self._connection: apsw.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._shared_inode: tuple[int, int] | None = None
        self._checkpoints = Checkpoints(path, checkpoint_thread)
        self._stopped = ""
        #: New messages that a handler's transaction has stored at its beginning.
        self._begun = 0
        #: Reason why nothing can be stored; empty while all is well. Any thread may read it.
        self.trouble = ""

    def open(self) -> Unavailable | None:
        """
        Open the file if it is not open, with all that others have committed on disk.

        :returns: the error that clients are answered; None if the file is open.
        """
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
        """
        Store batches in one transaction, all or none.

        :returns: their outcomes, or the error that clients are answered.
        """
        return self._attempt(lambda: self._store(self._begin(), batches))

    # A handler's transaction: begun, used, and committed or rolled back.

    def begin(self, batch: Batch | None) -> Stored | Unavailable:
        """Begin a handler's transaction and store a batch in it; a duplicate ends the transaction at once."""
        try:
            connection = self._begin()
            with self._rolled_back_on_error():
                (stored,) = self._insertion.insert(connection, [batch]) if batch is not None else [Stored(())]
                if stored.duplicates:
                    self._end(connection, [stored])
                else:
                    self._begun = len(stored.sequences)
        except Exception as error:
            return self._failed(error)
        return stored

    def commit_with(self, batches: Sequence[Batch]) -> list[Stored] | Unavailable:
        """Commit a handler's transaction together with batches."""
        return self._attempt(lambda: self._store(self._in_transaction(), batches))

    def execute(self, sql: str, bindings: Any) -> list[tuple[Any, ...]]:
        """Execute a handler's statement and return its rows."""
        with self._restricted() as connection:
            # The cache might hold the same statement compiled for us, which the authorizer was not asked about.
            return list(connection.execute(sql, bindings, can_cache=False))

    def executemany(self, sql: str, bindings: Sequence[Any]) -> None:
        """Execute a handler's statement once for each of the bindings."""
        with self._restricted() as connection:
            connection.executemany(sql, bindings, can_cache=False)

    @contextmanager
    def _restricted(self) -> Iterator[apsw.Connection]:
        """Give a handler's statements the connection; translate errors that are not the handler's mistakes."""
        connection = self._in_transaction()
        try:
            with self._authorizer.restricted():
                yield connection
        except _STORAGE as error:
            raise self._failed(error) from None

    def interrupt(self) -> None:
        """Interrupt a handler's statement that may be under way. Any thread may call this."""
        connection = self._connection
        if connection is not None and self._authorizer.is_restricted:
            with suppress(apsw.ConnectionClosedError):
                connection.interrupt()

    def roll_back(self) -> None:
        """Roll back a handler's transaction."""
        try:
            self._roll_back()
        except apsw.Error as error:
            self._failed(error)

    def _in_transaction(self) -> apsw.Connection:
        connection = self._connection
        if connection is None or not connection.in_transaction:
            # SQLite rolls back by itself after some errors, such as a full disk.
            raise OSError("the transaction was rolled back")
        return connection

    # Maintenance.

    def between_commits(self, *, again: bool = False) -> None:
        """Checkpoint if it is due, after the clients of the last commit are answered and before the next begins."""
        if self._connection is None or self._stopped:
            return
        try:
            self._checkpoints.advance(self._connection, again=again)
        except Exception as error:
            self._failed(error)

    def chores(self) -> bool:
        """Prune ids and remove old messages, a bounded number; return whether there is more to do."""
        # A file that is away is opened again here, so that it is known to be back before a client sends.
        if self._stopped or self.open() is not None:
            return False
        if self._insertion.has_ids:
            self._chore(self._insertion.prune)
        if not self._retention.is_enabled:
            return False
        now = time.time()
        step = self._chore(lambda connection: self._retention.step(connection, now))
        if step is None:
            return False
        self._retention.committed(step)
        if step.sources:
            self._insertion.forget()
        self._removal_log.add(step, now)
        return step.more

    def _chore(self, work: Callable[[apsw.Connection], T]) -> T | None:
        """Run `work` in a transaction of its own; return None if it failed, or another process has the file locked."""
        try:
            connection = self._begin(busy_timeout=0)
            with self._rolled_back_on_error():
                result = work(connection)
                connection.execute("COMMIT")
        except apsw.BusyError:
            return None
        except Exception as error:
            self._failed(error)
            return None
        return result

    def stop(self, damage: str) -> None:
        """Store nothing more, since the file is damaged; unless another file has its name by now."""
        if self._is_in_place():
            self._failed(Damaged(damage))

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._checkpoints.close()
                if self._stopped:
                    # SQLite would checkpoint: sync what may be lost already, and throw the log away. So the log stays,
                    # and the next start begins with it.
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()
            except apsw.Error as error:
                _log.warn("closing the journal {path}: {error}", path=str(self._path), error=str(error))

    def _attempt(self, store: Callable[[], list[Stored]]) -> list[Stored] | Unavailable:
        """Return the outcome of `store`, or the error that clients are answered."""
        try:
            stored = store()
        except Exception as error:  # any error means not stored, and no client may be told otherwise
            return self._failed(error)
        if self.trouble:
            self.trouble = ""
            _log.warn("the journal {path} is back", path=str(self._path))
        return stored

    def _store(self, connection: apsw.Connection, batches: Sequence[Batch]) -> list[Stored]:
        """Store batches in the transaction that has begun, and commit."""
        with self._rolled_back_on_error():
            stored = self._insertion.insert(connection, batches)
            self._end(connection, stored)
        self._retention.added(batches, stored)
        return stored

    @contextmanager
    def _rolled_back_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._roll_back()
            raise

    def _begin(self, *, busy_timeout: int | None = None) -> apsw.Connection:
        """
        Begin a transaction.

        :param busy_timeout: milliseconds to wait for other processes, if not :data:`.file.BUSY_TIMEOUT`.
        """
        connection = self._connected()
        self._checkpoints.check()
        if busy_timeout is not None:
            connection.set_busy_timeout(busy_timeout)
        try:
            # IMMEDIATE locks the file before the first number is given, so other processes give other numbers.
            connection.execute("BEGIN IMMEDIATE")
        finally:
            if busy_timeout is not None:
                connection.set_busy_timeout(file.BUSY_TIMEOUT)
        self._insertion.begin(connection)
        return connection

    def _end(self, connection: apsw.Connection, stored: Sequence[Stored]) -> None:
        began = monotonic()
        connection.execute("COMMIT")
        new = sum(len(outcome.sequences) - len(outcome.duplicates) for outcome in stored)
        if stored and not new and not self._fast:
            # Another process has committed the originals of these duplicates, and perhaps not synced them.
            sync_log(self._path)
        JOURNAL_COMMITTED(messages=new + self._begun, seconds=monotonic() - began)
        self._begun = 0

    def _connected(self) -> apsw.Connection:
        if self._stopped:
            raise OSError(self._stopped)
        if self._connection is not None and not self._is_in_place():
            # SQLite would go on writing to the moved file, where no reader will look.
            _log.warn("the journal {path} was moved or replaced; going on with a new one", path=str(self._path))
            # SQLite finds the write-ahead log by its name. Its content has to go into the moved file now: later it
            # would be deleted by the next open, or taken for a part of the new file.
            self._checkpoints.close()
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.close()
            remove_leftovers(self._path, self._shared_inode)
        if self._connection is None:
            self._connection = connection = open_for_writing(self._path, fast=self._fast)
            self._authorizer.attach(connection)
            self._checkpoints.open(connection)
            self._inode = inode_of(self._path)
            self._shared_inode = inode_of(shared_path(self._path))
            self._insertion.open(connection)
            self._retention.reset()
        return self._connection

    def _is_in_place(self) -> bool:
        """Whether the open file still has its name."""
        return self._inode == inode_of(self._path)

    def _roll_back(self) -> None:
        self._begun = 0
        self._insertion.forget()
        connection = self._connection
        if connection is not None and connection.in_transaction:
            connection.execute("ROLLBACK")

    def _failed(self, error: Exception) -> Unavailable:
        """Close, or stop for good, before the next attempt; return the error that clients are answered."""
        stopped = self._stopped
        if is_loss(error):
            self._stopped = "a write was lost on its way to the disk; restart after checking the disk"
        elif isinstance(error, (apsw.CorruptError, Damaged)):
            # Messages written into a damaged file may be lost in it.
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
