"""
What is said to many: encoded once, and for each client one write for all that is said in one iteration of the loop.

Everyone is an audience, and so are the members of each group. For one client everything stays in the order in which it
was said: broadcasts, what its groups are told, replies, messages sent to it alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from mtserver.app import Client


class Listener(Protocol):
    """One client, as far as broadcasts go."""

    client: Client

    def deliver(self, data: bytes, messages: int) -> None:
        """Send it that many messages in their framing."""
        ...


#: Who hears something; None: everyone. It stays as it is until what is unsent has been delivered.
Audience = Collection[Listener] | None


class Said(NamedTuple):
    """One message, in its framing."""

    frame: bytes
    exclude: Client | None
    audience: Audience


class Broadcasts:
    """Collects, and delivers."""

    def __init__(self) -> None:
        #: What is still to be delivered. Always the same list.
        self.unsent: list[Said] = []
        #: Its bytes.
        self.size = 0
        # How many of them a listener has had, if any: those that had something else to say.
        self._had: dict[Listener, int] = {}

    def add(self, frame: bytes, exclude: Client | None, audience: Audience = None) -> None:
        """Say this to an audience, but to one."""
        self.unsent.append(Said(frame, exclude, audience))
        self.size += len(frame)

    def catch_up(self, listener: Listener) -> None:
        """Deliver to one, at once, because something else is about to be said to it."""
        had, self._had[listener] = self._had.get(listener, 0), len(self.unsent)
        _deliver_to(listener, self.unsent[had:])

    def deliver(self, everyone: Iterable[Listener]) -> None:
        """Deliver to all."""
        unsent, had = self.unsent.copy(), self._had
        self.unsent.clear()
        self.size = 0
        self._had = {}
        runs = [
            (run, list(everyone if run[0].audience is None else run[0].audience))
            for run in (list(run) for _, run in itertools.groupby(unsent, key=_to_whom))
        ]
        if len(runs) == 1:
            # The usual case.
            ((run, listeners),) = runs
            exclude, data = run[0].exclude, b"".join([said.frame for said in run])
            for listener in listeners:
                if listener.client is not exclude and listener not in had:
                    listener.deliver(data, len(run))
        else:
            _deliver_runs(runs, had)
        for listener, count in had.items():
            _deliver_to(listener, unsent[count:])


def _to_whom(said: Said) -> tuple[int, Client | None]:
    return id(said.audience), said.exclude


def _deliver_runs(runs: list[tuple[list[Said], list[Listener]]], had: Collection[Listener]) -> None:
    """Whoever hears several runs has them in one write."""
    owed: dict[Listener, tuple[list[bytes], int]] = {}
    for run, listeners in runs:
        exclude, data = run[0].exclude, b"".join([said.frame for said in run])
        for listener in listeners:
            if listener.client is not exclude and listener not in had:
                pieces, messages = owed.get(listener) or ([], 0)
                pieces.append(data)
                owed[listener] = pieces, messages + len(run)
    for listener, (pieces, messages) in owed.items():
        listener.deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces), messages)


def _deliver_to(listener: Listener, unsent: Iterable[Said]) -> None:
    client = listener.client
    frames = [
        said.frame
        for said in unsent
        if said.exclude is not client and (said.audience is None or listener in said.audience)
    ]
    if frames:
        listener.deliver(b"".join(frames), len(frames))
