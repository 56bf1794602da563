"""
What this node's clients have said and other nodes have not been sent yet: a bounded amount of it.

Pure. Laws:

* For one group, what is taken is in the order in which it was added.
* No more than :data:`MOST` bytes are held, whatever is added.
* Nothing disappears: what is not held, or not sent, is counted in `dropped`, and what was sent and may not have
  arrived, when the connection is lost, in `doubtful`.
* While the others cannot be reached, only what its sender waits for is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Bytes held, at most.
MOST = 8 * 1024 * 1024
#: What a message costs beyond its own bytes.
COST = 100


class Said(NamedTuple):
    """One message, and whether its sender waits."""

    message: bytes
    waits: bool


class Outgoing:
    """See above."""

    def __init__(self) -> None:
        self._held: dict[str, list[Said]] = {}
        self._size = 0
        #: What was taken, and its group.
        self._taken: tuple[str, list[Said]] = "", []
        #: Messages on their way, by how often the other side had been asked when they were sent.
        self._under_way: dict[int, int] = {}
        #: Whether the others can be reached.
        self.connected = False
        #: Messages so far that other nodes were not sent.
        self.dropped = 0
        #: Messages so far of which nobody knows whether other nodes were sent them.
        self.doubtful = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def has_room(self) -> bool:
        """Whoever waits need not."""
        return self.connected and self._size <= MOST // 2

    def add(self, group: str, message: bytes, *, waits: bool) -> None:
        """Hold this, or drop it."""
        size = len(message) + COST
        if self._size + size > MOST or not (self.connected or waits):
            self.dropped += 1
            return
        self._size += size
        self._held.setdefault(group, []).append(Said(message, waits))

    def take(self) -> tuple[str, Sequence[bytes]]:
        """All for the group that has waited longest. It is held until :meth:`sent` says otherwise."""
        group = next(iter(self._held))
        self._taken = group, self._held.pop(group)
        return group, [said.message for said in self._taken[1]]

    def sending(self, count: int, asked: int, answered: int) -> None:
        """
        So many messages are on their way now.

        :param asked: how often the other side has been asked whether it is there.
        :param answered: how often it has said so: what was on its way before has arrived.
        """
        self._under_way = {when: many for when, many in self._under_way.items() if when >= answered}
        self._under_way[asked] = self._under_way.get(asked, 0) + count

    def sent(self, count: int) -> None:
        """So many of what was taken have been sent. Of the others those that somebody waits for are held again."""
        group, taken = self._taken
        self._taken = "", []
        kept = [said for said in taken[count:] if said.waits]
        self.dropped += len(taken) - count - len(kept)
        self._size -= _size_of(taken) - _size_of(kept)
        if kept:
            self._held = {group: kept + self._held.pop(group, []), **self._held}

    def lost(self, answered: int) -> None:
        """The others cannot be reached any more."""
        self.connected = False
        self.doubtful += sum(many for when, many in self._under_way.items() if when >= answered)
        self._under_way.clear()
        for group, held in list(self._held.items()):
            kept = [said for said in held if said.waits]
            self.dropped += len(held) - len(kept)
            self._size -= _size_of(held) - _size_of(kept)
            if kept:
                self._held[group] = kept
            else:
                del self._held[group]


def _size_of(held: Sequence[Said]) -> int:
    return sum(len(said.message) + COST for said in held)
