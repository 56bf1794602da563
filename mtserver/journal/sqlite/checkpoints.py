"""
Checkpoints: copy the write-ahead log into the database, so that the log can restart from its beginning.

SQLite checkpoints inside a COMMIT, which makes that commit 10 to 20 ms longer. Here a thread with its own connection
copies while the writer goes on, repeatedly, until little is left; the writer copies that rest itself between two
commits, and its next commit restarts the log. The thread alone would never catch up with a busy writer.

Laws:

* No commit waits for more than :data:`SHORT` of a checkpoint, unless the thread cannot keep up.
* If it cannot, the writer waits for it: the log stays within a few times :data:`ENOUGH`.
* A reader that holds its snapshot keeps the log from restarting. The log may grow to :data:`LIMIT`; then nothing is
  stored until the reader is gone.
* A failed sync of the database is not repeated: a second one would prove nothing (:func:`~.file.is_loss`), and SQLite
  would throw away the log, which still has everything.
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

#: Bytes of log that are worth a checkpoint: 1,000 pages of 4 KiB, SQLite's default.
ENOUGH = 4 * 1024 * 1024
#: Bytes of log that the writer copies itself, between two commits.
SHORT = ENOUGH // 10
#: Bytes that the thread may lag behind the log; also the size to which a longer log file is cut.
BEHIND = 4 * ENOUGH
#: Bytes of log at which a reader that keeps it from restarting is logged.
LONG = 64 * 1024 * 1024
#: Bytes of log at which nothing more is stored.
LIMIT = 1024 * 1024 * 1024
#: Bytes of the header before each page in the log.
HEADER = 24

_log = Logger("mtserver.journal")


class LogFullError(OSError):
    """Error when the write-ahead log is as long as it may be, and cannot restart."""


class Checkpoints:
    """
    Checkpoints of one database; all methods without a remark are called in the writer's thread.

    :param path: the database.
    :param thread: the thread that copies beside the writer.
    """

    def __init__(self, path: Path, thread: Threads) -> None:
        self._path = path
        self._thread = thread
        self._connection: apsw.Connection | None = None
        #: Lock that is held while a checkpoint runs.
        self._lock = threading.Lock()
        self._frame = 0
        self._failure: Exception | None = None
        self._complained = False
        self._warned = False
        self._restart()
        self._size = 0
        #: Whether a checkpoint is queued or runs in the thread.
        self._under_way = False
        #: Bytes that were not copied yet when the thread began.
        self._left_at_start = 0

    def _restart(self) -> None:
        #: Bytes of the log that are copied into the database.
        self._done = 0
        #: Bytes of log at which the next checkpoint is due.
        self._due = ENOUGH
        #: Whether a reader stopped the last checkpoint before the end of the log.
        self._pinned = False

    def open(self, writer: apsw.Connection) -> None:
        """Replace SQLite's own checkpoints on a connection that the writer has just opened."""
        self._failure = None
        self._size = 0
        self._restart()
        self._connection = connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(file.BUSY_TIMEOUT)
        # SQLite opens the log by its name, with the first statement: now, while that name surely belongs to this file.
        connection.execute("SELECT name FROM sqlite_schema").fetchall()
        self._frame = connection.pragma("page_size") + HEADER
        # A hook replaces SQLite's automatic checkpoints.
        writer.set_wal_hook(self._committed)
        # A part of a long log stays on disk: to overwrite it costs a commit less than to extend the file.
        writer.pragma("journal_size_limit", BEHIND)

    def close(self) -> None:
        """Close the connection and interrupt a checkpoint; what was not copied stays in the log."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.interrupt()
        with self._lock:
            connection.close()

    def _committed(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        size = frames * self._frame
        if size < self._size:
            self._restart()
            if self._warned:
                self._warned = False
                _log.warn("the write-ahead log of {path} has started anew", path=str(self._path))
        self._size = size
        return apsw.SQLITE_OK

    def check(self) -> None:
        """
        Check, before a transaction, that there is room in the log.

        :raises LogFullError: if there is none until a reader has ended.
        """
        self._raise_failure()
        if self._is_full():
            self._begin()
            if self._is_full():
                raise LogFullError(f"the write-ahead log has {LIMIT >> 20} MiB, the most it may have; {self._reason()}")

    def advance(self, writer: apsw.Connection, *, again: bool = False) -> None:
        """
        Checkpoint, here or in the thread, if it is due; outside of transactions only.

        :param again: try again although a reader stopped the last one and the log has not grown since.
        """
        self._raise_failure()
        if self._pinned and again:
            self._due = ENOUGH
        left = self._size - self._done
        if self._under_way:
            # Another round in the thread would not find less to do: as much was added as it began with.
            if left >= self._left_at_start + max(self._left_at_start, BEHIND):
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
        """Checkpoint in the writer's thread, after the one that runs in the other thread."""
        with self._lock:
            self._run(writer)
        self._raise_failure()

    def _begin(self) -> None:
        if not self._under_way:
            self._under_way = True
            self._left_at_start = self._size - self._done
            self._thread.submit(self._work)

    def _work(self) -> None:
        """Checkpoint in the other thread."""
        with self._lock:
            if self._connection is not None:
                self._run(self._connection, flushed=True)
            self._under_way = False

    def _run(self, connection: apsw.Connection, *, flushed: bool = False) -> None:
        """Copy what can be copied; called in either thread, with the lock held."""
        if self._failure is not None:
            return
        try:
            # PASSIVE neither waits for other connections nor makes them wait.
            log, done = connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
            if flushed:
                flush(connection)
        except apsw.InterruptError:
            return  # by close()
        except Exception as error:
            self._failed(error)
            return
        self._complained = False
        # More than the log's size means that the log has restarted meanwhile.
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
