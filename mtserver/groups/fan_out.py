"""
What is said to many: encoded once, and for each client one write for all that is said in one iteration of the loop.

Everyone is an audience, and so are the members of each group. For one client everything stays in the order in which it
was said: broadcasts, what its groups are told, replies, messages sent to it alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Listener(Protocol):
    """The port of a client, as far as fan-out goes."""

    @property
    def framing(self) -> Any: ...


class Hearer(Protocol):
    """One client, as far as fan-out goes."""

    @property
    def client(self) -> Any: ...

    @property
    def listener(self) -> Listener: ...

    def deliver(self, data: bytes, messages: int) -> None:
        """Send it that many messages in their framing."""
        ...


#: The clients who hear something; None: everyone. It stays as it is until what is unsent has been delivered.
Audience = Collection[Any] | None


class Said(NamedTuple):
    """One message, in each framing that somebody in the audience speaks."""

    frames: Mapping[Any, bytes]
    #: The client that does not hear it.
    exclude: Any
    audience: Audience


class FanOut:
    """What is said to many in this iteration of the loop, and who has had how much of it."""

    def __init__(self) -> None:
        #: What is still to be delivered. Always the same list.
        self.unsent: list[Said] = []
        #: Its bytes.
        self.size = 0
        # How many of them a hearer has had, if any: those that had something else to say.
        self._had: dict[Any, int] = {}

    def add(self, frames: Mapping[Any, bytes], exclude: Any, audience: Audience = None) -> None:
        """Say this to an audience, but to one client."""
        self.unsent.append(Said(frames, exclude, audience))
        self.size += max(map(len, frames.values()), default=0)

    def catch_up(self, hearer: Hearer) -> None:
        """Deliver to one, at once, because something else is about to be said to it."""
        if self.unsent:
            had, self._had[hearer] = self._had.get(hearer, 0), len(self.unsent)
            _deliver_to(hearer, self.unsent[had:])

    def deliver(self, everyone: Iterable[Any]) -> None:
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
            ((run, hearers),) = runs
            exclude, data = run[0].exclude, _joined(run)
            for hearer in hearers:
                if hearer.client is not exclude and hearer not in had:
                    hearer.deliver(data[hearer.listener.framing], len(run))
        else:
            _deliver_runs(runs, had)
        for hearer, count in had.items():
            _deliver_to(hearer, unsent[count:])


def _to_whom(said: Said) -> tuple[int, Any]:
    return id(said.audience), said.exclude


def _joined(run: list[Said]) -> dict[Any, bytes]:
    """All that is said in a run, in each framing."""
    return {framing: b"".join([said.frames[framing] for said in run]) for framing in run[0].frames}


def _deliver_runs(runs: list[tuple[list[Said], list[Any]]], had: Collection[Any]) -> None:
    """Deliver several runs; whoever hears more than one has them in one write."""
    owed: dict[Any, tuple[list[bytes], int]] = {}
    for run, hearers in runs:
        exclude, data = run[0].exclude, _joined(run)
        for hearer in hearers:
            if hearer.client is not exclude and hearer not in had:
                pieces, messages = owed.get(hearer) or ([], 0)
                pieces.append(data[hearer.listener.framing])
                owed[hearer] = pieces, messages + len(run)
    for hearer, (pieces, messages) in owed.items():
        hearer.deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces), messages)


def _deliver_to(hearer: Hearer, unsent: Iterable[Said]) -> None:
    client, framing = hearer.client, hearer.listener.framing
    frames = [
        said.frames[framing]
        for said in unsent
        if said.exclude is not client and (said.audience is None or hearer in said.audience)
    ]
    if frames:
        hearer.deliver(b"".join(frames), len(frames))
