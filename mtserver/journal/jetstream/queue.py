"""
Queue of the batches that wait to be published to a stream, in the order in which they were appended.

Pure: the time, and what the stream takes, are arguments. Laws:

* Batches that are taken together have a bounded number of messages and bytes, unless it is one batch.
* When a batch of a client is refused, so are all that the client has appended behind it: what is stored has no gap.
* ``size`` counts the bytes of what waits or is under way; a batch counts until its promise is resolved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mtserver.concurrency import offload
from mtserver.errors import BadMessage, Unavailable
from mtserver.journal.interface import Batch, Stored
from mtserver.journal.jetstream.delivery import ATOMIC_MAX, Delivery
from mtserver.journal.jetstream.envelope import Envelope, size_of
from mtserver.journal.jetstream.stream import Judgement

#: Bytes that are published before their acknowledgement is waited for; more only if they are one batch.
PUBLISH_SIZE = 2 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Entry:
    """A batch that waits, or is under way."""

    delivery: Delivery
    #: Bytes of all its messages.
    size: int
    #: Bytes of its largest message.
    largest: int
    promise: offload.Promise[Stored]
    has_ids: bool
    #: Time, by the loop's clock, until which it may wait to be published.
    until: float


class Queue:
    """Queue of one stream."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.size = 0

    def add(self, batch: Batch, pending: list[Envelope], promise: offload.Promise[Stored], until: float) -> None:
        """Add a batch at the end."""
        sizes = list(map(size_of, pending))
        entry = Entry(Delivery(batch.client, pending), sum(sizes), max(sizes), promise, bool(batch.ids), until)
        self.size += entry.size
        self._entries.append(entry)

    def take(self, judgement: Judgement) -> list[Entry]:
        """Take the batches to publish together next; refuse those in front that the stream does not take."""
        taken: list[Entry] = []
        count, size, begins = 0, 0, False
        while self._entries:
            entry = self._entries[0]
            unfit = _unfit(entry, judgement)
            if unfit is None and not entry.delivery.is_apart:
                count, size = count + len(entry.delivery.envelopes), size + entry.size
                if begins and (count > ATOMIC_MAX or size > PUBLISH_SIZE):
                    break
                begins = True
            self._entries.popleft()
            if unfit is None:
                taken.append(entry)
            else:
                self._fail(entry, unfit)
        return taken

    def put_back(self, entries: Iterable[Entry], until: float) -> None:
        """Put unfinished batches back in front."""
        for entry in reversed(list(entries)):
            entry.until = until
            self._entries.appendleft(entry)

    def keep(self, entry: Entry, outcome: Stored) -> None:
        """Resolve the promise of a batch that is stored."""
        self.size -= entry.size
        entry.promise.keep(outcome)

    def refuse(self, entries: Iterable[Entry]) -> None:
        """Refuse batches that are not known to be stored, and all that their clients have appended behind them."""
        refused = list(entries)
        clients = {entry.delivery.client for entry in refused}
        if clients:
            refused += [entry for entry in self._entries if entry.delivery.client in clients]
            self._entries = deque(entry for entry in self._entries if entry.delivery.client not in clients)
        for entry in refused:
            self._fail(entry, unavailable())

    def refuse_all(self) -> None:
        """Refuse all that waits."""
        self.refuse(list(self._entries))

    def expire(self, now: float) -> None:
        """Refuse what has waited for too long."""
        self.refuse([entry for entry in self._entries if entry.until < now])

    def _fail(self, entry: Entry, error: Exception) -> None:
        self.size -= entry.size
        entry.promise.fail(error)


def unavailable() -> Unavailable:
    """Return the error for a client whose messages are not stored, or not known to be."""
    return Unavailable("the journal cannot store this now")


def _unfit(entry: Entry, judgement: Judgement) -> Exception | None:
    """Return why a stream cannot take a batch; None if it can."""
    if entry.largest > judgement.size:
        return BadMessage(f"a message, with what is known of it, may have {judgement.size} bytes here")
    if entry.has_ids and not judgement.knows_ids:
        return Unavailable("the journal knows ids for too short a time to store messages that have one")
    return None
