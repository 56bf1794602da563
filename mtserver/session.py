"""
One client's session: its limits, its deadlines, the order of its messages and replies, and how it ends.

Bytes go to the framing as they come; the conversation pulls messages out when the handler is free. Replies are
collected and written once per batch. Laws:

* One read leads to at most one write (but for replies of more than :data:`WRITE_SIZE` bytes).
* What is held for a client is bounded: reading pauses at :data:`HIGH_WATER` undecoded bytes while the handler is
  busy; the handler gets no further message while the client does not read; what is sent to it all the same counts
  against ``--send-buffer``.
* Every pause and every farewell has a deadline, checked by one sweep over all clients, not by timers.
* The client is told before it is closed, and closed so that it can read it: the write side first, then what it still
  sends is read and dropped for a while. To close a socket with unread bytes would send RST, and a peer that meets RST
  may lose what it has not read yet (RFC 1122, 4.2.2.13; nginx calls it lingering_close).

Knows no transport: what happens on the wire is told to it, and what it wants done there it asks of its subclass
(:mod:`mtserver.protocol`), by inheritance so that a client is one object.
"""

from __future__ import annotations

import abc
import typing
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.client import Client
from mtserver.dispatch import Dispatch
from mtserver.errors import HandlerError, Refusal
from mtserver.framing import Framing
from mtserver.handoff import Handoff
from mtserver.limits import TokenBucket
from mtserver.logs import format_exception
from mtserver.messages import Codec
from mtserver.outbox import Outbox
from mtserver.settings import Settings

#: Undecoded bytes at which reading pauses while the handler is busy: one read of Twisted's.
HIGH_WATER = 65536
#: The most bytes given to the transport at once. Each time it has sent them it asks for more, which is how we see
#: that a slow client reads on; and replies of more than this are not kept back until their batch is over.
WRITE_SIZE = 131072
#: Messages handed to the handler in one go.
BATCH = 64
#: Seconds that a closed client has to close its side, and a TLS peer to answer close_notify.
LINGER = 2.0
#: Bytes that are read and dropped meanwhile, at most.
LINGER_SIZE = 16 * 1024 * 1024
#: Seconds for a TLS handshake. Twisted has no limit of its own.
HANDSHAKE = 10.0

# Reasons for not handing messages to the handler; bits of `holds`.
_NOT_READY = 1  # TLS handshake, or the app's lifespan
_BLOCKED = 2  # the client does not read
_THROTTLED = 4  # --message-rate
_YIELDED = 8  # the time slice is over
_ENDING = 16  # the handler has called client.close()
_CLOSING = 32  # nothing more is to be said but what is held

# Phases of a connection, in their order.
_WAITING = 0  # _NOT_READY
_OPEN = 1
_SHUT = 2  # our side is closed, or will be when the transport has sent everything
_GONE = 3  # no transport; the handler may still have messages
_ENDED = 4

_log = Logger("mtserver")


class Server(typing.Protocol):
    """What a connection needs of the factory that made it."""

    settings: Settings
    framing: type[Framing]
    codec: Codec
    dispatch: Dispatch
    handoff: Handoff
    seconds: Callable[[], float]
    is_open: bool
    draining: bool

    def wait_for_opening(self, session: Session) -> None: ...

    def joined(self, session: Session) -> None: ...

    def left(self, session: Session, reason: str) -> None: ...

    def released(self, session: Session) -> None: ...

    def throttle(self, session: Session) -> None: ...

    def soon(self, call: Callable[[], Any]) -> None: ...


class Session(abc.ABC):
    """
    One client's session: the source of its conversation, and what a connection tells of what happens on the wire.

    A subclass is the connection. It calls the methods of the first section, and provides the verbs of the last.

    :param server: what it shares with the others.
    :param number: its number since the server's start.
    :param peer: its address, for logs and people.
    :param host: its address as ``--max-clients-per-host`` counts it.
    :param connected_at: in seconds since the epoch.
    """

    __slots__ = (
        "_answered",
        "_answered_at_sweep",
        "_batching",
        "_began",
        "_blocked_at",
        "_bucket",
        "_deadline",
        "_flush_due",
        "_framing",
        "_given_back",
        "_heard_at",
        "_outbox",
        "_phase",
        "_reading",
        "_reason",
        "_seen",
        "_server",
        "_talk",
        "_told",
        "client",
        "holds",
        "host",
        "input_has_ended",
        "opened_at",
    )

    def __init__(self, server: Server, number: int, peer: str, host: str, connected_at: float) -> None:
        now = server.seconds()
        settings = server.settings
        self.host = host
        self.client = Client(self, server.dispatch.app, number, peer, connected_at)
        self.holds = _NOT_READY
        self._server = server
        self._framing = server.framing(settings.max_message)
        self._outbox = Outbox(self._framing, self._unfit)
        self._bucket = TokenBucket(settings.message_rate, now) if settings.message_rate else None
        self._talk = server.dispatch.converse(self.client, self)
        self._phase = _WAITING
        self._told = False
        self._reading = True
        #: The client has closed its side.
        self.input_has_ended = False
        self._reason = ""
        #: When the unfinished message began; 0.0: there is none, or its time does not run.
        self._began = 0.0
        self._blocked_at = 0.0
        self._deadline = 0.0
        self.opened_at = now
        self._heard_at = now
        #: What had been received when we last looked: messages, for the time of one; bytes, once our side is closed.
        self._seen = 0
        self._answered = 0
        self._answered_at_sweep = 0
        self._given_back: list[bytes] | None = None
        self._batching = False
        self._flush_due = False

    # The connection calls these.

    def expect_handshake(self) -> None:
        """There will be messages once TLS has been agreed on, which has a deadline."""
        self._deadline = self._server.seconds() + HANDSHAKE

    def admit(self) -> None:
        """Messages may come from now on."""
        self._deadline = 0.0
        if self._server.is_open:
            self.begin()
        else:
            # The app's lifespan is still opening what handlers need.
            self._pause()
            self._server.wait_for_opening(self)

    def begin(self) -> None:
        """Let the handler have this client."""
        if self._phase != _WAITING:
            return  # it did not wait
        self._phase = _OPEN
        self.holds &= ~_NOT_READY
        self._heard_at = self._server.seconds()
        self._server.joined(self)
        self._resume()
        self._talk.begin()

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.client.bytes_received += len(data)
        if self._phase > _OPEN or self.input_has_ended:
            # Lingering: read, so that closing does not reset, and dropped. A flood is not read out of politeness.
            if self._phase == _SHUT and self.client.bytes_received - self._seen > LINGER_SIZE:
                self.abort()
            return
        self._heard_at = self._server.seconds()
        self._framing.feed(data)
        if not (self._talk.busy or self.holds):
            self._batching = True
            try:
                self._talk.wake()
            finally:
                self._batching = False
                self.flush()
        if self._framing.buffered >= HIGH_WATER and (self._talk.busy or self.holds):
            self._pause()

    def input_ended(self) -> None:
        """The client will send no more, and may well wait for replies: answer what has come, then close."""
        self.input_has_ended = True
        if self._phase == _OPEN:
            self._go_on()
        elif self._phase == _SHUT:
            self._end_output()  # ours is sent, so this closes
        else:
            self.abort()

    def output_ended(self) -> None:
        """All that was owed has been sent, and the end with it."""
        if self._phase == _SHUT:
            self._told = True
            self._deadline = self._server.seconds() + LINGER

    def lost(self, reason: str) -> None:
        """The connection is gone, for this reason if none was given before."""
        never_open = self._phase == _WAITING
        self._phase = _ENDED if never_open else _GONE
        self._reason = self._reason or reason
        self._outbox.clear()
        self._deadline = 0.0
        self._server.left(self, self._reason)
        if never_open:
            self.released()
            return
        # What arrived complete is handled all the same: a log shipper sends and goes.
        self.holds &= ~(_BLOCKED | _THROTTLED | _YIELDED)
        self._talk.wake()

    def output_blocked(self) -> None:
        """The client does not read as fast as it is written to."""
        if not self.holds & _BLOCKED:
            self.holds |= _BLOCKED
            self._blocked_at = self._server.seconds()

    def output_unblocked(self) -> None:
        """The transport has room again."""
        if not self.holds & _BLOCKED or self._phase >= _GONE:
            return
        self.holds &= ~_BLOCKED
        self.flush()
        if self.holds & _BLOCKED:
            return
        if self.holds & _CLOSING:
            self._shut()
        else:
            self._go_on()

    # The conversation's view of us as its source.

    def take(self) -> list[bytes]:
        if self.holds:
            return []
        if self._given_back:
            frames, self._given_back = self._given_back, None
            return frames
        if self._bucket is None:
            frames = self._framing.take(BATCH)
        else:
            frames = self._take_at_rate(self._bucket)
        self.client.messages_received += len(frames)
        return frames

    def _take_at_rate(self, bucket: TokenBucket) -> list[bytes]:
        if self._phase == _GONE or self._server.draining:
            return self._framing.take(BATCH)
        if not self._framing.buffered:
            return []
        tokens = bucket.available(self._server.seconds())
        if not tokens:
            self.holds |= _THROTTLED
            self._pause()
            self._server.throttle(self)
            return []
        frames = self._framing.take(min(BATCH, tokens))
        bucket.spend(len(frames))
        return frames

    def give_back(self, frames: list[bytes]) -> None:
        self._given_back = frames

    def answer(self, reply: Any) -> None:
        self._answered += 1
        if reply is None or self._phase != _OPEN or self.holds & _CLOSING:
            return
        try:
            data = self._server.codec.encode(reply)
        except HandlerError as error:
            self._tell_of_failure(error)
            return
        self._outbox.add_reply(data)
        self.client.messages_sent += 1
        if self._outbox.size > WRITE_SIZE:
            self.flush()
        else:
            # A handler that waits for something between two messages is not to keep the first one's reply waiting.
            self._flush_soon()

    def failed(self, error: BaseException) -> None:
        self._answered += 1
        if isinstance(error, Refusal):
            self.refuse(error)
        else:
            self._tell_of_failure(error)

    def broken(self, error: BaseException) -> None:
        self._tell_of_failure(error)
        self._close("the handler could not begin")

    def delivered(self) -> None:
        self.flush()

    def yielded(self) -> None:
        self.holds |= _YIELDED
        self._server.soon(self._take_turn)

    def rested(self) -> None:
        if self._phase >= _GONE:
            if self._phase == _GONE and not self.holds & _YIELDED:
                self._phase = _ENDED
                self._discard_unfinished()
                self._talk.end(self._reason)
            return
        self.flush()
        if self.holds & _ENDING:
            self.holds &= ~_ENDING
            self._close("closed by the handler")
        elif self.holds:
            return
        elif self._framing.error is not None:
            self.refuse(self._framing.error)
        elif self.input_has_ended:
            self._discard_unfinished()
            self._close("closed by the client")
        elif self._server.draining:
            self.refuse(refusals.closing())
        else:
            self._resume()
            self._time_message()

    def _time_message(self) -> None:
        """The time of an unfinished message runs from its own first byte, and only while we read on."""
        seen = self.client.messages_received
        if not self._framing.unfinished:
            self._began = 0.0
        elif not self._began or seen != self._seen:
            self._began = self._heard_at
        self._seen = seen

    def released(self) -> None:
        self._server.released(self)

    # The client's view of us.

    def send(self, message: Any) -> None:
        """See :meth:`mtserver.client.Client.send`."""
        self.send_frame(self._framing.encode([self._server.codec.encode(message)]))

    def send_frame(self, frame: bytes) -> None:
        """Send a message that has its framing already."""
        if not self._server.handoff.in_loop():
            self._server.handoff.post(self.send_frame, frame)
            return
        if self._phase != _OPEN or self.holds & _CLOSING:
            return
        self._add_frame(frame)
        if self.holds & _BLOCKED:
            if self._outbox.size > self._server.settings.send_buffer:
                self._give_up()
        elif self._outbox.size > WRITE_SIZE:
            self.flush()
        else:
            self._flush_soon()

    def close(self) -> None:
        """See :meth:`mtserver.client.Client.close`."""
        if not self._server.handoff.in_loop():
            self._server.handoff.post(self.close)
        elif self._phase <= _OPEN and not self.holds & (_ENDING | _CLOSING):
            # Not at once: the reply to the message being handled still belongs in front of the end.
            self.holds |= _ENDING
            self._server.soon(self._talk.wake)

    # The server's view of us.

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why it does not get what it wants; and close, if that is part of it."""
        if self._phase != _OPEN or self.holds & _CLOSING:
            return
        if not self._server.settings.quiet:
            self._add_frame(self._refusal_frame(refusal))
        if refusal.closes:
            self._close(refusal.code)
        else:
            self._flush_soon()

    def drain(self) -> None:
        """The server is stopping: no more is read; what is complete is answered."""
        if self._phase == _OPEN:
            self._pause()
            self.holds &= ~_THROTTLED
            self._go_on()
        elif self._phase == _WAITING:
            if self._deadline:
                self.abort()  # in the middle of its handshake
            else:
                self._phase = _OPEN
                self.refuse(refusals.closing())

    def cut(self) -> int | None:
        """End at once. Returns how many complete messages stay unanswered; None if nobody misses anything."""
        if self._told and self._phase == _SHUT and not self._talk.busy:
            return None  # it has read the end of what we had to say, and has only not closed its side
        unanswered = self.client.messages_received - self._answered
        while frames := self._framing.take(1024):
            unanswered += len(frames)
        self.refuse(refusals.closing())
        self._reason = self._reason or "cut off by the stop"
        self._forget_input()
        self._talk.cancel()
        return unanswered

    def sweep(self, now: float) -> None:
        """Look at the deadlines."""
        settings = self._server.settings
        if self._phase >= _GONE:
            self._look_after_handler(now)
            return
        if self._deadline and now >= self._deadline:
            self._reason = self._reason or "no TLS handshake in time"
            self.abort()
        if self._phase != _OPEN:
            return
        if self.holds & _BLOCKED and settings.send_timeout and now - self._blocked_at >= settings.send_timeout:
            self._give_up()
        if self.holds & _CLOSING:
            return
        if self._answered != self._answered_at_sweep:
            # The handler gets on with what was said earlier, be it that we read no further meanwhile.
            self._answered_at_sweep = self._answered
            self._heard_at = now
        begun = self._began if self._reading and not self._talk.busy else 0.0
        if begun and settings.message_timeout and now - begun >= settings.message_timeout:
            self.refuse(refusals.timeout(settings.message_timeout))
        elif settings.idle_timeout and now - self._heard_at >= settings.idle_timeout:
            self.refuse(refusals.idle(settings.idle_timeout))

    def _look_after_handler(self, now: float) -> None:
        """Its client has gone. It may finish what it has; if it does not get on for long, it is not waited for."""
        patience = self._server.settings.drain_timeout
        if self._answered != self._answered_at_sweep or not self._deadline:
            self._answered_at_sweep = self._answered
            self._deadline = now + patience
        elif now >= self._deadline:
            self._deadline = now + patience
            _log.warn(
                "the handler of client {client} has been at it for {patience:g} s since its client has gone: cancelled",
                client=self.client.id,
                patience=patience,
            )
            self._forget_input()
            self._talk.cancel()

    def unthrottle(self, now: float) -> bool:
        """Go on if there are tokens again; whether it did."""
        if self._phase == _OPEN and self._bucket is not None and not self._bucket.available(now):
            return False
        self.holds &= ~_THROTTLED
        self._go_on()
        return True

    # Sending.

    def flush(self) -> None:
        """Write what is held, unless the client has to read first."""
        self._flush_due = False
        while self._outbox and not self.holds & _BLOCKED and self._phase == _OPEN:
            data = self._outbox.next_piece(WRITE_SIZE)
            self.client.bytes_sent += len(data)
            self._write(data)

    def _flush_soon(self) -> None:
        if not self._batching and not self._flush_due:
            self._flush_due = True
            self._server.soon(self.flush)

    def _add_frame(self, frame: bytes) -> None:
        self._outbox.add_frame(frame)
        self.client.messages_sent += 1

    def _refusal_frame(self, refusal: Refusal) -> bytes:
        return self._framing.encode([self._server.codec.refuse(refusal)])

    def _give_up(self) -> None:
        """It does not read: what is held is dropped, and the word that says so takes its place where a message may."""
        within_a_message, unread = self._outbox.broken, self._outbox.size
        self._outbox.clear()
        if not self._server.settings.quiet and not within_a_message:
            self._write(self._refusal_frame(refusals.slow()))
        _log.info("client {client} does not read: {size} bytes of ours dropped", client=self.client.id, size=unread)
        self._reason = "slow"
        self.holds |= _CLOSING
        self._forget_input()
        self._shut()
        self._deadline = self._server.seconds() + LINGER

    def _unfit(self, error: HandlerError) -> bytes:
        """A reply that the framing cannot carry."""
        self._log_failure(error)
        return b"" if self._server.settings.quiet else self._refusal_frame(refusals.INTERNAL)

    def _tell_of_failure(self, error: BaseException) -> None:
        self._log_failure(error)
        self.refuse(refusals.INTERNAL)

    def _log_failure(self, error: BaseException) -> None:
        _log.error(
            "the handler of client {client} failed: {traceback}",
            client=self.client.id,
            traceback=format_exception(error),
        )

    # Reading.

    def _pause(self) -> None:
        if self._reading and not self.input_has_ended and self._phase < _GONE:
            self._reading = False
            self._pause_input()

    def _resume(self) -> None:
        if not self._reading and not self.input_has_ended and self._phase < _GONE:
            self._reading = True
            self._resume_input()

    def _go_on(self) -> None:
        if not self.holds:
            self._talk.wake()
            self.flush()

    def _take_turn(self) -> None:
        self.holds &= ~_YIELDED
        self._go_on()

    def _discard_unfinished(self) -> None:
        """No more will come: a message that has begun and not ended is none."""
        if self._framing.unfinished:
            self.client.messages_cut_off += 1
            _log.info(
                "client {client} left a message unfinished: {size} bytes discarded",
                client=self.client.id,
                size=self._framing.buffered,
            )
            self._framing.clear()

    def _forget_input(self) -> None:
        self._framing.clear()
        self._given_back = None
        self._began = 0.0

    # Closing.

    def _close(self, reason: str) -> None:
        """Say no more than is already held, and end."""
        if self._phase != _OPEN or self.holds & _CLOSING:
            return
        self._reason = reason
        self.flush()
        self.holds |= _CLOSING
        self._forget_input()
        if not self.holds & _BLOCKED:
            self._shut()

    def _shut(self) -> None:
        """Everything has been given to the transport: end our side, and wait a while for the client to end its."""
        self._phase = _SHUT
        self._seen = self.client.bytes_received
        self._deadline = 0.0
        patience = self._end_output()
        if patience:
            self._deadline = self._server.seconds() + patience
        self._resume()

    # The connection provides these.

    @abc.abstractmethod
    def _write(self, data: bytes) -> None:
        """Send bytes, now or later; call `output_blocked` when it is to be later, `output_unblocked` afterwards."""

    @abc.abstractmethod
    def _pause_input(self) -> None:
        """Read no further."""

    @abc.abstractmethod
    def _resume_input(self) -> None:
        """Read on."""

    @abc.abstractmethod
    def _end_output(self) -> float:
        """Send the end behind what was written. Returns the seconds this may take; 0.0: any time."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End at once, whatever is still to be sent."""
