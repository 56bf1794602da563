"""
The journal's transaction in a handler's hands: what it does to tables of its own is kept with its message, or not at
all.

One is under way at a time; batches and other transactions wait meanwhile, and batches are committed with it. So it has
:data:`TICKS` seconds, and is undone then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from twisted.logger import Logger

from mtserver.concurrency import offload
from mtserver.errors import Duplicate, HandlerError, Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.sqlite.writer import Writer

if TYPE_CHECKING:
    from mtserver.journal.sqlite.journal import SqliteJournal

_log = Logger("mtserver.journal")

#: Ticks of the journal (seconds) that a handler may take for its transaction.
TICKS = 5

# Where it stands.
_WAITING = 0
_OPEN = 1
_ENDED = 2


class SqliteTransaction:
    """
    See :class:`mtserver.journal.Transaction`. Use it with ``async with``, once.

    :param batch: of one message at most; None: there is no message in it.
    """

    def __init__(self, journal: SqliteJournal, writer: Writer, batch: Batch | None) -> None:
        self.batch = batch
        self.sequence: int | None = None
        self._journal = journal
        self._writer = writer
        self._state = _WAITING
        self._ticks = 0
        self._expired = False
        self._entered: offload.Promise[Stored] = offload.Promise(self._abandon)

    # Its user's side.

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
        """See :class:`mtserver.journal.Transaction`."""
        promise: offload.Promise[list[tuple[Any, ...]]] = offload.Promise()
        self._do(partial(self._writer.execute, sql, bindings), promise)
        return promise

    def executemany(self, sql: str, bindings: Sequence[Any]) -> Awaitable[None]:
        """See :class:`mtserver.journal.Transaction`."""
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
    def is_wanted(self) -> bool:
        """Whoever entered it still waits."""
        return self._state == _WAITING

    def _abandon(self) -> None:
        self._state = _ENDED

    def begun(self, outcome: Stored | Unavailable) -> None:
        """Its turn has come; or it cannot."""
        if isinstance(outcome, Unavailable):
            self._state = _ENDED
            self._entered.fail(outcome)
        elif outcome.duplicates:
            self._state = _ENDED
            self._entered.keep(outcome)
        elif self._state == _ENDED:
            self._journal.roll_back()  # nobody waits for it any more
        else:
            self._state = _OPEN
            self._entered.keep(outcome)

    def tick(self) -> None:
        """A second has passed while it was under way."""
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
