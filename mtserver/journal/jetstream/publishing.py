"""
Batches into a stream: several in one go wherever the server can (ADR-50), and one message after another where not.

Laws:

* What is published together is stored together or not at all, its numbers one after another; the server syncs once
  for all of it.
* If a server refuses what was published together, whatever for (some of it was stored before, one subject is full),
  then the messages of each client go by themselves, one after another, each when the one before is stored: so what is
  stored of a client's is always the first part, and nobody is refused for what somebody else has sent.
* Where that takes long, others need not wait: a client's goes on with what is published next.
* An outcome is the numbers that the server has acknowledged; an error, :class:`~.asking.Refused`, that nothing more
  was done; any other that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar, cast

from nats.aio.client import Client

from mtserver.journal.interface import Stored
from mtserver.journal.jetstream.delivery import TOGETHER, Delivery
from mtserver.journal.jetstream.envelope import MESSAGE_ID, Envelope
from mtserver.journal.jetstream.request import DUPLICATE_IN_BATCH, IN_PROCESS, PATIENCE, Refused, ask

#: Up to so many messages it is faster to publish each by itself: a server prepares a place on disk for each go.
FEW = 8
#: Messages that are published before the first is acknowledged, where they do not go together.
WINDOW = 256
#: Goes that are under way at once. A server has room for 50 of a stream, from all who publish to it.
_AT_ONCE = 4
#: Messages of one client that go one after another while all others wait.
SLICE = 16
#: Seconds until a message is sent again that the servers are about to store for somebody else.
_PAUSE = 0.02

T = TypeVar("T")

_BATCH = "Nats-Batch-Id"
_PLACE = "Nats-Batch-Sequence"
_COMMIT = "Nats-Batch-Commit"


class Publisher:
    """
    Publishes to one stream.

    :param is_atomic: the stream takes several messages in one go.
    """

    def __init__(self, connection: Client, stream: str, *, is_atomic: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._is_atomic = is_atomic
        # As long as it is unique among all who publish there.
        self._name = secrets.token_hex(12)
        self._goes = itertools.count(1)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def store(self, pending: Sequence[Delivery]) -> list[Stored | Exception | None]:
        """
        Store these, or some of each; what has become of them.

        Those that are to be gone on with are given again before any others of the same clients.
        """
        clients: dict[int, list[Delivery]] = {}
        for each in pending:
            clients.setdefault(each.client, []).append(each)
        begun = [some for some in clients.values() if some[0].is_apart]
        fresh = [some for some in clients.values() if not some[0].is_apart]
        await asyncio.gather(self._apart(begun), self._begin(fresh))
        return [each.outcome for each in pending]

    async def _begin(self, clients: Sequence[Sequence[Delivery]]) -> None:
        """In one go, if the server takes that."""
        pending = list(itertools.chain.from_iterable(clients))
        count = sum(len(each.envelopes) for each in pending)
        if not self._is_atomic or len(pending) < 2 or not FEW < count <= TOGETHER:
            await self._apart(clients)
            return
        try:
            numbers = iter(await self._whole([envelope for each in pending for envelope in each.envelopes]))
        except Refused as refused:
            if refused.is_of_messages:
                await self._apart(clients)
            else:
                _fail(pending, refused)
        except Exception as error:
            _fail(pending, error)
        else:
            for each in pending:
                each.succeed(itertools.islice(numbers, len(each.envelopes)))

    async def _apart(self, clients: Sequence[Sequence[Delivery]]) -> None:
        """Each client's by themselves."""
        for first in range(0, len(clients), WINDOW):
            await asyncio.gather(*map(self._in_order, clients[first : first + WINDOW]))

    async def _in_order(self, pending: Sequence[Delivery]) -> None:
        """Those of one client, as far as a slice goes."""
        steps = SLICE
        for delivery in pending:
            try:
                steps = await self._advance(delivery, steps)
            except Exception as error:
                # What comes behind it is not stored either, or there would be a gap.
                _fail(pending, error)
                return
            if not delivery.is_done:
                delivery.is_apart = True
                return

    async def _advance(self, delivery: Delivery, steps: int) -> int:
        """Go on with one; how many steps are left then."""
        while steps > 0 and not delivery.is_done:
            rest = delivery.rest()
            if self._is_atomic and delivery.attempt() and await self._in_one_go(delivery, rest):
                # That may have been as much as everybody else's together.
                steps = steps - 1 if delivery.is_done else 0
                continue
            # Without ids there is nothing that the rest could be a rest of, so it need not wait.
            some = rest[:1] if MESSAGE_ID in rest[0].headers else rest[:WINDOW]
            try:
                found = await _all(map(self._one, some))
            except Refused as refused:
                if refused.number != IN_PROCESS or not delivery.may_wait(asyncio.get_running_loop().time()):
                    raise
                await asyncio.sleep(_PAUSE)
                return 0
            for sequence, is_new in found:
                delivery.add(sequence, is_new=is_new)
            steps -= 1
        return steps

    async def _in_one_go(self, delivery: Delivery, rest: Sequence[Envelope]) -> bool:
        """Whether all of these were stored; if not, none was, since one of them is known (or soon will be)."""
        try:
            delivery.succeed(await self._whole(rest))
        except Refused as refused:
            if refused.number in (DUPLICATE_IN_BATCH, IN_PROCESS):
                return False
            raise
        return True

    async def _one(self, envelope: Envelope) -> tuple[int, bool]:
        """The number of a message, and whether it is a new one."""
        answer = await ask(self._connection, envelope.subject, envelope.message, envelope.headers)
        return self._number(answer), not answer.get("duplicate")

    async def _whole(self, pending: Sequence[Envelope]) -> range:
        """The numbers of these, stored in one go."""
        async with self._room, asyncio.timeout(PATIENCE):
            name = f"{self._name}-{next(self._goes)}"
            for place, (subject, headers, message) in enumerate(pending[:-1], 1):
                await self._connection.publish(subject, message, headers={**headers, _BATCH: name, _PLACE: str(place)})
            last = pending[-1]
            ending = {**last.headers, _BATCH: name, _PLACE: str(len(pending)), _COMMIT: "1"}
            answer = await ask(self._connection, last.subject, last.message, ending)
        if answer.get("batch") != name or answer.get("count") != len(pending):
            raise OSError(f"{len(pending)} messages were published, and {answer.get('count')} acknowledged")
        number = self._number(answer)
        return range(number - len(pending) + 1, number + 1)

    def _number(self, answer: dict[str, object]) -> int:
        number = answer.get("seq")
        if answer.get("stream") != self._stream or type(number) is not int or number < 1:
            raise OSError(f"the acknowledgement is another stream's, {answer.get('stream')}")
        return number


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """What all of these give, once all are done; or the first error."""
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[T]", outcomes)


def _fail(pending: Iterable[Delivery], error: Exception) -> None:
    """Nothing more of these is stored."""
    for each in pending:
        if not each.is_done:
            each.error = error
