"""
The embedded journal: one SQLite file in WAL mode, ``synchronous=FULL``, one thread that writes, group commit.

Whatever is appended while one commit waits for the disk goes into the next one together, so the disk sets how many
commits there are per second, not how many messages. (Why FULL: after a simulated power cut it kept 200 of 200
acknowledged commits, NORMAL none.)
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import Logger

from mtserver import offload
from mtserver.errors import Unavailable
from mtserver.journal import Batch

#: Milliseconds to wait for another process that has the file locked before saying that the journal is unavailable.
BUSY_TIMEOUT = 1000
#: The most messages in one commit, so that the first of a flood is not acknowledged with the last.
COMMIT_SIZE = 10000
#: In the file's header, ``PRAGMA user_version``: the version of the table below.
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE messages (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    time    REAL    NOT NULL,  -- seconds since the epoch
    client  INTEGER NOT NULL,  -- its number since the server's start
    address TEXT    NOT NULL,
    message BLOB    NOT NULL
)
"""
INSERT = "INSERT INTO messages (time, client, address, message) VALUES "
#: Rows in one statement, at most: three times as fast as a statement per row, and no faster with more.
ROWS = 64
#: Messages from which on a batch has statements of its own, in which what they share stands once: a third faster.
OWN = 6

_log = Logger("mtserver.journal")

#: A batch, and who waits for its sequence numbers.
_Entry = tuple[Batch, offload.Promise[Sequence[int]]]


def whose(path: Path) -> str:
    """What is wrong with an existing file that is to be a journal, for good; an empty text if nothing is."""
    try:
        # As it is on disk, without a lock or a side file: a look leaves no trace, and a process may fork after it.
        connection = apsw.Connection(
            f"{path.absolute().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            return _stranger(connection)
        finally:
            connection.close()
    except apsw.NotADBError:
        return "that is a file, but not a database"
    except apsw.Error:
        return ""  # away or busy, which may pass


def _stranger(connection: apsw.Connection) -> str:
    version = connection.pragma("user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if version == SCHEMA_VERSION or (version == 0 and tables == 0):
        return ""
    return "that is a database, but not a journal of this version"


@functools.cache
def _insert(rows: int) -> str:
    """A statement for rows that share nothing."""
    return INSERT + ",".join(["(?,?,?,?)"] * rows)


@functools.cache
def _insert_batch(messages: int) -> str:
    """A statement for the messages of one batch."""
    return INSERT + ",".join(f"(?1,?2,?3,?{number})" for number in range(4, 4 + messages))


def _statements(batches: Iterable[Batch]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What inserts them, in their order."""
    values: list[Any] = []  # of the rows of small batches, which share a statement
    for time, client, address, messages in batches:
        if len(messages) < OWN:
            for message in messages:
                values += (time, client, address, message)
            if len(values) < 4 * ROWS:
                continue
        if values:
            yield _insert(len(values) // 4), tuple(values)
            values.clear()
        if len(messages) >= OWN:
            for begin in range(0, len(messages), ROWS):
                some = messages[begin : begin + ROWS]
                yield _insert_batch(len(some)), (time, client, address, *some)
    if values:
        yield _insert(len(values) // 4), tuple(values)


class SqliteJournal:
    """
    Appends to the table ``messages`` of one file.

    :param path: made if it is not there. Its folder has to be.
    """

    def __init__(self, path: Path) -> None:
        # Absolute, since the working directory may change under a daemon.
        self._path = path.absolute()
        self._worker = offload.own_worker("mtserver-journal")
        self._post = offload.poster()
        self._waiting: deque[_Entry] = deque()
        #: There is a commit under way.
        self._busy = False
        # The rest belongs to the writer thread.
        self._connection: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._away = False
        self._stopped = ""

    # The loop's thread.

    def append(self, batch: Batch) -> Awaitable[Sequence[int]]:
        promise: offload.Promise[Sequence[int]] = offload.Promise()
        time, client, address, messages = batch
        # A copy: the list is its caller's, and what is stored is not to change on its way.
        self._waiting.append((Batch(time, client, address, tuple(messages)), promise))
        if not self._busy:
            self._busy = True
            # At once: to wait for what else the loop reads in this iteration was slower by a tenth to a quarter.
            self._commit_waiting()
        return promise

    def _commit_waiting(self) -> None:
        entries: list[_Entry] = []
        size = 0
        while self._waiting and size < COMMIT_SIZE:
            entries.append(self._waiting.popleft())
            size += len(entries[-1][0].messages)
        self._worker.submit(functools.partial(self._commit, entries))

    def _committed(self, entries: list[_Entry], outcome: int | Unavailable) -> None:
        """They are stored, from this sequence number on; or they are not, and this is what clients are told."""
        if self._waiting:
            self._commit_waiting()
        else:
            self._busy = False
        if isinstance(outcome, Unavailable):
            for _, promise in entries:
                promise.fail(outcome)
            return
        for batch, promise in entries:
            following = outcome + len(batch.messages)
            promise.keep(range(outcome, following))
            outcome = following

    def close(self) -> Awaitable[None]:
        outcome: Future[None] = Future()

        def end() -> None:
            self._disconnect()
            outcome.set_result(None)

        while self._waiting:
            self._commit_waiting()
        self._worker.submit(end)
        self._worker.stop()
        return offload.awaitable(outcome)

    # The writer thread.

    def _commit(self, entries: list[_Entry]) -> None:
        outcome: int | Unavailable
        try:
            outcome = self._store([batch for batch, _ in entries])
        except Exception as error:  # whatever it is, it is not stored, and nobody may be told it is
            outcome = self._failed(error)
        else:
            if self._away:
                self._away = False
                _log.warn("the journal {path} is back", path=str(self._path))
        # One trip to the loop for the whole commit.
        self._post(self._committed, entries, outcome)

    def _store(self, batches: Sequence[Batch]) -> int:
        """Store the messages in one transaction; the sequence number of the first, the others follow."""
        if self._stopped:
            raise OSError(self._stopped)
        connection = self._connected()
        # IMMEDIATE: the lock comes before the number, so another process on the same file gets others.
        connection.execute("BEGIN IMMEDIATE")
        try:
            last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
            first = (last[0] if last else 0) + 1
            for statement, values in _statements(batches):
                connection.execute(statement, values)
            # AUTOINCREMENT has numbered them in their order, without gaps, since nobody else can write meanwhile.
            if connection.last_insert_rowid() != first + sum(len(batch.messages) for batch in batches) - 1:
                raise OSError("the messages were not numbered one after another")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return first

    def _connected(self) -> apsw.Connection:
        if self._connection is not None and self._identity != _identity(self._path):
            # Moved or removed under us. SQLite would go on writing to a file that nobody will find again.
            _log.warn("the journal {path} was moved or replaced; going on with a new one", path=str(self._path))
            # SQLite looks for the write-ahead log by its name. What is still in it has to go into the old file now:
            # left there, it would be deleted with the next open, or taken for a part of the new file.
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
            self._identity = _identity(self._path)
        return self._connection

    def _connect(self) -> apsw.Connection:
        made = not self._path.exists()
        connection = apsw.Connection(str(self._path))
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                stranger = _stranger(connection)
                if stranger:
                    raise OSError(stranger)
                if connection.pragma("user_version") == 0:
                    connection.execute(SCHEMA)
                    connection.pragma("user_version", SCHEMA_VERSION)
        except BaseException:
            connection.close()
            raise
        if made:
            # The file's name has to survive a power cut as well as its contents.
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except apsw.Error as error:
                _log.warn("closing the journal {path}: {error}", path=str(self._path), error=str(error))

    def _failed(self, error: Exception) -> Unavailable:
        """Make of an error what clients are told; and whatever makes the next attempt a sound one."""
        code = getattr(error, "extendedresult", 0)
        if code == apsw.SQLITE_IOERR_FSYNC:
            # After a failed fsync the kernel may hold pages as clean that never reached the disk, so a second fsync,
            # also through a new descriptor, proves nothing (LWN 752063, "PostgreSQL's fsync() surprise").
            self._stopped = "a write was lost on its way to the disk; restart after checking the disk"
        if not isinstance(error, (apsw.BusyError, apsw.FullError)):
            self._disconnect()
        if not self._away:
            self._away = True
            text = f"{type(error).__name__}: {error}"
            _log.error("the journal {path} cannot store: {error}", path=str(self._path), error=text)
        return Unavailable("the journal cannot store this now")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
