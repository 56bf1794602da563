"""
What is waited for of other nodes: that they have heard of a join, and that they are there again after NATS was lost.

Pure: time is told. Nothing is waited for without end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from mtserver.concurrency.offload import Promise
from mtserver.groups.members import SILENCE

#: Seconds that a join waits for other nodes to say that they have heard of it.
CONFIRMING = 2.0
#: Seconds after which a node that was not heard of any more, when NATS was lost, was gone before that.
RECENT = 10.0


class Confirmations:
    """Joins, which are done when everybody has heard of them."""

    def __init__(self) -> None:
        #: By number: until when, for which nodes, and who waits.
        self._asked: dict[int, tuple[float, set[str], list[Promise[None]]]] = {}
        self._last = 0

    def ask(self, names: set[str], waiting: list[Promise[None]], now: float) -> int:
        """These are done when those nodes have confirmed it, by this number."""
        self._last += 1
        self._asked[self._last] = now + CONFIRMING, names, waiting
        return self._last

    def confirmed(self, number: int, name: str) -> None:
        """A node has heard of it."""
        if number in self._asked:
            _, names, _ = self._asked[number]
            names.discard(name)
            if not names:
                self._end(number)

    def tick(self, alive: Collection[str], now: float) -> None:
        """Only nodes that are there are waited for, and not for long."""
        for number, (until, names, _) in list(self._asked.items()):
            if now > until or names.isdisjoint(alive):
                self._end(number)

    def end(self) -> None:
        """Nobody will say anything any more."""
        for number in list(self._asked):
            self._end(number)

    def _end(self, number: int) -> None:
        _, _, waiting = self._asked.pop(number)
        keep(waiting)


class Returning:
    """
    Nodes that were there when NATS was lost, until they are there again.

    :param complete: called when they are, or have had their time.
    """

    def __init__(self, complete: Callable[[], Any]) -> None:
        self._complete = complete
        self._heard_at: dict[str, float] = {}
        self._awaited: set[str] = set()
        self._until = 0.0
        #: Nobody is waited for.
        self.is_complete = False

    def heard(self, name: str, now: float) -> None:
        """A node is there."""
        self._heard_at[name] = now
        self._seen(name)

    def gone(self, name: str) -> None:
        """A node has said goodbye."""
        self._heard_at.pop(name, None)
        self._seen(name)

    def _seen(self, name: str) -> None:
        if name in self._awaited:
            self._awaited.discard(name)
            self._look()

    def down(self, now: float) -> None:
        """NATS is lost: who was there is waited for from when it is back."""
        self.is_complete, self._until = False, 0.0
        self._heard_at = {name: when for name, when in self._heard_at.items() if now - when < RECENT}
        self._awaited |= set(self._heard_at)

    def up(self, now: float) -> None:
        """It is back."""
        self._until = now + SILENCE
        self._look()

    def tick(self, now: float) -> None:
        """Whoever has not come back by now will not."""
        if self._until and now > self._until:
            self._awaited.clear()
            self._look()

    def _look(self) -> None:
        if self._until and not self._awaited:
            self._until = 0.0
            self.is_complete = True
            self._complete()


def keep(waiting: list[Promise[None]]) -> None:
    """These need not wait any more."""
    for promise in waiting:
        promise.keep(None)
