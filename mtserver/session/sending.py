"""
The sending half of a session: the replies of a batch leave in one write; what the client does not read is held.

* One read leads to at most one write (but for replies of more than :data:`WRITE_SIZE` bytes).
* While the client does not read, its handler gets no further message; what is sent to it all the same counts against
  ``--send-buffer``.

Knows no transport, as the session.
"""

from __future__ import annotations

import abc
import typing
from collections.abc import Callable, Sequence
from typing import Any

from mtserver import refusals
from mtserver.codecs import Codec
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.dispatch import IN_TURN, SMALL, Conversation, Dispatch
from mtserver.errors import BadMessage, HandlerError, Refusal
from mtserver.framing import Framing
from mtserver.groups.fan_out import Broadcasts
from mtserver.session.limits import Streak
from mtserver.session.outbox import Outbox
from mtserver.settings import Settings
from mtserver.telemetry.events import CLIENT_UNREAD, HANDLER_FAILED
from mtserver.telemetry.logs import format_exception

#: The most bytes given to the transport at once. Each time it has sent them it asks for more, which is how we see
#: that a slow client reads on; and replies of more than this are not kept back until their batch is over.
WRITE_SIZE = 131072

# Reasons for not handing messages to the handler; bits of `holds`.
NOT_READY = 1  # TLS handshake, authentication, or the app's lifespan
BLOCKED = 2  # the client does not read
THROTTLED = 4  # --message-rate
YIELDED = 8  # the time slice is over
ENDING = 16  # the handler has called client.close()
CLOSING = 32  # nothing more is to be said but what is held
TOLD = 64  # all that was to be said has been sent, and the end with it
CUT_OFF = 128  # its last message was not complete
# 256: CANCELLED, of the dispatch

# Phases of a connection, in their order.
WAITING = 0  # for TLS, or the app's lifespan
OPEN = 1
SHUT = 2  # our side is closed, or will be when the transport has sent everything
GONE = 3  # no transport; the handler may still have messages
ENDED = 4


class Sharing(typing.Protocol):
    """What the sending half needs of the server."""

    settings: Settings
    framing: type[Framing]
    codec: Codec
    loop_calls: LoopCalls
    seconds: Callable[[], float]
    broadcasts: Broadcasts
    dispatch: Dispatch

    def encode(self, messages: Sequence[bytes]) -> bytes: ...

    def soon(self, call: Callable[[], Any]) -> None: ...


class Sender(Conversation):
    """Where a conversation's replies go. The session that it is half of provides the verbs at the end."""

    __slots__ = ("_bad", "_blocked_at", "_flush_due", "_outbox", "_phase", "_server", "transport")

    _server: Any
    #: What the bytes are given to. Only its `write` is used here: it sends them now or later, and calls
    #: `output_blocked` when it is to be later, `output_unblocked` afterwards.
    transport: Any

    def __init__(self, server: Sharing) -> None:
        super().__init__()
        self._server = server
        self._phase = WAITING
        #: What could not be written yet; None while that is nothing.
        self._outbox: Outbox | None = None
        self._flush_due = False
        self._blocked_at = 0.0
        #: Its bad messages; None while there were none.
        self._bad: Streak | None = None

    # What the conversation's handler leaves.

    def answer(self, reply: Any) -> None:
        if reply is None or self._phase != OPEN or self.holds & CLOSING:
            self.answered += 1
            return
        try:
            data = self._server.codec.encode_reply(reply)
        except HandlerError as error:
            self.failed(error)
            return
        if self.replies is None:
            self.replies = [data]
        else:
            self.replies.append(data)
        if len(data) > SMALL:
            self.relieve()

    def failed(self, error: BaseException) -> None:
        self.answered += 1
        if isinstance(error, Refusal):
            self.refuse(error)
            if isinstance(error, BadMessage):
                self._count_bad()
        else:
            self._tell_of_failure(error)

    def _count_bad(self) -> None:
        """One more message of the client's that did not fit; close it if it has sent nothing else for too long."""
        if self._bad is None:
            self._bad = Streak()
        # The replies that wait are those to the messages right before this one.
        self._bad.add(self.answered + len(self.replies or ()))
        limit = self._server.settings.max_bad_messages
        if limit and self._bad.in_a_row == limit and self._phase == OPEN and not self.holds & CLOSING:
            self.refuse(refusals.too_many_bad(limit))

    # The client's view of us.

    def send(self, message: Any) -> None:
        """See :meth:`mtserver.app.Client.send`."""
        self.send_frame(self._server.encode([self._server.codec.encode(message)]))

    def encode(self, message: Any) -> bytes:
        """A message as it is sent, but for its framing."""
        data: bytes = self._server.codec.encode(message)
        return data

    def send_frame(self, frame: bytes) -> None:
        """Send a message that has its framing already."""
        server = self._server
        if not server.loop_calls.in_loop():
            server.dispatch.before_sending()
            server.loop_calls.post(self.send_frame, frame)
            return
        if server.broadcasts.unsent:
            self.catch_up()
        if self._phase == OPEN and not self.holds & CLOSING:
            self._keep(frame, 1)

    def catch_up(self) -> None:
        self._server.broadcasts.catch_up(self)

    def deliver(self, data: bytes, messages: int) -> None:
        """Send framed messages that everyone gets."""
        if self._phase != OPEN or self.holds & (CLOSING | NOT_READY):
            return
        if self._outbox is None and not self.replies and not self.holds & BLOCKED and len(data) <= WRITE_SIZE:
            self.client.messages_sent += messages
            self.client.bytes_sent += len(data)
            self.transport.write(data)
        else:
            self._keep(data, messages)

    def _keep(self, frame: bytes, messages: int) -> None:
        held = self._hold(frame, messages)
        if self.holds & BLOCKED:
            if held > self._server.settings.send_buffer:
                self._give_up()
        elif held > WRITE_SIZE:
            self.flush()
        else:
            self._flush_soon()

    # Writing.

    def flush(self) -> None:
        """Write what there is, unless the client has to read first."""
        replies = self.replies
        if replies:
            if self._phase != OPEN or self.holds & CLOSING:
                self.answered += len(replies)
                replies.clear()
            elif self.holds or self._outbox is not None:
                self._box().add(self._framed(replies))
            else:
                # The usual case: nothing is held, and nothing will be.
                data = self._framed(replies)
                if len(data) <= WRITE_SIZE:
                    self.client.bytes_sent += len(data)
                    self.transport.write(data)
                    return
                self._box().add(data)
        outbox = self._outbox
        if outbox is not None:
            while outbox and not self.holds & BLOCKED and self._phase == OPEN:
                data = outbox.next_piece(WRITE_SIZE)
                self.client.bytes_sent += len(data)
                self.transport.write(data)
            if not outbox:
                self._outbox = None

    def relieve(self) -> None:
        if self.replies and sum(map(len, self.replies)) > WRITE_SIZE:
            self.flush()

    def _flush_soon(self) -> None:
        # Whoever is at it will flush when it is done, or waits.
        if not self._flush_due and self.busy != IN_TURN:
            self._flush_due = True
            self._server.soon(self._flush_at_last)

    def _flush_at_last(self) -> None:
        self._flush_due = False
        self.flush()

    def _hold(self, frame: bytes, messages: int = 1) -> int:
        """Put a frame behind all that was said before. Returns how much is held then, in bytes."""
        outbox = self._box()
        if self.replies:
            outbox.add(self._framed(self.replies))
        outbox.add(frame)
        self.client.messages_sent += messages
        return outbox.size

    def _box(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox()
        return self._outbox

    def _framed(self, replies: list[bytes]) -> bytes:
        """The replies of a batch as they are written; the list is empty then, and they count as answers."""
        self.answered += len(replies)
        self.client.messages_sent += len(replies)
        try:
            data: bytes = self._server.encode(replies)
        except HandlerError:
            data = self._framed_one_by_one(replies)
        replies.clear()
        return data

    def _framed_one_by_one(self, replies: Sequence[bytes]) -> bytes:
        """It is one of them that the framing cannot carry; the others are not to pay for it."""
        frames: list[bytes] = []
        for reply in replies:
            try:
                frames.append(self._server.encode([reply]))
            except HandlerError as error:
                self._log_failure(error)
                if not self._server.settings.quiet:
                    frames.append(self._refusal_frame(refusals.INTERNAL))
        return b"".join(frames)

    def _refusal_frame(self, refusal: Refusal) -> bytes:
        frame: bytes = self._server.encode([self._server.codec.refuse(refusal)])
        return frame

    def _tell_of_failure(self, error: BaseException) -> None:
        self._log_failure(error)
        self.refuse(refusals.INTERNAL)

    def _log_failure(self, error: BaseException) -> None:
        HANDLER_FAILED(client=self.client.id, traceback=format_exception(error))

    # The client does not read, and reads again.

    def output_blocked(self) -> None:
        """The client does not read as fast as it is written to."""
        if not self.holds & BLOCKED:
            self.holds |= BLOCKED
            self._blocked_at = self._server.seconds()

    def output_unblocked(self) -> None:
        """The transport has room again."""
        if not self.holds & BLOCKED or self._phase >= GONE:
            return
        self.holds &= ~BLOCKED
        self.flush()
        if self.holds & BLOCKED:
            return
        if self.holds & CLOSING:
            self._shut()
        else:
            self._go_on()

    @property
    def is_behind(self) -> bool:
        """So much is unread by the client that a sender who can wait should."""
        outbox = self._outbox
        return outbox is not None and outbox.size > self._server.settings.send_buffer // 2

    def _is_stuck(self, now: float) -> bool:
        """Whether the client has not read for `--send-timeout`."""
        timeout = self._server.settings.send_timeout
        return bool(self.holds & BLOCKED and timeout and now - self._blocked_at >= timeout)

    def _give_up(self) -> None:
        """It does not read: what is held is dropped, and the word that says so takes its place where a message may."""
        outbox, self._outbox = self._outbox, None
        self.replies = None
        if not self._server.settings.quiet and not (outbox is not None and outbox.broken):
            self.transport.write(self._refusal_frame(refusals.slow()))
        unread = 0 if outbox is None else outbox.size
        CLIENT_UNREAD(client=self.client.id, size=unread)
        self._dropped()

    # The session provides these.

    @abc.abstractmethod
    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why it does not get what it wants; and close, if that is part of it."""

    @abc.abstractmethod
    def _go_on(self) -> None:
        """Hand messages to the handler again."""

    @abc.abstractmethod
    def _shut(self) -> None:
        """Everything has been given to the transport: end our side."""

    @abc.abstractmethod
    def _dropped(self) -> None:
        """What was held has been dropped for good."""
