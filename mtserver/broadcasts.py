"""
What is said to everyone: encoded once, and for each client one write for all that is said in one iteration of the loop.

For one client everything stays in the order in which it was said: broadcasts, replies, messages sent to it alone.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Protocol

from mtserver.client import Client


class Listener(Protocol):
    """One client, as far as broadcasts go."""

    client: Client

    def deliver(self, data: bytes, messages: int) -> None:
        """Send it that many messages in their framing."""
        ...


class Broadcasts:
    """Collects, and delivers."""

    def __init__(self) -> None:
        #: Framed messages that are still to be delivered, and who is not to get each. Always the same list.
        self.unsent: list[tuple[bytes, Client | None]] = []
        #: Their bytes.
        self.size = 0
        # How many of them a listener has had, if any: those that had something else to say.
        self._had: dict[Listener, int] = {}

    def add(self, frame: bytes, exclude: Client | None) -> None:
        """Say this to everyone but one."""
        self.unsent.append((frame, exclude))
        self.size += len(frame)

    def catch_up(self, listener: Listener) -> None:
        """Deliver to one, at once, because something else is about to be said to it."""
        had, self._had[listener] = self._had.get(listener, 0), len(self.unsent)
        _deliver(self.unsent[had:], (listener,))

    def deliver(self, listeners: Iterable[Listener]) -> None:
        """Deliver to all."""
        unsent, had = self.unsent.copy(), self._had
        self.unsent.clear()
        self.size = 0
        self._had = {}
        _deliver(unsent, [listener for listener in listeners if listener not in had] if had else listeners)
        for listener, count in had.items():
            _deliver(unsent[count:], (listener,))


def _deliver(unsent: list[tuple[bytes, Client | None]], listeners: Iterable[Listener]) -> None:
    for exclude, run in itertools.groupby(unsent, key=operator.itemgetter(1)):
        frames = [frame for frame, _ in run]
        data = b"".join(frames)
        for listener in listeners:
            if listener.client is not exclude:
                listener.deliver(data, len(frames))
