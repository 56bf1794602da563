"""
Acknowledgements: what a client is told when its message is stored.

As text, ``OK <seq>``, followed in this order by the level, if it is not ``durable``; ``@<id>``, in the answer to
``RESUME``; ``dup``, if the message was stored before. Where messages are typed, the codec encodes the fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

#: Level of a message that survives the end of the server's process.
ACCEPTED = "accepted"
#: Level of a message that also survives a power cut; the default, left out of the text.
DURABLE = "durable"
#: Level of a message that also survives the loss of a machine.
REPLICATED = "replicated"
#: Levels from the lowest to the highest.
LEVELS = (ACCEPTED, DURABLE, REPLICATED)


class Ack(NamedTuple):
    """Acknowledgement of one message. A handler may return it; ``bytes(ack)`` is its text."""

    #: Number of the message in the journal.
    sequence: int
    #: Whether the message was stored before and got its number then.
    duplicate: bool = False
    #: Level at which it is stored: ``accepted``, ``durable`` or ``replicated``.
    level: str = DURABLE
    #: Id of the message, in the answer to ``RESUME``; empty otherwise.
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
    Acknowledgements of several messages, in their order; each :class:`Ack` is made when it is looked at.

    :param sequences: numbers of the messages.
    :param duplicates: places of those that were stored before.
    """

    __slots__ = ("_duplicates", "_level", "sequences")

    def __init__(self, sequences: Sequence[int], duplicates: frozenset[int], level: str) -> None:
        self.sequences = sequences
        self._duplicates = duplicates
        self._level = level

    def words(self) -> list[bytes]:
        """Return the text of each; in the usual case without an :class:`Ack` for each."""
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
