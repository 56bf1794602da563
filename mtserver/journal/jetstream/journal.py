"""The loop's side of a stream: what waits, what is under way, and what has become of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from nats.aio.client import Client

from mtserver.concurrency import offload
from mtserver.errors import HandlerError, Unavailable
from mtserver.journal.interface import Batch, Last, Record, Stored
from mtserver.journal.jetstream import reading
from mtserver.journal.jetstream.envelope import envelopes
from mtserver.journal.jetstream.health import Health
from mtserver.journal.jetstream.monitor import Watch
from mtserver.journal.jetstream.publishing import Publisher
from mtserver.journal.jetstream.queue import Entry, Waiting, unavailable
from mtserver.journal.jetstream.request import PATIENCE, Refused
from mtserver.journal.jetstream.stream import UNKNOWN, Judgement, Wanted
from mtserver.nats import Address, Link
from mtserver.telemetry.escape import escape

#: Bytes of messages that may wait before those who read them from somewhere should pause.
QUEUE_SIZE = 16 * 1024 * 1024
T = TypeVar("T")


class JetStreamJournal:
    """
    Appends to one stream. Made in a running loop.

    :param address: of its servers.
    """

    def __init__(self, address: Address, wanted: Wanted) -> None:
        self._stream = wanted.options.stream
        self._link = Link(address, f"mtserver journal {self._stream}")
        self._watch = Watch(self._link, wanted, self._judged, self._lost)
        self._judgement = UNKNOWN
        #: It has been looked at, or could not be, so that nobody need wait to learn which.
        self._known = asyncio.Event()
        self._waiting = Waiting()
        self._loop = asyncio.get_running_loop()
        self._under_way: asyncio.Task[list[Stored | Exception | None]] | None = None
        self._published: list[Entry] = []
        self._scheduled = False
        #: While the stream is there and does what it should.
        self._publisher: Publisher | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._health = Health(self._stream)
        self._begin(self._watch.open())

    @property
    def level(self) -> str:
        """See :class:`mtserver.journal.Journal`."""
        return self._judgement.level

    @property
    def trouble(self) -> str:
        """See :class:`mtserver.journal.Journal`."""
        return self._health.trouble

    @property
    def is_full(self) -> bool:
        """See :class:`mtserver.journal.Journal`."""
        return self._waiting.size > QUEUE_SIZE

    # Appending.

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """See :class:`mtserver.journal.Journal`."""
        promise: offload.Promise[Stored] = offload.Promise()
        if self._known.is_set() and self._publisher is None:
            promise.fail(unavailable())
            return promise
        pending = envelopes(self._stream, batch)
        if not pending:
            promise.keep(Stored(()))
            return promise
        self._waiting.add(batch, pending, promise, self._loop.time() + PATIENCE)
        if not self._scheduled and self._under_way is None:
            # With whatever else the loop reads in this iteration.
            self._scheduled = True
            self._loop.call_soon(self._go_on)
        return promise

    def _go_on(self) -> None:
        """Publish what waits first, if nothing is under way."""
        self._scheduled = False
        publisher = self._publisher
        if publisher is None or self._under_way is not None:
            return
        entries = self._waiting.take(self._judgement)
        if entries:
            self._published = entries
            self._under_way = task = self._begin(publisher.store([entry.delivery for entry in entries]))
            # Not in the task: a promise that is kept takes its handler on at once where no task runs.
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[list[Stored | Exception | None]]) -> None:
        """They are stored, or not, or nobody knows; or they are to be gone on with."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if task is not self._under_way:
            return  # it has been given up
        entries, self._under_way, self._published = self._published, None, []
        outcomes: list[Any] = [error] * len(entries) if error is not None else task.result()
        pairs = list(zip(entries, outcomes, strict=True))
        self._waiting.put_back([entry for entry, outcome in pairs if outcome is None], self._loop.time() + PATIENCE)
        self._learn(outcomes)
        if self._publisher is None:
            self._waiting.refuse_all()
        refused = []
        for entry, outcome in pairs:
            # Of a stream that will not do any more, as it was changed meanwhile, no word is worth what it should be.
            if isinstance(outcome, Stored) and not self._judgement.trouble:
                self._waiting.keep(entry, outcome)
            elif outcome is not None:
                refused.append(entry)
        self._waiting.refuse(refused)
        self._go_on()

    # How it is with the stream.

    def _judged(self, client: Client, judgement: Judgement) -> None:
        """It has been looked at."""
        if judgement.trouble:
            self._judgement = judgement
            self._lost(judgement.trouble)
            return
        was_away = self._publisher is None
        if was_away or judgement != self._judgement:
            self._judgement = judgement
            self._publisher = Publisher(client, self._stream, is_atomic=judgement.is_atomic)
        self._known.set()
        if was_away:
            self._health.back()
        self._go_on()

    def _lost(self, why: str, *, until_stored: bool = False) -> None:
        """It cannot be seen, or will not do. Nothing is published until it has been looked at again."""
        self._publisher = None
        self._known.set()
        self._health.lost(why, until_stored=until_stored)
        if not self._link.connected:
            self._give_up()
        self._waiting.refuse_all()

    def _give_up(self) -> None:
        """Nobody will say any more what has become of what is under way."""
        task, entries, self._under_way, self._published = self._under_way, self._published, None, []
        if task is not None:
            # It is not waited for: nats-py may not notice that it is cancelled.
            task.cancel()
        self._waiting.refuse(entries)

    def _learn(self, outcomes: list[Any]) -> None:
        """What is known of the stream from what has become of messages."""
        if any(isinstance(outcome, Stored) for outcome in outcomes) and self._publisher is not None:
            self._health.stored()
        for outcome in outcomes:
            if isinstance(outcome, Refused) and outcome.is_of_messages:
                self._health.refused(str(outcome))
            elif isinstance(outcome, BaseException):
                self._failed(outcome)
                return

    def _failed(self, error: BaseException) -> None:
        """Nobody is there, or nobody knows what has been done."""
        if not self._link.connected:
            why = "the connection was lost"
        elif isinstance(error, TimeoutError):
            why = "an acknowledgement did not come in time"
        else:
            why = str(error) if isinstance(error, Refused) else repr(error)
        # That a stream can be asked after does not say that anything can be stored in it: without a quorum, or rights.
        self._lost(why, until_stored=isinstance(error, TimeoutError))
        self._watch.look()

    # Reading.

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """See :class:`mtserver.journal.Journal`."""
        stream = self._stream
        return self._asked(
            lambda client: reading.read(client, stream, after, limit, is_direct=self._judgement.is_direct)
        )

    def position(self) -> Awaitable[int]:
        """See :class:`mtserver.journal.Journal`."""
        return self._asked(lambda client: reading.position(client, self._stream))

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """See :class:`mtserver.journal.Journal`."""
        # Only where the level is what it should be: what is told here counts as stored.
        return self._asked(lambda client: reading.last(client, self._stream, identity, name))

    def _asked(self, look: Callable[[Client], Coroutine[Any, Any, T]]) -> Awaitable[T]:
        promise: offload.Promise[T] = offload.Promise()

        async def ask() -> T:
            await asyncio.wait_for(self._known.wait(), PATIENCE)
            client = self._link.client
            if client is None or self._publisher is None:
                raise Refused("it is away")
            return await look(client)

        def answered(task: asyncio.Task[T]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                promise.keep(task.result())
            else:
                why = escape(str(error)) if isinstance(error, Refused) else type(error).__name__
                promise.fail(Unavailable(f"the journal cannot be read now: {why}"))

        self._begin(ask()).add_done_callback(answered)
        return promise

    def transaction(self, batch: Batch | None) -> NoReturn:  # noqa: ARG002 - as the interface has it
        """See :class:`mtserver.journal.Journal`."""
        raise HandlerError("a stream of NATS has no transactions and no tables: they need --journal sqlite:PATH")

    # Time, and the end.

    def tick(self) -> None:
        """See :class:`mtserver.journal.Journal`."""
        self._health.tick()
        self._waiting.expire(self._loop.time())
        self._watch.tick(is_well=self._publisher is not None)

    def close(self) -> Awaitable[None]:
        """See :class:`mtserver.journal.Journal`."""
        promise: offload.Promise[None] = offload.Promise()
        self._begin(self._end()).add_done_callback(lambda _: promise.keep(None))
        return promise

    async def _end(self) -> None:
        until = self._loop.time() + PATIENCE
        self._go_on()
        while self._under_way is not None and self._loop.time() < until:
            await asyncio.wait([self._under_way], timeout=until - self._loop.time())
        self._publisher = None
        self._give_up()
        self._waiting.refuse_all()
        await self._watch.close()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
