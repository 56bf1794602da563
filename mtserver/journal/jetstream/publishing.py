"""
Batches into a stream: several in one go wherever the server can (ADR-50), and one message after another where not.

Laws:

* What is published together is stored together or not at all, its numbers one after another; the server syncs once
  for all of it.
* If a server finds that some of it was stored before, it refuses all of it. Then the messages of a client go one after
  another, each when the one before is stored, so what is stored of them is always the first part.
* An outcome is the numbers that the server has acknowledged; an error, :class:`~.asking.Refused`, that nothing was
  done; any other that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

from nats.aio.client import Client

from mtserver.journal import Stored
from mtserver.journal.jetstream.asking import DUPLICATE_IN_BATCH, PATIENCE, Refused, ask
from mtserver.journal.jetstream.envelope import MESSAGE_ID, Envelope

#: The most messages that a server takes in one go.
TOGETHER = 1000
#: Up to so many messages it is faster to publish each by itself: a server prepares a place on disk for each go.
FEW = 8
#: Messages that are published before the first is acknowledged, where they do not go together.
WINDOW = 256
#: Goes that are under way at once. A server has room for 50 of a stream, from all who publish to it.
_AT_ONCE = 4
#: How often it is tried to store in one go what has been refused for one that was stored before.
_ATTEMPTS = 2

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

    async def store(self, pending: Sequence[Sequence[Envelope]]) -> list[Stored | Exception]:
        """Store these batches; what has become of each."""
        count = sum(map(len, pending))
        if self._is_atomic and len(pending) > 1 and FEW < count <= TOGETHER:
            try:
                sequences = await self._whole(list(itertools.chain.from_iterable(pending)))
            except Exception as error:
                return [error] * len(pending)
            if sequences is not None:
                numbers = iter(sequences)
                return [Stored(list(itertools.islice(numbers, len(each)))) for each in pending]
        outcomes: list[Stored | Exception] = []
        for some in _windows(pending):
            outcomes += await asyncio.gather(*map(self._outcome, some))
        return outcomes

    async def _outcome(self, pending: Sequence[Envelope]) -> Stored | Exception:
        try:
            return await self._in_order(pending)
        except Exception as error:
            return error

    async def _in_order(self, pending: Sequence[Envelope]) -> Stored:
        """Those of one client."""
        numbers: list[int] = []
        duplicates: set[int] = set()
        attempts, is_new = _ATTEMPTS, True
        while len(numbers) < len(pending):
            rest = pending[len(numbers) : len(numbers) + TOGETHER]
            if self._is_atomic and len(rest) > 1 and attempts and is_new:
                attempts -= 1
                sequences = await self._whole(rest)
                if sequences is not None:
                    attempts += 1
                    numbers += sequences
                    continue
            # Without ids there is nothing that the rest could be a rest of, so it need not wait.
            some = rest[:1] if MESSAGE_ID in rest[0].headers else rest[:WINDOW]
            for sequence, is_new in await _all(map(self._one, some)):
                if not is_new:
                    duplicates.add(len(numbers))
                numbers.append(sequence)
        return Stored(numbers, frozenset(duplicates))

    async def _one(self, envelope: Envelope) -> tuple[int, bool]:
        """The number of a message, and whether it is a new one."""
        answer = await ask(self._connection, envelope.subject, envelope.message, envelope.headers)
        return self._number(answer), not answer.get("duplicate")

    async def _whole(self, pending: Sequence[Envelope]) -> range | None:
        """The numbers of these, stored in one go; None: at least one of them was stored before, and now none was."""
        async with self._room, asyncio.timeout(PATIENCE):
            name = f"{self._name}-{next(self._goes)}"
            for place, (subject, headers, message) in enumerate(pending[:-1], 1):
                await self._connection.publish(subject, message, headers={**headers, _BATCH: name, _PLACE: str(place)})
            last = pending[-1]
            ending = {**last.headers, _BATCH: name, _PLACE: str(len(pending)), _COMMIT: "1"}
            try:
                answer = await ask(self._connection, last.subject, last.message, ending)
            except Refused as refused:
                if refused.number == DUPLICATE_IN_BATCH:
                    return None
                raise
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


def _windows(pending: Sequence[Sequence[Envelope]]) -> Iterator[list[Sequence[Envelope]]]:
    """Clients whose messages are under way at once: each has one at a time, or one go."""
    for first in range(0, len(pending), WINDOW):
        yield list(pending[first : first + WINDOW])
