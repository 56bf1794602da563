"""
Messages of this node's clients to groups, on their way to other nodes: a bounded queue.

Pure. Laws:

* Messages to one group are taken in the order in which they were added.
* No more than :data:`MAX_HELD` bytes are held, whatever is added.
* No message disappears uncounted: `dropped` counts those that were not sent, and `doubtful` those that were sent but
  may not have arrived when the connection was lost.
* While the other nodes cannot be reached, only messages whose sender waits are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Most bytes held.
MAX_HELD = 8 * 1024 * 1024
#: Bytes that a message costs beyond its own.
COST = 100


class HeldMessage(NamedTuple):
    """One message, and whether its sender waits."""

    message: bytes
    waits: bool


class Outgoing:
    """The queue."""

    def __init__(self) -> None:
        self._held: dict[str, list[HeldMessage]] = {}
        self._size = 0
        #: Messages taken and not settled by :meth:`sent` yet, and their group.
        self._taken: tuple[str, list[HeldMessage]] = "", []
        #: Counts of messages on their way, by the count of pings when they were sent.
        self._under_way: dict[int, int] = {}
        #: Whether the other nodes can be reached.
        self.connected = False
        #: Count of the messages that other nodes were not sent.
        self.dropped = 0
        #: Count of the messages that may not have reached the other nodes.
        self.doubtful = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def has_room(self) -> bool:
        """Whether a sender need not wait."""
        return self.connected and self._size <= MAX_HELD // 2

    def add(self, group: str, message: bytes, *, waits: bool) -> None:
        """Hold a message, or drop it."""
        size = len(message) + COST
        if self._size + size > MAX_HELD or not (self.connected or waits):
            self.dropped += 1
            return
        self._size += size
        self._held.setdefault(group, []).append(HeldMessage(message, waits))

    def take(self) -> tuple[str, Sequence[bytes]]:
        """Take all messages of the group that has waited longest. They count as held until :meth:`sent`."""
        group = next(iter(self._held))
        self._taken = group, self._held.pop(group)
        return group, [held.message for held in self._taken[1]]

    def sending(self, count: int, pings: int, pongs: int) -> None:
        """
        Note that so many messages are on their way now.

        :param pings: the count of pings that the server was sent.
        :param pongs: the count of pings that it has answered: messages sent before those have arrived.
        """
        self._under_way = {when: many for when, many in self._under_way.items() if when >= pongs}
        self._under_way[pings] = self._under_way.get(pings, 0) + count

    def sent(self, count: int) -> None:
        """Settle what was taken: so many were sent; of the others, those whose sender waits are held again."""
        group, taken = self._taken
        self._taken = "", []
        kept = [held for held in taken[count:] if held.waits]
        self.dropped += len(taken) - count - len(kept)
        self._size -= _size_of(taken) - _size_of(kept)
        if kept:
            self._held = {group: kept + self._held.pop(group, []), **self._held}

    def lost(self, pongs: int) -> None:
        """Drop messages whose sender does not wait, and count those in doubt: the connection was lost."""
        self.connected = False
        self.doubtful += sum(many for when, many in self._under_way.items() if when >= pongs)
        self._under_way.clear()
        for group, held in list(self._held.items()):
            kept = [each for each in held if each.waits]
            self.dropped += len(held) - len(kept)
            self._size -= _size_of(held) - _size_of(kept)
            if kept:
                self._held[group] = kept
            else:
                del self._held[group]


def _size_of(messages: Sequence[HeldMessage]) -> int:
    return sum(len(held.message) + COST for held in messages)
