"""
What waits to be published to a stream: batches in the order in which they were appended, with what their authors await.

Pure: time and what the stream takes are told. Laws:

* What is published together is so much and no more, unless it is one batch.
* When something of a client is refused, so is all that it has sent behind that: what is stored has no gap.
* `size` are the bytes of what waits or is under way; each batch counts until its promise is kept or failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mtserver.concurrency import offload
from mtserver.errors import BadMessage, Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.jetstream.delivery import TOGETHER, Delivery
from mtserver.journal.jetstream.envelope import Envelope, size_of
from mtserver.journal.jetstream.stream import Judgement

#: Bytes that are published before they are waited for; more only if they are one batch.
GO_SIZE = 2 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Entry:
    """A batch that waits, or is under way."""

    delivery: Delivery
    #: Bytes of all of them, and of the largest.
    size: int
    largest: int
    promise: offload.Promise[Stored]
    #: Its messages have ids.
    has_ids: bool
    #: Until when it may wait to be published, in the loop's time.
    until: float


class Waiting:
    """See above."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.size = 0

    def add(self, batch: Batch, pending: list[Envelope], promise: offload.Promise[Stored], until: float) -> None:
        """Have this wait behind all else."""
        sizes = list(map(size_of, pending))
        entry = Entry(Delivery(batch.client, pending), sum(sizes), max(sizes), promise, bool(batch.ids), until)
        self.size += entry.size
        self._entries.append(entry)

    def take(self, judgement: Judgement) -> list[Entry]:
        """What is published together next; what the stream does not take is refused."""
        taken: list[Entry] = []
        count, size, begins = 0, 0, False
        while self._entries:
            entry = self._entries[0]
            unfit = _unfit(entry, judgement)
            if unfit is None and not entry.delivery.is_apart:
                count, size = count + len(entry.delivery.envelopes), size + entry.size
                if begins and (count > TOGETHER or size > GO_SIZE):
                    break
                begins = True
            self._entries.popleft()
            if unfit is None:
                taken.append(entry)
            else:
                self._fail(entry, unfit)
        return taken

    def put_back(self, entries: Iterable[Entry], until: float) -> None:
        """These are to be gone on with before all else."""
        for entry in reversed(list(entries)):
            entry.until = until
            self._entries.appendleft(entry)

    def keep(self, entry: Entry, outcome: Stored) -> None:
        """It is stored."""
        self.size -= entry.size
        entry.promise.keep(outcome)

    def refuse(self, entries: Iterable[Entry]) -> None:
        """These are not stored, or nobody knows; nor is to be what their clients have sent behind them."""
        refused = list(entries)
        clients = {entry.delivery.client for entry in refused}
        if clients:
            refused += [entry for entry in self._entries if entry.delivery.client in clients]
            self._entries = deque(entry for entry in self._entries if entry.delivery.client not in clients)
        for entry in refused:
            self._fail(entry, unavailable())

    def refuse_all(self) -> None:
        """Nothing that waits is to be stored."""
        self.refuse(list(self._entries))

    def expire(self, now: float) -> None:
        """What has waited for too long is refused."""
        self.refuse([entry for entry in self._entries if entry.until < now])

    def _fail(self, entry: Entry, error: Exception) -> None:
        self.size -= entry.size
        entry.promise.fail(error)


def unavailable() -> Unavailable:
    """What a client is told whose messages are not stored now, or not known to be."""
    return Unavailable("the journal cannot store this now")


def _unfit(entry: Entry, judgement: Judgement) -> Exception | None:
    """Why it cannot be stored there, if it cannot."""
    if entry.largest > judgement.size:
        return BadMessage(f"a message, with what is known of it, may have {judgement.size} bytes here")
    if entry.has_ids and not judgement.knows_ids:
        return Unavailable("the journal knows ids for too short a time to store messages that have one")
    return None
