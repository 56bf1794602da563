"""
What a client is told of a message that is stored: ``OK <seq>``, and what more there is to say.

The words behind the number, in this order: the level, if it is not ``durable``; ``@<id>``, in answer to ``RESUME``;
``dup``, if the message was stored before. How that looks where messages are typed is the codec's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

#: What an acknowledged message survives: the end of the server's process;
ACCEPTED = "accepted"
#: the end of the machine's power as well, which goes without saying;
DURABLE = "durable"
#: the loss of a machine.
REPLICATED = "replicated"
#: From the least to the most.
LEVELS = (ACCEPTED, DURABLE, REPLICATED)


class Ack(NamedTuple):
    """One message is stored. A handler may return it; ``bytes(ack)`` is how it is told in text."""

    #: The message's number in the journal.
    sequence: int
    #: It was stored before, when it got this number.
    duplicate: bool = False
    #: What that means: ``accepted``, ``durable`` or ``replicated``.
    level: str = DURABLE
    #: Of the message, where that is what was asked for.
    id: str = ""

    def __bytes__(self) -> bytes:
        words = [b"OK %d" % self.sequence]
        if self.level != DURABLE:
            words.append(self.level.encode())
        if self.id:
            words.append(b"@" + self.id.encode())
        if self.duplicate:
            words.append(b"dup")
        return b" ".join(words)


class Acks(Sequence[Ack]):
    """
    Of several messages, in their order.

    :param sequences: their numbers.
    :param duplicates: the places of those that were stored before.
    """

    __slots__ = ("_duplicates", "_level", "sequences")

    def __init__(self, sequences: Sequence[int], duplicates: frozenset[int], level: str) -> None:
        self.sequences = sequences
        self._duplicates = duplicates
        self._level = level

    def words(self) -> list[bytes]:
        """How each is told in text, all at once."""
        if self._level == DURABLE and not self._duplicates:
            return [b"OK %d" % sequence for sequence in self.sequences]
        return [bytes(ack) for ack in self]

    def __len__(self) -> int:
        return len(self.sequences)

    @overload
    def __getitem__(self, place: int) -> Ack: ...
    @overload
    def __getitem__(self, place: slice) -> list[Ack]: ...
    def __getitem__(self, place: int | slice) -> Ack | list[Ack]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self.sequences))[place]
        return Ack(self.sequences[place], place in self._duplicates, self._level)

    def __iter__(self) -> Iterator[Ack]:
        for place, sequence in enumerate(self.sequences):
            yield Ack(sequence, place in self._duplicates, self._level)

    def __repr__(self) -> str:
        return f"<Acks {list(self)}>"
