"""
Publishing of batches: several in one atomic publish wherever the server can (ADR-50), message after message elsewhere.

Laws:

* An atomic publish is stored all or none, with consecutive numbers and one sync.
* If a server refuses it, for whatever reason (a duplicate in it, one subject that is full), each client's messages are
  published apart, one after another: what is stored of a client is always the first part, and no client is refused for
  another's messages.
* That takes turns: a client with much to publish goes on with the next call of :meth:`Publisher.store`.
* Numbers are those that the server has acknowledged. :class:`~.request.Refused` means that nothing more was stored, any
  other error that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar, cast

from nats.aio.client import Client

from mtserver.journal.interface import Stored
from mtserver.journal.jetstream.delivery import ATOMIC_MAX, Delivery
from mtserver.journal.jetstream.envelope import MESSAGE_ID, Envelope
from mtserver.journal.jetstream.request import DUPLICATE_IN_BATCH, IN_PROCESS, TIMEOUT, Refused, request
from mtserver.telemetry.events import JOURNAL_COMMITTED

#: Messages up to which single publishes are faster: a server prepares a place on disk for each atomic one.
ATOMIC_MIN = 8
#: Single publishes that are under way at once.
WINDOW = 256
#: Atomic publishes that are under way at once. A server has room for 50 to a stream, from all its clients.
_PARALLEL = 4
#: Publishes of one client's messages, one after another, while all others wait.
SLICE = 16
#: Seconds until a message is published again whose id the servers are storing for another client.
_PAUSE = 0.02

T = TypeVar("T")

_BATCH = "Nats-Batch-Id"
_PLACE = "Nats-Batch-Sequence"
_COMMIT = "Nats-Batch-Commit"


class Publisher:
    """
    Publisher to one stream.

    :param is_atomic: the stream takes atomic publishes.
    """

    def __init__(self, connection: Client, stream: str, *, is_atomic: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._is_atomic = is_atomic
        # The names of atomic publishes have to be unique among all clients of the server.
        self._name = secrets.token_hex(12)
        self._count = itertools.count(1)
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def store(self, pending: Sequence[Delivery]) -> list[Stored | Exception | None]:
        """
        Store batches, or some of each; return their outcomes.

        Batches without an outcome must be given again, before any others of the same clients.
        """
        clients: dict[int, list[Delivery]] = {}
        for each in pending:
            clients.setdefault(each.client, []).append(each)
        begun = [some for some in clients.values() if some[0].is_apart]
        fresh = [some for some in clients.values() if not some[0].is_apart]
        await asyncio.gather(self._store_apart(begun), self._store_together(fresh))
        return [each.outcome for each in pending]

    async def _store_together(self, clients: Sequence[Sequence[Delivery]]) -> None:
        """Store the batches of several clients in one atomic publish, if the server takes that."""
        pending = list(itertools.chain.from_iterable(clients))
        count = sum(len(each.envelopes) for each in pending)
        if not self._is_atomic or len(pending) < 2 or not ATOMIC_MIN < count <= ATOMIC_MAX:
            await self._store_apart(clients)
            return
        try:
            numbers = iter(await self._publish_all([envelope for each in pending for envelope in each.envelopes]))
        except Refused as refused:
            if refused.is_about_message:
                await self._store_apart(clients)
            else:
                _fail(pending, refused)
        except Exception as error:
            _fail(pending, error)
        else:
            for each in pending:
                each.add_all(itertools.islice(numbers, len(each.envelopes)))

    async def _store_apart(self, clients: Sequence[Sequence[Delivery]]) -> None:
        """Store each client's batches by themselves."""
        for first in range(0, len(clients), WINDOW):
            await asyncio.gather(*map(self._store_in_order, clients[first : first + WINDOW]))

    async def _store_in_order(self, pending: Sequence[Delivery]) -> None:
        """Store the batches of one client, one after another, up to :data:`SLICE` publishes."""
        steps = SLICE
        for delivery in pending:
            try:
                steps = await self._store_some(delivery, steps)
            except Exception as error:
                # Batches behind it are not stored either, or there would be a gap.
                _fail(pending, error)
                return
            if not delivery.is_done:
                delivery.is_apart = True
                return

    async def _store_some(self, delivery: Delivery, steps: int) -> int:
        """Continue one delivery for some publishes; return how many are left."""
        while steps > 0 and not delivery.is_done:
            rest = delivery.rest()
            if self._is_atomic and delivery.take_attempt() and await self._try_all(delivery, rest):
                # An atomic publish may have been as large as all others together, so it ends the slice.
                steps = steps - 1 if delivery.is_done else 0
                continue
            # Messages without ids need not wait for each other: the client cannot send a rest again.
            some = rest[:1] if MESSAGE_ID in rest[0].headers else rest[:WINDOW]
            try:
                found = await _all(map(self._publish, some))
            except Refused as refused:
                if refused.number != IN_PROCESS or not delivery.may_retry(asyncio.get_running_loop().time()):
                    raise
                await asyncio.sleep(_PAUSE)
                return 0
            for sequence, is_new in found:
                delivery.add(sequence, is_new=is_new)
            steps -= 1
        return steps

    async def _try_all(self, delivery: Delivery, rest: Sequence[Envelope]) -> bool:
        """Publish a rest atomically; return False if none was stored, since one is a duplicate (or soon will be)."""
        try:
            delivery.add_all(await self._publish_all(rest))
        except Refused as refused:
            if refused.number in (DUPLICATE_IN_BATCH, IN_PROCESS):
                return False
            raise
        return True

    async def _publish(self, envelope: Envelope) -> tuple[int, bool]:
        """Publish one message; return its number, and whether it is new."""
        began = time.monotonic()
        answer = await request(self._connection, envelope.subject, envelope.message, envelope.headers)
        number, is_new = self._number(answer), not answer.get("duplicate")
        if is_new:
            JOURNAL_COMMITTED(messages=1, seconds=time.monotonic() - began)
        return number, is_new

    async def _publish_all(self, pending: Sequence[Envelope]) -> range:
        """Publish messages atomically; return their numbers."""
        async with self._slots, asyncio.timeout(TIMEOUT):
            began = time.monotonic()
            name = f"{self._name}-{next(self._count)}"
            for place, (subject, headers, message) in enumerate(pending[:-1], 1):
                await self._connection.publish(subject, message, headers={**headers, _BATCH: name, _PLACE: str(place)})
            last = pending[-1]
            ending = {**last.headers, _BATCH: name, _PLACE: str(len(pending)), _COMMIT: "1"}
            answer = await request(self._connection, last.subject, last.message, ending)
        if answer.get("batch") != name or answer.get("count") != len(pending):
            raise OSError(f"{len(pending)} messages were published, and {answer.get('count')} acknowledged")
        number = self._number(answer)
        JOURNAL_COMMITTED(messages=len(pending), seconds=time.monotonic() - began)
        return range(number - len(pending) + 1, number + 1)

    def _number(self, answer: dict[str, object]) -> int:
        number = answer.get("seq")
        if answer.get("stream") != self._stream or type(number) is not int or number < 1:
            raise OSError(f"the acknowledgement is another stream's, {answer.get('stream')}")
        return number


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all of these, also if one fails; return their results, or raise the first error."""
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[T]", outcomes)


def _fail(pending: Iterable[Delivery], error: Exception) -> None:
    """Give up what is not stored of these."""
    for each in pending:
        if not each.is_done:
            each.error = error
