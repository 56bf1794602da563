"""
Fan-out: a message to many clients is framed once, and each client gets one write for all of one iteration of the loop.

All clients are an audience, and so are the members of each group. One client gets everything in the order in which it
was sent: broadcasts, messages to its groups, replies, messages to it alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from mtserver.groups.groups import Recipient

#: Recipients of a message; None: all clients. The collection must not change before the message is delivered.
Audience = Collection[Any] | None


class Broadcast(NamedTuple):
    """One message to an audience, in each framing that a client in it has."""

    frames: Mapping[Any, bytes]
    #: Client that does not get the message.
    exclude: Any
    audience: Audience


class FanOut:
    """Collects the messages of one iteration of the loop, and delivers them."""

    def __init__(self) -> None:
        #: Messages to be delivered. Always the same list object, to which dispatch keeps a reference.
        self.unsent: list[Broadcast] = []
        #: Bytes of the unsent messages.
        self.size = 0
        # Counts of the unsent messages that a recipient has had already, in front of something else sent to it.
        self._had: dict[Any, int] = {}

    def add(self, frames: Mapping[Any, bytes], exclude: Any, audience: Audience = None) -> None:
        """Collect a message for an audience, without one client."""
        self.unsent.append(Broadcast(frames, exclude, audience))
        self.size += max(map(len, frames.values()), default=0)

    def catch_up(self, recipient: Recipient) -> None:
        """Deliver to one recipient at once, because something else is about to be sent to it."""
        if self.unsent:
            had, self._had[recipient] = self._had.get(recipient, 0), len(self.unsent)
            _deliver_to(recipient, self.unsent[had:])

    def deliver(self, everyone: Iterable[Any]) -> None:
        """Deliver all messages; `everyone` is the audience None."""
        unsent, had = self.unsent.copy(), self._had
        self.unsent.clear()
        self.size = 0
        self._had = {}
        runs = [
            (run, list(everyone if run[0].audience is None else run[0].audience))
            for run in (list(run) for _, run in itertools.groupby(unsent, key=_recipients_key))
        ]
        if len(runs) == 1:
            # Usual: one audience, without a dictionary of what each recipient is owed.
            ((run, recipients),) = runs
            exclude, data = run[0].exclude, _joined(run)
            for recipient in recipients:
                if recipient.client is not exclude and recipient not in had:
                    recipient.deliver(data[recipient.listener.framing], len(run))
        else:
            _deliver_runs(runs, had)
        for recipient, count in had.items():
            _deliver_to(recipient, unsent[count:])


def _recipients_key(broadcast: Broadcast) -> tuple[int, Any]:
    return id(broadcast.audience), broadcast.exclude


def _joined(run: list[Broadcast]) -> dict[Any, bytes]:
    """Join the messages of a run, in each framing."""
    return {framing: b"".join([broadcast.frames[framing] for broadcast in run]) for framing in run[0].frames}


def _deliver_runs(runs: list[tuple[list[Broadcast], list[Any]]], had: Collection[Any]) -> None:
    """Deliver several runs, in one write to a recipient of more than one."""
    owed: dict[Any, tuple[list[bytes], int]] = {}
    for run, recipients in runs:
        exclude, data = run[0].exclude, _joined(run)
        for recipient in recipients:
            if recipient.client is not exclude and recipient not in had:
                pieces, messages = owed.get(recipient) or ([], 0)
                pieces.append(data[recipient.listener.framing])
                owed[recipient] = pieces, messages + len(run)
    for recipient, (pieces, messages) in owed.items():
        recipient.deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces), messages)


def _deliver_to(recipient: Recipient, unsent: Iterable[Broadcast]) -> None:
    client, framing = recipient.client, recipient.listener.framing
    frames = [
        broadcast.frames[framing]
        for broadcast in unsent
        if broadcast.exclude is not client and (broadcast.audience is None or recipient in broadcast.audience)
    ]
    if frames:
        recipient.deliver(b"".join(frames), len(frames))
