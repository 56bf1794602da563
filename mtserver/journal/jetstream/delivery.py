"""
Delivery of one batch into a stream: how far it has come, and how its rest may be published next.

Pure. The stored part of a batch is always its first part: numbers are only added behind those that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtserver.journal.interface import Stored
from mtserver.journal.jetstream.envelope import Envelope
from mtserver.journal.jetstream.request import TIMEOUT

#: Messages that a server takes in one atomic publish, at most.
ATOMIC_MAX = 1000
#: Atomic publishes of a rest that are tried until one succeeds: a message in it may have been stored before.
_ATTEMPTS = 2


class Delivery:
    """
    A batch on its way.

    :param client: number of the client; its batches are stored in the order in which they are given.
    """

    __slots__ = ("_attempts", "_is_new", "_until", "client", "duplicates", "envelopes", "error", "is_apart", "numbers")

    def __init__(self, client: int, envelopes: Sequence[Envelope]) -> None:
        self.client = client
        self.envelopes = envelopes
        #: Numbers of the first part, which is stored.
        self.numbers: list[int] = []
        #: Places of the messages that were stored before.
        self.duplicates: set[int] = set()
        #: Error because of which the rest will not be stored.
        self.error: Exception | None = None
        #: Whether it was begun apart from other clients' batches, and not finished.
        self.is_apart = False
        self._attempts = _ATTEMPTS
        self._is_new = True
        self._until: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether all of it is stored."""
        return len(self.numbers) == len(self.envelopes)

    @property
    def outcome(self) -> Stored | Exception | None:
        """Numbers or error; None while some is left to be published."""
        if self.error is not None:
            return self.error
        return Stored(self.numbers, frozenset(self.duplicates)) if self.is_done else None

    def rest(self) -> Sequence[Envelope]:
        """Return the messages to publish next, at most :data:`ATOMIC_MAX`."""
        return self.envelopes[len(self.numbers) : len(self.numbers) + ATOMIC_MAX]

    def take_attempt(self) -> bool:
        """Whether to publish the rest atomically now; counts the attempts, and stops behind a duplicate."""
        if not self._attempts or not self._is_new or len(self.envelopes) - len(self.numbers) < 2:
            return False
        self._attempts -= 1
        return True

    def add_all(self, numbers: Iterable[int]) -> None:
        """Add the numbers of an atomic publish."""
        self._attempts = _ATTEMPTS
        self.numbers.extend(numbers)

    def add(self, sequence: int, *, is_new: bool) -> None:
        """Add the number of the next message."""
        self._is_new, self._until = is_new, None
        if not is_new:
            self.duplicates.add(len(self.numbers))
        self.numbers.append(sequence)

    def may_retry(self, now: float) -> bool:
        """Whether to wait on for a message of the same id that the servers are storing for another client."""
        if self._until is None:
            self._until = now + TIMEOUT
        return now < self._until
