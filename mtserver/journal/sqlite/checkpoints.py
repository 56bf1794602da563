"""
Checkpoints: what is in the write-ahead log goes into the database, so that the log can start anew.

SQLite does it inside a COMMIT, and whoever waits for that waits 10 to 20 ms more. Here a thread with a connection of
its own does it while the writer goes on, and again with what came meanwhile, until only little is left: that the writer
does itself, between two commits, and its next commit starts the log anew. The thread alone would never catch up with a
busy writer.

Laws:

* No commit waits for more than :data:`SHORT` of a checkpoint, unless the thread cannot keep up.
* Where it cannot, the writer waits for it: the log stays within a few times :data:`ENOUGH`.
* A reader that stays keeps the log from starting anew. It may grow up to :data:`LIMIT`, and then nothing is stored
  until the reader is gone.
* A database that could not be synced is not synced again: the second time would prove nothing, and the log, which still
  has everything, would be lost over it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
from twisted.logger import Logger

from mtserver.concurrency.threads import Threads
from mtserver.journal.sqlite import file
from mtserver.journal.sqlite.fsync import flush
from mtserver.journal.sqlite.lock_holders import readers

#: Bytes of log from which on it is worth a checkpoint: 1,000 pages of 4 KiB, as SQLite has it.
ENOUGH = 4 * 1024 * 1024
#: Bytes of it that the writer may do itself, between two commits.
SHORT = ENOUGH // 10
#: Bytes by which the log may run away from the thread; kept of the file when the log has been longer.
BEHIND = 4 * ENOUGH
#: Bytes from which on a reader that stays is worth a warning.
LONG = 64 * 1024 * 1024
#: Bytes from which on nothing more is stored.
LIMIT = 1024 * 1024 * 1024
#: Bytes before each page in the log.
HEADER = 24

_log = Logger("mtserver.journal")


class LogFullError(OSError):
    """The write-ahead log is as long as it may be, and cannot start anew."""


class Checkpoints:
    """
    Of one writer. All is called in the writer's thread.

    :param path: the database.
    :param worker: the other thread.
    """

    def __init__(self, path: Path, worker: Threads) -> None:
        self._path = path
        self._worker = worker
        self._connection: apsw.Connection | None = None
        #: Held while a checkpoint runs.
        self._lock = threading.Lock()
        self._frame = 0
        self._failure: Exception | None = None
        self._complained = False
        self._warned = False
        self._start_anew()
        self._size = 0
        #: The thread has one to do, or is at it.
        self._under_way = False
        #: What was to be done when that began.
        self._begun_with = 0

    def _start_anew(self) -> None:
        #: Bytes of the log that are in the database.
        self._done = 0
        #: Bytes of the log from which on there is something to do.
        self._due = ENOUGH
        #: The last checkpoint got stuck behind a reader.
        self._pinned = False

    def open(self, writer: apsw.Connection) -> None:
        """Take over from SQLite, for a writer's connection that has just been opened."""
        self._failure = None
        self._size = 0
        self._start_anew()
        self._connection = connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(file.BUSY_TIMEOUT)
        # This opens the log, by its name: at once, while that is surely the one that belongs to the file.
        connection.execute("SELECT name FROM sqlite_schema").fetchall()
        self._frame = connection.pragma("page_size") + HEADER
        # It takes the place of SQLite's own checkpoints.
        writer.set_wal_hook(self._committed)
        # After a long log. The first part of it stays: to write over it costs a commit less than to make it longer.
        writer.pragma("journal_size_limit", BEHIND)

    def close(self) -> None:
        """End the connection, without waiting for much: what is left of the log is in it still."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.interrupt()
        with self._lock:
            connection.close()

    def _committed(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        size = frames * self._frame
        if size < self._size:
            self._start_anew()
            if self._warned:
                self._warned = False
                _log.warn("the write-ahead log of {path} has started anew", path=str(self._path))
        self._size = size
        return apsw.SQLITE_OK

    # Before a transaction, and after it.

    def check(self) -> None:
        """
        Whether there is room in the log.

        :raises LogFullError: there is none, until whoever reads has ended.
        """
        self._raise_failure()
        if self._is_full():
            self._begin()
            if self._is_full():
                raise LogFullError(f"the write-ahead log has {LIMIT >> 20} MiB, the most it may have; {self._reason()}")

    def advance(self, writer: apsw.Connection, *, again: bool = False) -> None:
        """
        Do, or begin, what is due. There must be no transaction.

        :param again: also behind a reader that was there the last time, if the log has not grown.
        """
        self._raise_failure()
        if self._pinned and again:
            self._due = ENOUGH
        left = self._size - self._done
        if self._under_way:
            # Twice what it has begun with: another one would not find less to do.
            if left >= self._begun_with + max(self._begun_with, BEHIND):
                self._finish(writer)
        elif self._size >= self._due:
            if left <= SHORT or (left <= BEHIND < self._size and not self._pinned):
                self._finish(writer)
            else:
                self._begin()
        if self._pinned and self._size >= LONG and not self._warned:
            self._warned = True
            _log.warn(
                "the write-ahead log of {path} has grown to {size} MiB and cannot start anew: {reason}; "
                "at {limit} MiB nothing more will be stored",
                path=str(self._path),
                size=self._size >> 20,
                reason=self._reason(),
                limit=LIMIT >> 20,
            )

    def _is_full(self) -> bool:
        return self._size >= LIMIT and self._done < self._size

    def _reason(self) -> str:
        if not self._pinned:
            return "it is being written into the database"
        return f"{readers(self._path) or 'somebody'} has been reading for long, and has not ended"

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _finish(self, writer: apsw.Connection) -> None:
        """The writer's part. If the thread is at it, that is waited for."""
        with self._lock:
            self._run(writer)
        self._raise_failure()

    def _begin(self) -> None:
        if not self._under_way:
            self._under_way = True
            self._begun_with = self._size - self._done
            self._worker.submit(self._work)

    # In either thread.

    def _work(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._run(self._connection, flushed=True)
            self._under_way = False

    def _run(self, connection: apsw.Connection, *, flushed: bool = False) -> None:
        if self._failure is not None:
            return
        try:
            # PASSIVE: it waits for nobody, and nobody waits for it.
            log, done = connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
            if flushed:
                flush(connection)
        except apsw.InterruptError:
            return  # it is about to be closed
        except Exception as error:
            self._failed(error)
            return
        self._complained = False
        # Longer than the log: that has started anew meanwhile.
        self._done = done * self._frame if done * self._frame <= self._size else 0
        self._pinned = done < log
        self._due = self._size + ENOUGH if self._pinned else ENOUGH

    def _failed(self, error: Exception) -> None:
        self._due = self._size + ENOUGH
        if file.is_loss(error) or isinstance(error, apsw.CorruptError):
            self._failure = error
        elif not isinstance(error, apsw.BusyError) and not self._complained:  # busy: another process does the same
            self._complained = True
            _log.warn(
                "the write-ahead log of {path} cannot be written into it: {error}; it will be tried again",
                path=str(self._path),
                error=f"{type(error).__name__}: {error}",
            )
