"""
The embedded journal: one SQLite file in WAL mode, ``synchronous=FULL``, one thread that writes, group commit.

Whatever is appended while one commit waits for the disk goes into the next one together, so the disk sets how many
commits there are per second, not how many messages. :mod:`mtserver.journal.sqlite.writer` is what runs in the thread.
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
from mtserver.journal.sqlite.file import is_looked_through, size_of
from mtserver.journal.sqlite.transaction import SqliteTransaction
from mtserver.journal.sqlite.verify import Inspection
from mtserver.journal.sqlite.writer import Writer

#: The most messages in one commit, so that the first of a flood is not acknowledged with the last.
COMMIT_SIZE = 10000
#: Bytes of messages that may wait before those who read them from somewhere should pause.
QUEUE_SIZE = 16 * 1024 * 1024

#: Seconds of each that a file is looked through for damage after the start, if it could not be done before.
INSPECTED = 0.2

T = TypeVar("T")

#: A batch, its bytes, and who waits for its sequence numbers; or a transaction in the place of the latter two.
_Entry = tuple[Batch, int, offload.Promise[Stored]] | SqliteTransaction


class SqliteJournal:
    """
    Appends to the table ``messages`` of one file.

    :param path: made if it is not there. Its folder has to be.
    :param fast: commits do not wait for the disk: what is stored survives the process, not the machine.
    :param window: seconds for which an id is known.
    :param window_messages: messages for whose ids it is known, at most.
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
        self._worker = offload.own_worker("mtserver-journal")
        self._post = offload.poster()
        self._checkpointer = offload.own_worker("mtserver-journal-checkpoints")
        self._writer = Writer(
            self._path,
            fast=fast,
            window=Window(window, window_messages),
            keep=keep,
            checkpointer=self._checkpointer,
        )
        self._waiting: deque[_Entry] = deque()
        #: Bytes of messages that wait.
        self._queued = 0
        #: There is a commit or a transaction under way.
        self._busy = False
        #: The transaction that is under way.
        self._current: SqliteTransaction | None = None
        #: The one before is being undone.
        self._undoing = False
        #: There are chores to be done before the next commit.
        self._due = False
        self._closed = False
        self._readers = offload.own_worker("mtserver-journal-reader")
        #: There is a file to be read.
        self._is_made = False
        #: Of what nobody has looked through before the start.
        self._inspection: Inspection | None = None
        if size_of(self._path) and not is_looked_through(self._path):
            self._inspection = Inspection(self._path)

    @property
    def is_full(self) -> bool:
        """See :class:`mtserver.journal.Journal`."""
        return self._queued > QUEUE_SIZE

    @property
    def trouble(self) -> str:
        """See :class:`mtserver.journal.Journal`."""
        return self._writer.trouble

    # Batches.

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """See :class:`mtserver.journal.Journal`."""
        promise: offload.Promise[Stored] = offload.Promise()
        if type(batch.messages) is not tuple:
            # A list is its caller's, and what is stored is not to change on its way.
            batch = Batch(*batch[:3], tuple(batch.messages), *batch[4:])
        size = sum(map(len, batch.messages))
        self._queued += size
        self._waiting.append((batch, size, promise))
        if not self._busy:
            self._busy = True
            # At once: to wait for what else the loop reads in this iteration was slower by a tenth to a quarter.
            self._go_on()
        return promise

    def _go_on(self, *, rested: bool = True) -> None:
        """
        Begin with what waits first; or be free.

        :param rested: chores may be done. Otherwise they were a moment ago, and those who wait come first.
        """
        if self._due and (rested or not self._waiting):
            self._due = False
            self._worker.submit(self._do_chores)
            return
        while self._waiting:
            first = self._waiting[0]
            if type(first) is not SqliteTransaction:
                self._worker.submit(functools.partial(self._commit, self._take()))
                return
            self._waiting.popleft()
            if first.is_wanted:
                self._current = first
                self._worker.submit(functools.partial(self._begin, first))
                return
        self._busy = False

    def _take(self) -> list[Any]:
        """The batches of the next commit: those in front of the next transaction."""
        entries: list[Any] = []
        waiting, size = self._waiting, 0
        while waiting and size < COMMIT_SIZE and type(waiting[0]) is not SqliteTransaction:
            entry: Any = waiting.popleft()
            entries.append(entry)
            self._queued -= entry[1]
            size += len(entry[0].messages)
        return entries

    def _commit(self, entries: list[Any]) -> None:
        outcome = self._writer.commit([batch for batch, _, _ in entries])
        # One trip to the loop for the whole commit.
        self._post(self._committed, entries, outcome)
        self._writer.between_commits()

    def _committed(self, entries: list[Any], outcome: list[Stored] | Unavailable) -> None:
        """They are stored, and this is how; or they are not, and this is what clients are told."""
        self._go_on()
        if isinstance(outcome, Unavailable):
            for _, _, promise in entries:
                promise.fail(outcome)
        else:
            for (_, _, promise), stored in zip(entries, outcome, strict=True):
                promise.keep(stored)

    # Transactions.

    def transaction(self, batch: Batch | None) -> SqliteTransaction:
        """See :class:`mtserver.journal.Journal`."""
        return SqliteTransaction(self, self._writer, batch)

    def enter(self, transaction: SqliteTransaction) -> None:
        """Begin it when its turn has come."""
        self._waiting.append(transaction)
        if not self._busy:
            self._busy = True
            self._go_on()

    def _begin(self, transaction: SqliteTransaction) -> None:
        self._post(self._begun, transaction, self._writer.begin(transaction.batch))

    def _begun(self, transaction: SqliteTransaction, outcome: Stored | Unavailable) -> None:
        if isinstance(outcome, Unavailable) or outcome.duplicates:
            self._current = None
            self._go_on()
        transaction.begun(outcome)

    def is_current(self, transaction: SqliteTransaction) -> bool:
        """It is the one under way."""
        return transaction is self._current

    def do(self, job: Callable[[], T], promise: offload.Promise[T]) -> None:
        """Run a job of the current transaction in the writer's thread."""

        def work() -> None:
            try:
                result = job()
            except Exception as error:
                self._post(promise.fail, error)
            else:
                self._post(promise.keep, result)

        self._worker.submit(work)

    def roll_back(self) -> None:
        """Undo the current transaction, in the middle of a statement if need be, and go on."""
        self._current, self._undoing = None, True
        self._writer.interrupt()

        def work() -> None:
            self._writer.roll_back()
            self._post(self._undone)

        self._worker.submit(work)

    def _undone(self) -> None:
        self._undoing = False
        self._go_on()

    def commit(self, promise: offload.Promise[Stored]) -> None:
        """Commit the current transaction, and with it the batches that wait behind it; then go on."""
        self._current = None
        entries = self._take()

        def work() -> None:
            outcome = self._writer.commit_with([batch for batch, _, _ in entries])
            if not isinstance(outcome, Unavailable):
                outcome.append(Stored(()))  # its own was told on entering
            self._post(self._committed, [*entries, (None, 0, promise)], outcome)
            self._writer.between_commits()

        self._worker.submit(work)

    # Reading.

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """See :class:`mtserver.journal.Journal`."""
        return self._reading(lambda connection: reading.read(connection, after, limit))

    def position(self) -> Awaitable[int]:
        """See :class:`mtserver.journal.Journal`."""
        return self._reading(reading.position)

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """See :class:`mtserver.journal.Journal`."""
        return self._reading(lambda connection: reading.last(connection, identity, name), counts=True)

    def _reading(self, look: Callable[[apsw.Connection], T], *, counts: bool = False) -> Awaitable[T]:
        """
        What `look` finds, in a thread that waits for nobody who writes.

        :param counts: it is told as stored, so the writer has to have opened the file: what others have committed is
            on disk then. Otherwise what can only be read may be read.
        """
        outcome: Future[T] = Future()
        read = functools.partial(self._look, look, outcome)

        def open_first() -> None:
            error = self._writer.open()
            self._is_made = error is None
            if counts and error is not None:
                outcome.set_exception(error)
            else:
                self._readers.submit(read)

        if self._is_made and not counts:
            self._readers.submit(read)
        else:
            self._worker.submit(open_first)
        return offload.awaitable(outcome)

    def _look(self, look: Callable[[apsw.Connection], T], outcome: Future[T]) -> None:
        try:
            connection = reading.open_for_reading(self._path)
            try:
                outcome.set_result(look(connection))
            finally:
                connection.close()
        except Exception as error:
            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
                self._worker.submit(functools.partial(self._writer.stop, str(error)))
            outcome.set_exception(Unavailable(f"the journal cannot be read now: {type(error).__name__}"))

    # Time, and the end.

    def tick(self) -> None:
        """See :class:`mtserver.journal.Journal`."""
        if self._current is not None:
            self._current.tick()
        if self._undoing:
            self._writer.interrupt()  # once more: its statement may just have been about to begin
        if self._inspection is not None:
            inspection, self._inspection = self._inspection, None
            self._readers.submit(functools.partial(self._inspect, inspection))
        self._due_now()

    def _due_now(self) -> None:
        """Between two commits, if there is one under way, so that a busy journal does its chores as well."""
        self._due = not self._closed
        if self._due and not self._busy:
            self._busy = True
            self._go_on()

    def _do_chores(self) -> None:
        more = self._writer.chores()
        self._writer.between_commits(again=not more)
        self._post(self._done_chores, more)

    def _done_chores(self, more: bool) -> None:
        self._go_on(rested=False)
        if more:
            self._due_now()

    def _inspect(self, inspection: Inspection) -> None:
        self._post(self._inspected, inspection, inspection.go_on(INSPECTED))

    def _inspected(self, inspection: Inspection, damage: str) -> None:
        if damage:
            self._worker.submit(functools.partial(self._writer.stop, damage))
        elif not inspection.is_over:
            self._inspection = inspection

    def close(self) -> Awaitable[None]:
        """See :class:`mtserver.journal.Journal`."""
        outcome: Future[None] = Future()
        self._closed, self._due, self._inspection = True, False, None

        def end() -> None:
            self._writer.close()
            outcome.set_result(None)

        if self._current is not None:
            self.roll_back()
        while self._waiting:
            if type(self._waiting[0]) is SqliteTransaction:
                self._waiting.popleft()
            else:
                self._worker.submit(functools.partial(self._commit, self._take()))
        self._worker.submit(end)
        self._worker.stop()
        self._checkpointer.stop()
        self._readers.stop()
        return offload.awaitable(outcome)
