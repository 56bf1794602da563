"""
Embedded journal: one SQLite file in WAL mode, ``synchronous=FULL``, one thread that writes, group commit.

All that is appended while one commit waits for the disk goes into the next one, so the disk limits the commits per
second, not the messages. :mod:`mtserver.journal.sqlite.writer` runs in the thread; this file is the event loop's side.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import apsw

from mtserver.acks import ACCEPTED, DURABLE
from mtserver.concurrency import offload
from mtserver.errors import Unavailable
from mtserver.journal.interface import Batch, Last, Record, Stored
from mtserver.journal.options import EVERYTHING, Keep
from mtserver.journal.sqlite import reading
from mtserver.journal.sqlite.dedupe import Window
from mtserver.journal.sqlite.file import is_checked_at_start, size_of
from mtserver.journal.sqlite.transaction import SqliteTransaction
from mtserver.journal.sqlite.verify import Inspection
from mtserver.journal.sqlite.writer import Writer

#: Messages in one commit, at most, so that the first of a flood is not acknowledged with the last.
COMMIT_SIZE = 10000
#: Bytes of waiting messages at which reading from clients should pause.
QUEUE_SIZE = 16 * 1024 * 1024

#: Seconds per tick that a file which could not be checked before the start is inspected for damage.
INSPECTION_TIME = 0.2

T = TypeVar("T")

#: Entry of the queue: a batch, its bytes and the promise of its numbers; or a transaction that waits for its turn.
_Entry = tuple[Batch, int, offload.Promise[Stored]] | SqliteTransaction


class SqliteJournal:
    """
    Journal in one SQLite file.

    :param path: the file, which is created if there is none; its folder has to exist.
    :param fast: commits return before the disk has synced; what is stored survives the process, not a power cut.
    :param window: seconds for which an id is known.
    :param window_messages: number of messages, from the last back, whose ids are known at most.
    :param keep: how much is kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        fast: bool = False,
        window: float = 86400,
        window_messages: int = 10_000_000,
        keep: Keep = EVERYTHING,
    ) -> None:
        # Absolute, since the working directory may change under a daemon.
        self._path = path.absolute()
        self.level = ACCEPTED if fast else DURABLE
        self._writer_thread = offload.own_thread("mtserver-journal")
        self._post = offload.poster()
        self._checkpoint_thread = offload.own_thread("mtserver-journal-checkpoints")
        self._writer = Writer(
            self._path,
            fast=fast,
            window=Window(window, window_messages),
            keep=keep,
            checkpoint_thread=self._checkpoint_thread,
        )
        self._waiting: deque[_Entry] = deque()
        #: Bytes of messages in the queue.
        self._queued_bytes = 0
        #: Whether the writer's thread has a commit, a transaction or chores under way.
        self._busy = False
        #: Transaction under way.
        self._transaction: SqliteTransaction | None = None
        #: Whether a transaction is being rolled back.
        self._rolling_back = False
        #: Whether chores are due before the next commit.
        self._chores_due = False
        self._closed = False
        self._reader_thread = offload.own_thread("mtserver-journal-reader")
        #: Whether the writer has opened the file, so that there is one to read.
        self._is_open = False
        #: Inspection of a file that was not checked for damage before the start.
        self._inspection: Inspection | None = None
        if size_of(self._path) and not is_checked_at_start(self._path):
            self._inspection = Inspection(self._path)

    @property
    def is_full(self) -> bool:
        """Whether more than :data:`QUEUE_SIZE` bytes of messages wait."""
        return self._queued_bytes > QUEUE_SIZE

    @property
    def trouble(self) -> str:
        """Reason why the writer cannot store; empty while it can."""
        return self._writer.trouble

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """Store a batch with the next commit."""
        promise: offload.Promise[Stored] = offload.Promise()
        if type(batch.messages) is not tuple:
            # A copy, since the caller may change its list while the batch waits.
            batch = Batch(*batch[:3], tuple(batch.messages), *batch[4:])
        size = sum(map(len, batch.messages))
        self._queued_bytes += size
        self._waiting.append((batch, size, promise))
        # Waiting for more messages of this loop iteration was slower by a tenth to a quarter.
        self._wake()
        return promise

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._next()

    def _next(self, *, may_do_chores: bool = True) -> None:
        """
        Give the writer's thread its next job, if there is one.

        :param may_do_chores: False just after chores, so that waiting batches come before more of them.
        """
        if self._chores_due and (may_do_chores or not self._waiting):
            self._chores_due = False
            self._writer_thread.submit(self._do_chores)
            return
        while self._waiting:
            first = self._waiting[0]
            if type(first) is not SqliteTransaction:
                self._writer_thread.submit(functools.partial(self._commit, self._take()))
                return
            self._waiting.popleft()
            if first.is_waiting:
                self._transaction = first
                self._writer_thread.submit(functools.partial(self._begin, first))
                return
        self._busy = False

    def _take(self) -> list[Any]:
        """Take the batches of the next commit, up to the next transaction, from the queue."""
        entries: list[Any] = []
        waiting, size = self._waiting, 0
        while waiting and size < COMMIT_SIZE and type(waiting[0]) is not SqliteTransaction:
            entry: Any = waiting.popleft()
            entries.append(entry)
            self._queued_bytes -= entry[1]
            size += len(entry[0].messages)
        return entries

    def _commit(self, entries: list[Any]) -> None:
        """Commit batches, in the writer's thread."""
        outcome = self._writer.commit([batch for batch, _, _ in entries])
        # One call into the loop for the whole commit.
        self._post(self._committed, entries, outcome)
        self._writer.between_commits()

    def _committed(self, entries: list[Any], outcome: list[Stored] | Unavailable) -> None:
        """Resolve the promises of a commit; the next commit is under way by then."""
        self._next()
        if isinstance(outcome, Unavailable):
            for _, _, promise in entries:
                promise.fail(outcome)
        else:
            for (_, _, promise), stored in zip(entries, outcome, strict=True):
                promise.keep(stored)

    # Transactions.

    def transaction(self, batch: Batch | None) -> SqliteTransaction:
        """Return a transaction that begins when it is entered and its turn in the queue has come."""
        return SqliteTransaction(self, self._writer, batch)

    def enter(self, transaction: SqliteTransaction) -> None:
        """Queue a transaction."""
        self._waiting.append(transaction)
        self._wake()

    def _begin(self, transaction: SqliteTransaction) -> None:
        self._post(self._begun, transaction, self._writer.begin(transaction.batch))

    def _begun(self, transaction: SqliteTransaction, outcome: Stored | Unavailable) -> None:
        if isinstance(outcome, Unavailable) or outcome.duplicates:
            self._transaction = None
            self._next()
        transaction.begun(outcome)

    def is_current(self, transaction: SqliteTransaction) -> bool:
        """Whether a transaction is the one under way."""
        return transaction is self._transaction

    def do(self, job: Callable[[], T], promise: offload.Promise[T]) -> None:
        """Run a statement of the transaction under way in the writer's thread."""

        def work() -> None:
            try:
                result = job()
            except Exception as error:
                self._post(promise.fail, error)
            else:
                self._post(promise.keep, result)

        self._writer_thread.submit(work)

    def roll_back(self) -> None:
        """Roll back the transaction under way, in the middle of a statement if need be, and go on."""
        self._transaction, self._rolling_back = None, True
        self._writer.interrupt()

        def work() -> None:
            self._writer.roll_back()
            self._post(self._rolled_back)

        self._writer_thread.submit(work)

    def _rolled_back(self) -> None:
        self._rolling_back = False
        self._next()

    def commit(self, promise: offload.Promise[Stored]) -> None:
        """Commit the transaction under way together with the batches that wait behind it, and go on."""
        self._transaction = None
        entries = self._take()

        def work() -> None:
            outcome = self._writer.commit_with([batch for batch, _, _ in entries])
            if not isinstance(outcome, Unavailable):
                outcome.append(Stored(()))  # the transaction's own outcome was given on entering
            self._post(self._committed, [*entries, (None, 0, promise)], outcome)
            self._writer.between_commits()

        self._writer_thread.submit(work)

    # Reading.

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """Read messages in the reader's thread."""
        return self._read(lambda connection: reading.read(connection, after, limit))

    def position(self) -> Awaitable[int]:
        """Read the sequence number of the last message."""
        return self._read(reading.position)

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """Read the last message with an id stored under an identity and a name."""
        return self._read(lambda connection: reading.last(connection, identity, name), is_acknowledged=True)

    def _read(self, query: Callable[[apsw.Connection], T], *, is_acknowledged: bool = False) -> Awaitable[T]:
        """
        Run a query in the reader's thread, which does not wait for commits.

        :param is_acknowledged: a client is told of the result as stored. So the writer has to open the file first,
            which puts on disk what others have committed. Any other query may read a file that nobody can write to.
        """
        outcome: Future[T] = Future()
        run = functools.partial(self._run, query, outcome)

        def open_first() -> None:
            error = self._writer.open()
            self._is_open = error is None
            if is_acknowledged and error is not None:
                outcome.set_exception(error)
            else:
                self._reader_thread.submit(run)

        if self._is_open and not is_acknowledged:
            self._reader_thread.submit(run)
        else:
            self._writer_thread.submit(open_first)
        return offload.awaitable(outcome)

    def _run(self, query: Callable[[apsw.Connection], T], outcome: Future[T]) -> None:
        try:
            connection = reading.open_for_reading(self._path)
            try:
                outcome.set_result(query(connection))
            finally:
                connection.close()
        except Exception as error:
            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
                self._writer_thread.submit(functools.partial(self._writer.stop, str(error)))
            outcome.set_exception(Unavailable(f"the journal cannot be read now: {type(error).__name__}"))

    # Time, and the end.

    def tick(self) -> None:
        """End a transaction that takes too long, inspect a part of the file, and begin the chores."""
        if self._transaction is not None:
            self._transaction.tick()
        if self._rolling_back:
            self._writer.interrupt()  # once more, since its statement may not have begun the first time
        if self._inspection is not None:
            inspection, self._inspection = self._inspection, None
            self._reader_thread.submit(functools.partial(self._inspect, inspection))
        self._do_chores_soon()

    def _do_chores_soon(self) -> None:
        """Do chores now, or after the commit under way, so that a busy journal does them as well."""
        self._chores_due = not self._closed
        if self._chores_due:
            self._wake()

    def _do_chores(self) -> None:
        more = self._writer.chores()
        self._writer.between_commits(again=not more)
        self._post(self._done_chores, more)

    def _done_chores(self, more: bool) -> None:
        self._next(may_do_chores=False)
        if more:
            self._do_chores_soon()

    def _inspect(self, inspection: Inspection) -> None:
        self._post(self._inspected, inspection, inspection.go_on(INSPECTION_TIME))

    def _inspected(self, inspection: Inspection, damage: str) -> None:
        if damage:
            self._writer_thread.submit(functools.partial(self._writer.stop, damage))
        elif not inspection.is_over:
            self._inspection = inspection

    def close(self) -> Awaitable[None]:
        """Commit what waits, roll back the transaction under way, and end the threads."""
        outcome: Future[None] = Future()
        self._closed, self._chores_due, self._inspection = True, False, None

        def end() -> None:
            self._writer.close()
            outcome.set_result(None)

        if self._transaction is not None:
            self.roll_back()
        while self._waiting:
            if type(self._waiting[0]) is SqliteTransaction:
                self._waiting.popleft()
            else:
                self._writer_thread.submit(functools.partial(self._commit, self._take()))
        self._writer_thread.submit(end)
        self._writer_thread.stop()
        self._checkpoint_thread.stop()
        self._reader_thread.stop()
        return offload.awaitable(outcome)
