"""
What this node's clients have said and other nodes have not been sent yet: a bounded amount of it.

Pure. Laws:

* For one group, what is taken is in the order in which it was added.
* No more than :data:`MOST` bytes are held, whatever is added.
* Nothing disappears: what is not held, or not sent, is counted in `dropped`.
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
        self._being_sent = 0
        #: Whether the others can be reached.
        self.connected = False
        #: Messages so far that other nodes were not sent.
        self.dropped = 0

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
        messages = [said.message for said in self._held.pop(group)]
        self._being_sent = sum(map(len, messages)) + COST * len(messages)
        return group, messages

    def sent(self, dropped: int = 0) -> None:
        """What was taken has been sent, but for so many."""
        self._size -= self._being_sent
        self._being_sent = 0
        self.dropped += dropped

    def lost(self) -> None:
        """The others cannot be reached any more."""
        self.connected = False
        for group, held in list(self._held.items()):
            kept = [said for said in held if said.waits]
            self.dropped += len(held) - len(kept)
            self._size -= sum(len(said.message) + COST for said in held if not said.waits)
            if kept:
                self._held[group] = kept
            else:
                del self._held[group]
