"""
Barriers: waits for other nodes, that they know of a join, and that they are back after NATS was lost.

Pure: the time is passed in. No wait is without a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from mtserver.concurrency.offload import Promise
from mtserver.groups.members import SILENCE

#: Most seconds that a join waits for other nodes to confirm it.
CONFIRMING = 2.0
#: Seconds of silence before the loss of NATS by which a node had gone already, and is not waited for.
RECENT = 10.0


class JoinBarrier:
    """Holds up joins until all other nodes have confirmed that they know of them."""

    def __init__(self) -> None:
        #: Rounds of joins, by number: a deadline, the nodes that have not confirmed it, and the joins that wait.
        self._rounds: dict[int, tuple[float, set[str], list[Promise[None]]]] = {}
        self._last = 0

    def begin(self, names: set[str], waiting: list[Promise[None]], now: float) -> int:
        """Hold up these joins until these nodes have confirmed the number that is returned."""
        self._last += 1
        self._rounds[self._last] = now + CONFIRMING, names, waiting
        return self._last

    def confirm(self, number: int, name: str) -> None:
        """Note that a node has confirmed a number."""
        if number in self._rounds:
            _, names, _ = self._rounds[number]
            names.discard(name)
            if not names:
                self._end(number)

    def tick(self, alive: Collection[str], now: float) -> None:
        """Release joins that have waited for long enough, or for nodes that are gone."""
        for number, (until, names, _) in list(self._rounds.items()):
            if now > until or names.isdisjoint(alive):
                self._end(number)

    def end(self) -> None:
        """Release all joins."""
        for number in list(self._rounds):
            self._end(number)

    def _end(self, number: int) -> None:
        _, _, waiting = self._rounds.pop(number)
        release(waiting)


class ReturnBarrier:
    """
    Holds up messages after NATS was lost, until the nodes that were there before are there again.

    :param complete: called when they are, or have had their time.
    """

    def __init__(self, complete: Callable[[], Any]) -> None:
        self._complete = complete
        self._seen_at: dict[str, float] = {}
        self._awaited: set[str] = set()
        self._until = 0.0
        #: Whether NATS is there and no node is waited for.
        self.is_complete = False

    def seen(self, name: str, now: float) -> None:
        """Note that a node is there."""
        self._seen_at[name] = now
        self._wait_no_more(name)

    def gone(self, name: str) -> None:
        """Note that a node has said goodbye."""
        self._seen_at.pop(name, None)
        self._wait_no_more(name)

    def _wait_no_more(self, name: str) -> None:
        if name in self._awaited:
            self._awaited.discard(name)
            self._check()

    def down(self, now: float) -> None:
        """Wait for the nodes that were there when NATS was lost, from its return on."""
        self.is_complete, self._until = False, 0.0
        self._seen_at = {name: when for name, when in self._seen_at.items() if now - when < RECENT}
        self._awaited |= set(self._seen_at)

    def up(self, now: float) -> None:
        """Begin the wait: NATS is back."""
        self._until = now + SILENCE
        self._check()

    def tick(self, now: float) -> None:
        """End the wait for nodes that have not come back in time."""
        if self._until and now > self._until:
            self._awaited.clear()
            self._check()

    def _check(self) -> None:
        if self._until and not self._awaited:
            self._until = 0.0
            self.is_complete = True
            self._complete()


def release(waiting: list[Promise[None]]) -> None:
    """Let joins go on."""
    for promise in waiting:
        promise.keep(None)
