"""
The receiving half of a session: bytes go to the framing as they come, and messages out of it when the handler is free.

What is held for a client is bounded: reading pauses at :data:`HIGH_WATER` undecoded bytes while the handler is busy. A
client that has not been let in has its messages looked at by its :class:`Entry`, and no handler.

Knows no transport, as the session.
"""

from __future__ import annotations

import abc
import typing
from collections.abc import Callable
from typing import Any

from mtserver import refusals
from mtserver.dispatch import CANCELLED
from mtserver.framing import Framing
from mtserver.session.limits import TokenBucket
from mtserver.session.sending import CUT_OFF, GONE, OPEN, SHUT, THROTTLED, YIELDED, Sender, Sharing
from mtserver.telemetry.events import MESSAGE_UNFINISHED

#: Undecoded bytes at which reading pauses while the handler is busy: one read of Twisted's.
HIGH_WATER = 65536
#: Messages handed to the handler in one go.
BATCH = 64
#: Bytes that are read and dropped meanwhile, at most.
LINGER_SIZE = 16 * 1024 * 1024

# Where a client's input stands.
READING = 0
PAUSED = 1
EXHAUSTED = 2  # the client has closed its side

Whole = Callable[[bytes, int, int], "list[bytes] | None"]


class Entry(typing.Protocol):
    """A client that has not been let in, and what its first message has to have. See :mod:`mtserver.auth`."""

    most: int

    def look(self) -> None: ...

    def end_input(self) -> None: ...

    def expire(self, seconds: float) -> None: ...

    def abandon(self) -> None: ...


class Gate(typing.Protocol):
    """Where clients become known."""

    #: How a message begins that belongs to authentication; empty: none does.
    verb: bytes

    def receive(self, applicant: Any) -> Entry: ...


class Receiving(Sharing, typing.Protocol):
    """What the receiving half needs of the server."""

    #: Framing.whole, or what never finds a whole message where each has to be counted as it comes.
    whole: Whole
    #: Of each session, where there is a `--message-rate`.
    buckets: dict[Any, TokenBucket]
    draining: bool
    #: Where clients have to say who they are; None where anybody is let in.
    gate: Gate | None

    def throttle(self, session: Any) -> None: ...


class Receiver(Sender):
    """Where a conversation's messages come from. The session that it is half of provides the verbs at the end."""

    __slots__ = ("_activity", "_began", "_entry", "_heard_at", "_input", "_waiting_since")

    def __init__(self, server: Receiving) -> None:
        super().__init__(server)
        self._input = READING
        #: While it has not been let in.
        self._entry: Entry | None = None
        #: When the unfinished message began; 0.0: there is none, or its time does not run.
        self._began = 0.0
        self._heard_at = 0.0
        #: Time at which the oldest of what is held had come.
        self._waiting_since = 0.0
        #: What it had received and answered at the last sweep; once our side is closed: the bytes received by then.
        self._activity = 0

    @property
    def messages_cut_off(self) -> int:
        """Of a connection only the last can be."""
        return 1 if self.holds & CUT_OFF else 0

    @property
    def input_has_ended(self) -> bool:
        """The client has closed its side."""
        return self._input == EXHAUSTED

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        client = self.client
        client.bytes_received += len(data)
        if self.framing is None and not (self.holds or self.busy):
            self.arrived_at = 0.0
            # The usual case: whole messages, and a handler that waits for them.
            server = self._server
            frames = server.whole(data, server.settings.max_message, BATCH)
            if frames is not None:
                client.messages_received += len(frames)
                server.dispatch.handle(self, frames)
                return
        self._collect(data)

    def _collect(self, data: bytes) -> None:
        if self._phase > OPEN or self._input == EXHAUSTED:
            # Lingering: read, so that closing does not reset, and dropped. A flood is not read out of politeness.
            if self._phase == SHUT and self.client.bytes_received - self._activity > LINGER_SIZE:
                self.abort()
            return
        self._heard_at = self._server.seconds()
        framing, entry = self.framing, self._entry
        if framing is None or not framing.buffered:
            self._waiting_since = self._heard_at
        if framing is None:
            most = self._server.settings.max_message if entry is None else entry.most
            framing = self.framing = self._server.framing(most)
        framing.feed(data)
        if entry is not None:
            entry.look()
        elif not (self.busy or self.holds):
            self._server.dispatch.wake(self)
        if (self.busy or self.holds) and self.framing is not None and self.framing.buffered >= HIGH_WATER:
            self._pause()

    # The conversation's view of us as its source.

    def take(self) -> list[bytes]:
        framing = self.framing
        if self.holds or framing is None:
            return []
        if framing.given_back:
            frames, framing.given_back = framing.given_back, []
            return frames
        buckets = self._server.buckets
        frames = self._take_at_rate(framing, buckets[self]) if buckets else framing.take(BATCH)
        gate = self._server.gate
        if gate is not None and gate.verb:
            frames = self._without_attempts(framing, frames, gate.verb)
        if frames:
            self.client.messages_received += len(frames)
            self._began = 0.0  # what is left began later
            self.arrived_at, self._waiting_since = self._waiting_since, self._heard_at
        return frames

    def _take_at_rate(self, framing: Framing, bucket: TokenBucket) -> list[bytes]:
        if self._phase == GONE or self._server.draining:
            return framing.take(BATCH)
        if not framing.buffered:
            return []
        tokens = bucket.available(self._server.seconds())
        if not tokens:
            self.holds |= THROTTLED
            self._pause()
            self._server.throttle(self)
            return []
        frames = framing.take(min(BATCH, tokens))
        bucket.spend(len(frames))
        return frames

    @staticmethod
    def _without_attempts(framing: Framing, frames: list[bytes], verb: bytes) -> list[bytes]:
        """A message that belongs to authentication never reaches the handler, which may well write it down."""
        for index, frame in enumerate(frames):
            if frame.startswith(verb):
                framing.fail(refusals.AUTH)
                return frames[:index]
        return frames

    def give_back(self, frames: list[bytes]) -> None:
        if frames:
            if self.framing is None:
                self.framing = self._server.framing(self._server.settings.max_message)
            self.framing.given_back = frames

    def yielded(self) -> None:
        self.holds |= YIELDED
        self._server.soon(self._take_turn)

    def _time_message(self, framing: Framing) -> None:
        """The time of an unfinished message runs from its own first byte, and only while we read on."""
        if framing.is_idle:
            self.framing = None
            self._began = 0.0
        elif not self._began:
            self._began = self._heard_at

    def unthrottle(self, now: float) -> bool:
        """Go on if there are tokens again; whether it did."""
        if self._phase == OPEN and not self._server.buckets[self].available(now):
            return False
        self.holds &= ~THROTTLED
        self._go_on()
        return True

    def _pause(self) -> None:
        if self._input == READING and self._phase < GONE:
            self._input = PAUSED
            self._pause_input()

    def _resume(self) -> None:
        if self._input == PAUSED and self._phase < GONE:
            self._input = READING
            self._resume_input()

    def _go_on(self) -> None:
        if not self.holds & ~CANCELLED:  # for whom nobody waits there is an end to be told of, all the same
            self._wake()
            self.flush()

    def _wake(self) -> None:
        self._server.dispatch.wake(self)

    def _take_turn(self) -> None:
        self.holds &= ~YIELDED
        self._go_on()

    def _discard_unfinished(self) -> None:
        """No more will come: a message that has begun and not ended is none."""
        framing, self.framing = self.framing, None
        if framing is not None and framing.unfinished:
            self.holds |= CUT_OFF
            MESSAGE_UNFINISHED(client=self.client.id, size=framing.buffered)

    def _forget_input(self) -> None:
        self.framing = None
        self._began = 0.0

    # The session provides these.

    @abc.abstractmethod
    def _pause_input(self) -> None:
        """Read no further."""

    @abc.abstractmethod
    def _resume_input(self) -> None:
        """Read on."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End at once, whatever is still to be sent."""
