"""
A batch on its way into a stream: how far it has come, and what it may be tried with next.

Pure. What is stored of one is always its first part: numbers are only added behind those that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtserver.journal.interface import Stored
from mtserver.journal.jetstream.envelope import Envelope
from mtserver.journal.jetstream.request import PATIENCE

#: The most messages that a server takes in one go.
TOGETHER = 1000
#: How often it is tried to store in one go what has been refused for one that was stored before.
_ATTEMPTS = 2


class Delivery:
    """
    A batch on its way, and how far it has come.

    :param client: whose it is; what is one client's is stored in the order in which it is given.
    """

    __slots__ = ("_attempts", "_is_new", "_until", "client", "duplicates", "envelopes", "error", "is_apart", "numbers")

    def __init__(self, client: int, envelopes: Sequence[Envelope]) -> None:
        self.client = client
        self.envelopes = envelopes
        #: Of the first part of them, which is stored; and the places of those that were before.
        self.numbers: list[int] = []
        self.duplicates: set[int] = set()
        #: Why the rest never will be.
        self.error: Exception | None = None
        #: It was begun by itself, and is gone on with so.
        self.is_apart = False
        self._attempts = _ATTEMPTS
        self._is_new = True
        self._until: float | None = None

    @property
    def is_done(self) -> bool:
        """All of it is stored."""
        return len(self.numbers) == len(self.envelopes)

    @property
    def outcome(self) -> Stored | Exception | None:
        """What has become of it; None: it is to be gone on with."""
        if self.error is not None:
            return self.error
        return Stored(self.numbers, frozenset(self.duplicates)) if self.is_done else None

    def rest(self) -> Sequence[Envelope]:
        """What comes next: no more than a server takes in one go."""
        return self.envelopes[len(self.numbers) : len(self.numbers) + TOGETHER]

    def attempt(self) -> bool:
        """Whether to try to store the rest in one go."""
        if not self._attempts or not self._is_new or len(self.envelopes) - len(self.numbers) < 2:
            return False
        self._attempts -= 1
        return True

    def succeed(self, numbers: Iterable[int]) -> None:
        """The next were stored in one go."""
        self._attempts = _ATTEMPTS
        self.numbers.extend(numbers)

    def add(self, sequence: int, *, is_new: bool) -> None:
        """The next one is stored."""
        self._is_new, self._until = is_new, None
        if not is_new:
            self.duplicates.add(len(self.numbers))
        self.numbers.append(sequence)

    def may_wait(self, now: float) -> bool:
        """Whether there is time yet for what is about to be stored for somebody else."""
        if self._until is None:
            self._until = now + PATIENCE
        return now < self._until
