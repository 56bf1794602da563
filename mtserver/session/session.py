"""
One client's session: its limits, its deadlines, the order of its messages and replies, and how it ends.

Its halves are :mod:`mtserver.session.inbox` and :mod:`mtserver.session.sending`; here is what becomes of the whole: who
is let in, how long everything may take, and the end. Laws:

* Every pause and every farewell has a deadline, checked by one sweep over all clients, not by timers.
* The client is told before it is closed, and closed so that it can read it: the write side first, then what it still
  sends is read and dropped for a while. To close a socket with unread bytes would send RST, and a peer that meets RST
  may lose what it has not read yet (RFC 1122, 4.2.2.13; nginx calls it lingering_close).

Knows no transport: what happens on the wire is told to it, and what it wants done there it asks of its subclass
(:mod:`mtserver.session.protocol`), by inheritance so that a client is one object.
"""

from __future__ import annotations

import abc
import typing
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.app import App, Client
from mtserver.errors import Refusal
from mtserver.groups import Groups, check_label, check_name
from mtserver.session.inbox import EXHAUSTED, READING, Receiver, Receiving
from mtserver.session.limits import TokenBucket
from mtserver.session.sending import (
    BLOCKED,
    CLOSING,
    ENDED,
    ENDING,
    GONE,
    NOT_READY,
    OPEN,
    SHUT,
    THROTTLED,
    TOLD,
    WAITING,
    YIELDED,
)
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import CLIENT_CLOSED

#: Seconds that a closed client has to close its side.
LINGER = 2.0
#: Seconds that a TLS peer has to answer close_notify.
GOODBYE = 5.0
#: Seconds for a TLS handshake. Twisted has no limit of its own.
HANDSHAKE = 10.0

_log = Logger("mtserver")


class Server(Receiving, typing.Protocol):
    """What a session needs of the factory that made it."""

    #: What `seconds` counts from, in seconds since the epoch.
    epoch: float
    is_open: bool

    @property
    def groups(self) -> Groups: ...

    def later(self, call: Callable[..., Any] | None = None, *args: Any) -> Awaitable[None]: ...

    def wait_for_opening(self, session: Session) -> None: ...

    def joined(self, session: Session) -> None: ...

    def left(self, session: Session, reason: str) -> None: ...

    def released(self, session: Session) -> None: ...


class Session(Receiver):
    """
    One client's session: the conversation with its handler, and what a connection tells of what happens on the wire.

    A subclass is the connection. It calls the methods of the first section, and provides the verbs of the last.

    :param server: what it shares with the others.
    :param number: its number since the server's start.
    """

    __slots__ = ("_deadline", "_reason", "opened_at")

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server)
        now = server.seconds()
        self.client = Client(self, number)
        self.holds = NOT_READY
        if server.settings.message_rate:
            server.buckets[self] = TokenBucket(server.settings.message_rate, now)
        self._reason = ""
        self._deadline = 0.0
        self.opened_at = self._heard_at = now

    @property
    def app(self) -> App:
        """What its client is a client of."""
        app: App = self._server.dispatch.app
        return app

    @property
    def bad_messages(self) -> int:
        """Its messages that were refused for what they held."""
        return 0 if self._bad is None else self._bad.total

    @property
    def connected_at(self) -> float:
        """In seconds since the epoch."""
        began: float = self._server.epoch
        return began + self.opened_at

    @property
    def is_open(self) -> bool:
        """Its handler has it, and its connection has not ended."""
        return OPEN <= self._phase < GONE and not self.holds & NOT_READY

    @property
    def has_connection(self) -> bool:
        """There is one to be ended."""
        return self._phase < GONE

    # The connection calls these.

    def expect_handshake(self) -> None:
        """There will be messages once TLS has been agreed on, which has a deadline."""
        self._deadline = self._server.seconds() + HANDSHAKE

    def admit(self) -> None:
        """Messages may come from now on; the first of them may have to say who the client is."""
        gate = self._server.gate
        if gate is None or self.client.identity is not None:  # by its certificate
            self._admitted()
        else:
            patience = self._server.settings.auth_timeout
            self._deadline = self._server.seconds() + patience if patience else 0.0
            self._phase = OPEN
            self._entry = gate.receive(self)

    def enter(self, identity: str, reply: bytes | None) -> None:
        """Its authentication is done."""
        self._entry = None
        self.client.identity = identity
        if self.framing is not None:
            self.framing.max_message = self._server.settings.max_message
        if reply is not None:
            self.send_frame(self._server.encode([reply]))
        self._admitted()

    def _admitted(self) -> None:
        self._deadline = 0.0
        if self._server.is_open:
            self.begin()
        else:
            # The app's lifespan is still opening what handlers need.
            self._pause()
            self._server.wait_for_opening(self)

    def turn_away(self, refusal: Refusal) -> None:
        """Tell a client that the handler is not to have why, and close."""
        self._deadline = 0.0
        self._phase = OPEN
        self.refuse(refusal)

    def begin(self) -> None:
        """Let the handler have this client."""
        if self._phase > OPEN or not self.holds & NOT_READY:
            return  # it did not wait
        self._phase = OPEN
        self.holds &= ~NOT_READY
        self._heard_at = self._server.seconds()
        self._server.joined(self)
        self._resume()
        self._server.dispatch.begin(self)

    def input_ended(self) -> None:
        """The client will send no more, and may well wait for replies: answer what has come, then close."""
        self._input = EXHAUSTED
        if self._phase == OPEN:
            if self._entry is not None:
                self._entry.end_input()
            self._go_on()
        elif self._phase == SHUT:
            self._end_output()  # ours is sent, so this closes
        else:
            self.abort()

    def output_ended(self) -> None:
        """All that was owed has been sent, and the end with it."""
        if self._phase == SHUT:
            self.holds |= TOLD
            self._deadline = self._server.seconds() + self._linger

    def lost(self, reason: str) -> None:
        """The connection is gone, for this reason if none was given before."""
        never_open = self._phase == WAITING
        self._phase = ENDED if never_open else GONE
        self._reason = self._reason or reason
        self._outbox = self.replies = None
        self._deadline = 0.0
        if self.holds & NOT_READY:
            self.handler = None  # never let in, so not told of an end, be it that it decides who is
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.abandon()
        self._server.left(self, self._reason)
        if never_open:
            self.released()
            return
        # What arrived complete is handled all the same: a log shipper sends and goes.
        self.holds &= ~(BLOCKED | THROTTLED | YIELDED)
        self._wake()

    def broken(self, error: BaseException) -> None:
        self._tell_of_failure(error)
        self._close("the handler could not begin")

    def rested(self) -> None:
        if self._phase == OPEN:
            if self.replies or self._outbox is not None:
                self.flush()
            self.replies = None
            if self.framing is None and self._input == READING and not self.holds and not self._server.draining:
                return  # the usual case
            self._settle()
        elif self._phase == GONE and not self.holds & YIELDED:
            self.flush()
            self._phase = ENDED
            self._discard_unfinished()
            self._server.dispatch.end(self, self._reason)

    def _settle(self) -> None:
        """What is to be done when the handler is free, beyond writing its replies."""
        framing = self.framing
        if self.holds & ENDING:
            self.holds &= ~ENDING
            self._close("closed by the handler")
        elif self.holds:
            return
        elif framing is not None and framing.error is not None:
            self.refuse(framing.error)
        elif self._input == EXHAUSTED:
            self._discard_unfinished()
            self._close("closed by the client")
        elif self._server.draining:
            self.refuse(refusals.closing())
        else:
            self._resume()
            if framing is not None:
                self._time_message(framing)

    def released(self) -> None:
        self._server.released(self)

    # The client's view of us.

    @property
    def groups(self) -> Collection[str]:
        """The names of those it is in."""
        found: Collection[str] = self._server.groups.groups_of(self)
        return found

    def join(self, group: str, label: str) -> Awaitable[None]:
        """See :meth:`mtserver.app.Client.join`."""
        server: Server = self._server
        check_name(group)
        check_label(label)
        if not server.loop_calls.in_loop():
            self._check_room(group)
            return server.later(self.join, group, label)
        if not self.is_open:
            return server.later()  # gone, and heard of nowhere
        return server.groups.join(self, group, label)

    def _check_room(self, group: str) -> None:
        """For a thread, which does not hear what becomes of its joins; what it has not been given yet is not seen."""
        joined, most = self._server.groups.groups_of(self), self._server.settings.max_groups
        if self.is_open and group not in joined and len(joined) >= most:
            raise refusals.too_many_groups(most)

    def leave(self, group: str) -> Awaitable[None]:
        """See :meth:`mtserver.app.Client.leave`."""
        server: Server = self._server
        check_name(group)
        if not server.loop_calls.in_loop():
            return server.later(self.leave, group)
        return server.groups.leave(self, group)

    def pause(self) -> None:
        """Read no further, until the handler is done with what it has."""
        if self._phase == OPEN:
            self._pause()

    def close(self) -> None:
        """See :meth:`mtserver.app.Client.close`."""
        if not self._server.loop_calls.in_loop():
            self._server.dispatch.before_closing(self)
            self._server.loop_calls.post(self.close)
        elif self._phase <= OPEN and not self.holds & (ENDING | CLOSING):
            # Not at once: the reply to the message being handled still belongs in front of the end.
            self.holds |= ENDING
            self._server.soon(self._wake)

    # The server's view of us.

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why it does not get what it wants; and close, if that is part of it."""
        if self._phase != OPEN or self.holds & CLOSING:
            return
        if self._server.broadcasts.unsent:
            self.catch_up()
        if not self._server.settings.quiet:
            self._hold(self._refusal_frame(refusal))
        if refusal.closes:
            self._record(refusal)
            self._close(refusal.code)
        else:
            self._flush_soon()

    def _record(self, refusal: Refusal) -> None:
        """It is closed for this. (What becomes of those who have not been let in is recorded where that is decided.)"""
        if refusal.code != "closing" and self._entry is None:
            reason = escape(refusal.text)
            CLIENT_CLOSED(client=self.client.id, peer=self.peer, code=refusal.code, reason=reason)

    def drain(self) -> None:
        """The server is stopping: no more is read; what is complete is answered."""
        if self._phase == OPEN:
            self._pause()
            self.holds &= ~THROTTLED
            if self.holds & NOT_READY:
                self.refuse(refusals.closing())
            else:
                self._go_on()
        elif self._phase == WAITING:
            if self._deadline:
                self.abort()  # in the middle of its handshake
            else:
                self.turn_away(refusals.closing())

    def cut(self) -> int | None:
        """End at once. Returns how many complete messages stay unanswered; None if nobody misses anything."""
        if self.holds & TOLD and self._phase == SHUT and not self.busy:
            return None  # it has read the end of what we had to say, and has only not closed its side
        unanswered = self.client.messages_received - self.answered
        while self.framing is not None and (frames := self.framing.take(1024)):
            unanswered += len(frames)
        self.refuse(refusals.closing())
        self._reason = self._reason or "cut off by the stop"
        self._forget_input()
        self._server.dispatch.cancel(self)
        return unanswered

    def sweep(self, now: float) -> None:
        """Look at the deadlines."""
        settings = self._server.settings
        if self._phase >= GONE:
            self._look_after_handler(now)
            return
        if self._deadline and now >= self._deadline:
            if self._entry is not None:
                self._entry.expire(settings.auth_timeout)
            else:
                self._reason = self._reason or "no TLS handshake in time"
                self.abort()
        if self._phase != OPEN or self.holds & NOT_READY:
            return
        if self._is_stuck(now):
            self._give_up()
        if self.holds & CLOSING:
            return
        activity = self.client.bytes_received + self.answered
        if activity != self._activity:
            # It has spoken. Or its handler gets on with what was said earlier, be it that we read no further meanwhile.
            self._activity = activity
            self._heard_at = now
        begun = self._began if self._input == READING and not self.busy else 0.0
        if begun and settings.message_timeout and now - begun >= settings.message_timeout:
            self.refuse(refusals.timeout(settings.message_timeout))
        elif settings.idle_timeout and now - self._heard_at >= settings.idle_timeout:
            self.refuse(refusals.idle(settings.idle_timeout))

    def _look_after_handler(self, now: float) -> None:
        """Its client has gone. It may finish what it has; if it does not get on for long, it is not waited for."""
        patience = self._server.settings.drain_timeout
        if self.answered != self._activity or not self._deadline:
            self._activity = self.answered  # it receives no more
            self._deadline = now + patience
        elif now >= self._deadline:
            self._deadline = now + patience
            _log.warn(
                "the handler of client {client} has been at it for {patience:g} s since its client has gone: cancelled",
                client=self.client.id,
                patience=patience,
            )
            self._forget_input()
            self._server.dispatch.cancel(self)

    # Closing.

    def _close(self, reason: str) -> None:
        """Say no more than is already held, and end."""
        if self._phase != OPEN or self.holds & CLOSING:
            return
        self._reason = reason
        self.flush()
        self.holds |= CLOSING
        self._forget_input()
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.abandon()
        if not self.holds & BLOCKED:
            self._shut()

    def _shut(self) -> None:
        """Everything has been given to the transport: end our side, and wait a while for the client to end its."""
        self._phase = SHUT
        self._activity = self.client.bytes_received
        self._deadline = 0.0
        patience = self._end_output()
        if patience:
            self._deadline = self._server.seconds() + patience
        self._resume()

    def _dropped(self) -> None:
        self._reason = "slow"
        self._record(refusals.slow())
        self.holds |= CLOSING
        self._forget_input()
        self._shut()
        self._deadline = self._server.seconds() + LINGER

    # The connection provides these, and those of `Receiver`.

    @property
    @abc.abstractmethod
    def peer(self) -> str:
        """The client's address, for logs and people; also when the connection has ended."""

    @property
    @abc.abstractmethod
    def host(self) -> str:
        """The client's address without the port; an empty text for one without."""

    @property
    @abc.abstractmethod
    def is_private(self) -> bool:
        """Nobody but the client reads what is sent: TLS, or a connection that does not leave this machine."""

    @property
    @abc.abstractmethod
    def _linger(self) -> float:
        """Seconds that the client has to close its side once all has been sent."""

    @abc.abstractmethod
    def _end_output(self) -> float:
        """Send the end behind what was written. Returns the seconds this may take; 0.0: any time."""
