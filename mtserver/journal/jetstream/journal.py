"""Journal in a stream: queues batches, publishes them one round at a time, and resolves their promises."""

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
from mtserver.journal.jetstream.monitor import Monitor
from mtserver.journal.jetstream.publishing import Publisher
from mtserver.journal.jetstream.queue import Entry, Queue, unavailable
from mtserver.journal.jetstream.request import TIMEOUT, Refused
from mtserver.journal.jetstream.stream import UNKNOWN, Judgement, Requirements
from mtserver.nats import Address, Link
from mtserver.telemetry.escape import escape

#: Bytes of waiting messages at which reading from clients should pause.
QUEUE_SIZE = 16 * 1024 * 1024
T = TypeVar("T")


class JetStreamJournal:
    """
    Journal in one stream. Made in a running loop.

    :param address: address of its servers.
    """

    def __init__(self, address: Address, wanted: Requirements) -> None:
        self._stream = wanted.options.stream
        self._link = Link(address, f"mtserver journal {self._stream}")
        self._monitor = Monitor(self._link, wanted, self._judged, self._lost)
        self._judgement = UNKNOWN
        #: Event after the first check of the stream, whether that succeeded or failed.
        self._examined = asyncio.Event()
        self._queue = Queue()
        self._loop = asyncio.get_running_loop()
        self._under_way: asyncio.Task[list[Stored | Exception | None]] | None = None
        self._entries: list[Entry] = []
        self._scheduled = False
        #: Publisher, while the stream can be reached and is fit.
        self._publisher: Publisher | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._health = Health(self._stream)
        self._spawn(self._monitor.open())

    @property
    def level(self) -> str:
        """Level of the stream at the last check."""
        return self._judgement.level

    @property
    def trouble(self) -> str:
        """Reason why the stream cannot store; empty while it can."""
        return self._health.trouble

    @property
    def is_full(self) -> bool:
        """Whether more than :data:`QUEUE_SIZE` bytes of messages wait or are under way."""
        return self._queue.size > QUEUE_SIZE

    # Appending.

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """Queue a batch; refuse it at once while the stream is away."""
        promise: offload.Promise[Stored] = offload.Promise()
        if self._examined.is_set() and self._publisher is None:
            promise.fail(unavailable())
            return promise
        pending = envelopes(self._stream, batch)
        if not pending:
            promise.keep(Stored(()))
            return promise
        self._queue.add(batch, pending, promise, self._loop.time() + TIMEOUT)
        if not self._scheduled and self._under_way is None:
            # Later, together with the messages that the loop still reads in this iteration.
            self._scheduled = True
            self._loop.call_soon(self._publish_next)
        return promise

    def _publish_next(self) -> None:
        """Publish the next round of batches, if none is under way."""
        self._scheduled = False
        publisher = self._publisher
        if publisher is None or self._under_way is not None:
            return
        entries = self._queue.take(self._judgement)
        if entries:
            self._entries = entries
            self._under_way = task = self._spawn(publisher.store([entry.delivery for entry in entries]))
            # Promises are kept outside of the task: there, a handler continues at once.
            task.add_done_callback(self._on_published)

    def _on_published(self, task: asyncio.Task[list[Stored | Exception | None]]) -> None:
        """Resolve the promises of a round, put back what is unfinished, and publish the next."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if task is not self._under_way:
            return  # by _cancel()
        entries, self._under_way, self._entries = self._entries, None, []
        outcomes: list[Any] = [error] * len(entries) if error is not None else task.result()
        pairs = list(zip(entries, outcomes, strict=True))
        self._queue.put_back([entry for entry, outcome in pairs if outcome is None], self._loop.time() + TIMEOUT)
        self._learn(outcomes)
        if self._publisher is None:
            self._queue.refuse_all()
        refused = []
        for entry, outcome in pairs:
            # A stream that was changed and is unfit now may not have stored as it should, whatever it says.
            if isinstance(outcome, Stored) and not self._judgement.trouble:
                self._queue.keep(entry, outcome)
            elif outcome is not None:
                refused.append(entry)
        self._queue.refuse(refused)
        self._publish_next()

    # Health of the stream.

    def _judged(self, client: Client, judgement: Judgement) -> None:
        """Take over the judgement of a check."""
        if judgement.trouble:
            self._judgement = judgement
            self._lost(judgement.trouble)
            return
        was_away = self._publisher is None
        if was_away or judgement != self._judgement:
            self._judgement = judgement
            self._publisher = Publisher(client, self._stream, is_atomic=judgement.is_atomic)
        self._examined.set()
        if was_away:
            self._health.back()
        self._publish_next()

    def _lost(self, why: str, *, until_stored: bool = False) -> None:
        """Refuse all that waits, and publish nothing until the next check: the stream is away or unfit."""
        self._publisher = None
        self._examined.set()
        self._health.lost(why, until_stored=until_stored)
        if not self._link.connected:
            self._cancel()
        self._queue.refuse_all()

    def _cancel(self) -> None:
        """Refuse the round under way, whose outcome nobody will know."""
        task, entries, self._under_way, self._entries = self._under_way, self._entries, None, []
        if task is not None:
            # The task is not awaited: nats-py may not notice that it is cancelled.
            task.cancel()
        self._queue.refuse(entries)

    def _learn(self, outcomes: list[Any]) -> None:
        """Learn of the stream's health from the outcomes of a round."""
        if any(isinstance(outcome, Stored) for outcome in outcomes) and self._publisher is not None:
            self._health.stored()
        for outcome in outcomes:
            if isinstance(outcome, Refused) and outcome.is_about_message:
                self._health.refused(str(outcome))
            elif isinstance(outcome, BaseException):
                self._failed(outcome)
                return

    def _failed(self, error: BaseException) -> None:
        """Record a loss after an error that is not about single messages, and check the stream."""
        if not self._link.connected:
            why = "the connection was lost"
        elif isinstance(error, TimeoutError):
            why = "an acknowledgement did not come in time"
        else:
            why = str(error) if isinstance(error, Refused) else repr(error)
        # A stream without a quorum, or rights to publish, passes its checks and stores nothing.
        self._lost(why, until_stored=isinstance(error, TimeoutError))
        self._monitor.check()

    # Reading.

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """Read messages, from whichever server is near."""
        stream = self._stream
        return self._read(
            lambda client: reading.read(client, stream, after, limit, is_direct=self._judgement.is_direct)
        )

    def position(self) -> Awaitable[int]:
        """Read the sequence number of the last message."""
        return self._read(lambda client: reading.position(client, self._stream))

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """Read the last message with an id stored under an identity and a name."""
        # A client is told of it as stored, so _read() refuses while the stream is unfit.
        return self._read(lambda client: reading.last(client, self._stream, identity, name))

    def _read(self, query: Callable[[Client], Coroutine[Any, Any, T]]) -> Awaitable[T]:
        promise: offload.Promise[T] = offload.Promise()

        async def run() -> T:
            await asyncio.wait_for(self._examined.wait(), TIMEOUT)
            client = self._link.client
            if client is None or self._publisher is None:
                raise Refused("it is away")
            return await query(client)

        def answered(task: asyncio.Task[T]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                promise.keep(task.result())
            else:
                why = escape(str(error)) if isinstance(error, Refused) else type(error).__name__
                promise.fail(Unavailable(f"the journal cannot be read now: {why}"))

        self._spawn(run()).add_done_callback(answered)
        return promise

    def transaction(self, batch: Batch | None) -> NoReturn:  # noqa: ARG002 - as the interface has it
        """Raise an error: streams have no transactions."""
        raise HandlerError("a stream of NATS has no transactions and no tables: they need --journal sqlite:PATH")

    # Time, and the end.

    def tick(self) -> None:
        """Refuse what has waited for too long, and check the stream if it is time."""
        self._health.tick()
        self._queue.expire(self._loop.time())
        self._monitor.tick(is_well=self._publisher is not None)

    def close(self) -> Awaitable[None]:
        """Publish what waits, refuse what is not acknowledged in time, and close the link."""
        promise: offload.Promise[None] = offload.Promise()
        self._spawn(self._end()).add_done_callback(lambda _: promise.keep(None))
        return promise

    async def _end(self) -> None:
        until = self._loop.time() + TIMEOUT
        self._publish_next()
        while self._under_way is not None and self._loop.time() < until:
            await asyncio.wait([self._under_way], timeout=until - self._loop.time())
        self._publisher = None
        self._cancel()
        self._queue.refuse_all()
        await self._monitor.close()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
