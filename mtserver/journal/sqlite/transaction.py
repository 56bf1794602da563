"""
Transaction of the journal in a handler's hands: changes to the handler's tables are kept with its message, or not at
all.

One is under way at a time. Other transactions and batches wait, and the batches are committed with it. So it is rolled
back after :data:`TICKS` seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from twisted.logger import Logger

from mtserver.concurrency import offload
from mtserver.errors import Duplicate, HandlerError, Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.sqlite.writer import Writer

_log = Logger("mtserver.journal")

#: Ticks of the journal (seconds) that a handler may take for its transaction.
TICKS = 5

T = TypeVar("T")

# States of a transaction.
_WAITING = 0
_OPEN = 1
_ENDED = 2


class TransactionQueue(Protocol):
    """Queue in which transactions wait for their turn: the journal that they belong to."""

    def enter(self, transaction: SqliteTransaction) -> None: ...

    def is_current(self, transaction: SqliteTransaction) -> bool: ...

    def do(self, job: Callable[[], T], promise: offload.Promise[T]) -> None: ...

    def roll_back(self) -> None: ...

    def commit(self, promise: offload.Promise[Stored]) -> None: ...


class SqliteTransaction:
    """
    Transaction in an SQLite file, for one ``async with``.

    :param batch: at most one message, stored with the transaction; None for none.
    """

    def __init__(self, journal: TransactionQueue, writer: Writer, batch: Batch | None) -> None:
        self.batch = batch
        self.sequence: int | None = None
        self._journal = journal
        self._writer = writer
        self._state = _WAITING
        self._ticks = 0
        self._expired = False
        self._entered: offload.Promise[Stored] = offload.Promise(self._cancel)

    # The handler's side.

    async def __aenter__(self) -> Self:
        self._journal.enter(self)
        stored = await self._entered
        if stored.duplicates:
            raise Duplicate(stored.sequences[0])
        self.sequence = stored.sequences[0] if stored.sequences else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open():
            if error is None:
                raise self._ended()
            return
        self._state = _ENDED
        if error is not None:
            self._journal.roll_back()
            return
        promise: offload.Promise[Stored] = offload.Promise()
        self._journal.commit(promise)
        await promise

    def execute(self, sql: str, bindings: Any = ()) -> Awaitable[list[tuple[Any, ...]]]:
        """Execute a statement and return its rows."""
        promise: offload.Promise[list[tuple[Any, ...]]] = offload.Promise()
        self._do(partial(self._writer.execute, sql, bindings), promise)
        return promise

    def executemany(self, sql: str, bindings: Sequence[Any]) -> Awaitable[None]:
        """Execute a statement once for each of the bindings."""
        promise: offload.Promise[None] = offload.Promise()
        self._do(partial(self._writer.executemany, sql, bindings), promise)
        return promise

    def _do(self, job: Any, promise: offload.Promise[Any]) -> None:
        if not self._is_open():
            raise self._ended()
        self._journal.do(job, promise)

    def _is_open(self) -> bool:
        return self._state == _OPEN and self._journal.is_current(self)

    def _ended(self) -> HandlerError:
        if self._expired:
            return HandlerError(f"the transaction took longer than {TICKS} seconds, and was undone for others to go on")
        return HandlerError("the transaction is not under way (any more)")

    # The journal's side.

    @property
    def is_waiting(self) -> bool:
        """Whether the handler that entered it still waits for its turn."""
        return self._state == _WAITING

    def _cancel(self) -> None:
        self._state = _ENDED

    def begun(self, outcome: Stored | Unavailable) -> None:
        """Continue the handler: the transaction has begun, or could not."""
        if isinstance(outcome, Unavailable):
            self._state = _ENDED
            self._entered.fail(outcome)
        elif outcome.duplicates:
            self._state = _ENDED
            self._entered.keep(outcome)
        elif self._state == _ENDED:
            self._journal.roll_back()  # the handler was cancelled meanwhile
        else:
            self._state = _OPEN
            self._entered.keep(outcome)

    def tick(self) -> None:
        """Count a second, and roll back after :data:`TICKS` of them."""
        self._ticks += 1
        if self._ticks > TICKS and self._state == _OPEN:
            self._expired = True
            self._state = _ENDED
            whose = "a handler" if self.batch is None else f"the handler of client {self.batch.client}"
            _log.warn(
                "{whose} has kept the journal's transaction for {ticks} s: it was undone, since others wait for it",
                whose=whose,
                ticks=TICKS,
            )
            self._journal.roll_back()
