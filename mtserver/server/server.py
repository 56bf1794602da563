"""
What all connections share: who is connected, the sweep over deadlines, admission, and the end of it all.

One timer for all clients: a timer per connection costs 500 bytes and microseconds each, a look at 20,000 clients once
a second 0.8 ms (measured on CPython 3.11).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from mtserver import refusals
from mtserver.app import App, Client
from mtserver.concurrency import offload
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import Threads
from mtserver.dispatch import dispatch_for
from mtserver.errors import HandlerError, Refusal
from mtserver.framing import framing_named
from mtserver.groups import Groups
from mtserver.groups.fan_out import Audience, Broadcasts
from mtserver.journal import Journal
from mtserver.server.rejection import RefusingProtocol
from mtserver.session.inbox import Gate, Whole
from mtserver.session.limits import TokenBucket
from mtserver.session.protocol import MtserverProtocol
from mtserver.session.sending import WRITE_SIZE
from mtserver.session.session import Session
from mtserver.settings import Settings
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import (
    CLIENT_ADMITTED,
    CLIENT_CONNECTED,
    CLIENT_DISCONNECTED,
    CLIENT_REFUSED,
    THREADS_EXHAUSTED,
)
from mtserver.transport.addresses import format_address, host_of

#: Seconds between two looks at clients held back by ``--message-rate``, and at senders who wait for those who are slow.
TICK = 0.05
#: Refused newcomers that may be waited for at once, until they have read why. Each is a descriptor of those in
#: :data:`mtserver.transport.listeners.RESERVE`, and as many again may be on their way in and out.
REFUSING = 24
#: Sweeps in a row that find handlers waiting for a worker before that is logged.
EXHAUSTED = 5

_log = Logger("mtserver")


class MtserverFactory(ServerFactory):
    """
    Builds a protocol per client of one app.

    :param app: whose handler serves them.
    :param settings: the limits.
    :param reactor: for time.
    :param loop_calls: for calls from threads.
    :param threads: for handlers that block.
    :param offload: for what handlers send to threads and processes.
    :param groups: in which clients are.
    :param journal: opens the journal, or gives the one that is open.
    :param gate: where clients become known; None: anybody is let in.
    :param max_clients: where the descriptors do not suffice for ``settings.max_clients``.
    """

    noisy = False

    def __init__(
        self,
        app: App,
        settings: Settings,
        reactor: Any,
        loop_calls: LoopCalls,
        threads: Threads,
        *,
        offload: Offload,
        gate: Gate | None = None,
        groups: Groups,
        journal: Callable[[], Journal],
        max_clients: int | None = None,
    ) -> None:
        self._reactor: IReactorTime = reactor
        self.settings = settings
        self.seconds: Callable[[], float] = reactor.seconds
        self.framing = framing_named(settings.framing)
        self.encode = self.framing.encode
        self.gate = gate
        self.whole: Whole = _none_whole if settings.message_rate else self.framing.whole
        if gate is not None and gate.verb:
            self.whole = _whole_without(gate.verb, self.whole)
        self.loop_calls = loop_calls
        self._offload = offload
        self._journal = journal
        self.groups = groups
        groups.begin(self._tell, self._flush_broadcasts)
        self.broadcasts = Broadcasts()
        self.dispatch = dispatch_for(app, loop_calls, threads, reactor.seconds, self.broadcasts, settings=settings)
        self.codec = self.dispatch.plan.codec
        self.max_clients = settings.max_clients if max_clients is None else max_clients
        self.is_open = False
        self.draining = False
        self._last_id = 0
        self.epoch = time.time() - self.seconds()
        #: All whose handler is not done with them, be it that their connection has ended.
        self._sessions: dict[int, Session] = {}
        self._hosts: Counter[str] = Counter()
        #: Of each client that is counted there.
        self._host_of: dict[int, str] = {}
        self.buckets: dict[Session, TokenBucket] = {}
        self._refusing: dict[RefusingProtocol, None] = {}
        self._refused: Counter[str] = Counter()
        self._waiting: list[Session] = []
        self._throttled: dict[Session, None] = {}
        self._soon: deque[Callable[[], Any]] = deque()
        self._soon_call: IDelayedCall | None = None
        self._sweep_call: IDelayedCall | None = None
        self._tick_call: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None
        self._exhausted = 0
        timeouts = (settings.message_timeout, settings.idle_timeout, settings.send_timeout)
        #: Seconds between two sweeps: a deadline is met late by at most this; that of the idle by twice this, since a
        #: client's last word is dated by the sweep that notices it.
        self.interval = min([1.0, *(max(0.05, timeout / 4) for timeout in timeouts if timeout)])

    @property
    def journal(self) -> Journal:
        """Where messages are kept."""
        return self._journal()

    # Admission.

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.draining:
            return None
        self._watch()
        host = host_of(addr)
        refusal = self._refusal(host)
        if refusal is not None:
            CLIENT_REFUSED(peer=format_address(addr), code=refusal.code, reason=refusal.text)
            return self._refuse(refusal)
        self._last_id += 1
        protocol = MtserverProtocol(self, self._last_id)
        if CLIENT_CONNECTED:
            CLIENT_CONNECTED(client=self._last_id, peer=format_address(addr))
        self._sessions[self._last_id] = protocol
        if host and self.settings.max_clients_per_host:
            self._hosts[host] += 1
            self._host_of[self._last_id] = host
        return protocol

    def _refusal(self, host: str) -> Refusal | None:
        # A client that has gone keeps its place until its handler is done with it: or whoever connects, asks and
        # leaves, again and again, would have any number of handlers at work.
        if len(self._sessions) >= self.max_clients:
            return refusals.busy("too many clients")
        most = self.settings.max_clients_per_host
        if most and host and self._hosts[host] >= most:
            return refusals.busy("too many clients from your address")
        return None

    def _refuse(self, refusal: Refusal) -> Protocol | None:
        self._refused[refusal.text] += 1
        if len(self._refusing) >= REFUSING:
            # The descriptors kept for saying so are all in use: whoever has waited longest has had its time.
            next(iter(self._refusing)).release()
        frame = b"" if self.settings.quiet else self.encode([self.codec.refuse(refusal)])
        return RefusingProtocol(frame, self)

    def refusing(self, protocol: RefusingProtocol) -> None:
        """A newcomer is being told."""
        self._refusing[protocol] = None

    def refused(self, protocol: RefusingProtocol) -> None:
        """It has gone."""
        self._refusing.pop(protocol, None)

    # What sessions say of themselves.

    def wait_for_opening(self, session: Session) -> None:
        """Begin with this client once the app is open."""
        self._waiting.append(session)

    def joined(self, session: Session) -> None:
        """The handler has it now."""
        client = session.client
        if CLIENT_ADMITTED:
            CLIENT_ADMITTED(client=client.id, peer=client.peer, identity=escape(client.identity or ""))

    def left(self, session: Session, reason: str) -> None:
        """The connection is gone; the handler may still be at work."""
        client = session.client
        self._throttled.pop(session, None)
        self.groups.forget(session)
        host = self._host_of.pop(client.id, "")
        if host:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
        if CLIENT_DISCONNECTED:
            CLIENT_DISCONNECTED(
                client=client.id,
                peer=client.peer,
                reason=reason,
                duration=self.seconds() - session.opened_at,
                messages=client.messages_received,
                bytes=client.bytes_received,
                messages_sent=client.messages_sent,
                bytes_sent=client.bytes_sent,
            )

    def released(self, session: Session) -> None:
        """Nothing is left to do for it."""
        self._sessions.pop(session.client.id, None)
        self.buckets.pop(session, None)
        self._check_drained()

    # The app's view of us.

    def clients(self) -> Collection[Client]:
        return [session.client for session in self._sessions.values() if session.is_open]

    def broadcast(self, message: Any, exclude: Client | None) -> None:
        frame = self.encode([self.codec.encode(message)])
        if self.loop_calls.in_loop():
            self._broadcast(frame, exclude)
        else:
            self.later(self._broadcast, frame, exclude)

    def send_to_group(self, group: str, message: Any, exclude: Client | None, *, wait: bool) -> Awaitable[None]:
        data = self.codec.encode(message)
        if self.loop_calls.in_loop():
            if wait:
                self._tick_soon()
            return self.groups.send(group, data, exclude, wait=wait)
        if wait:
            raise HandlerError('full="wait" is for those who can wait for the loop: async def')
        # What cannot be sent is the sender's mistake, who is not told of it later.
        self.encode([data])
        self.groups.check_size(group, data)
        return self.later(partial(self.groups.send, wait=False), group, data, exclude)

    def check_in_loop(self, what: str) -> None:
        """:class:`~mtserver.errors.HandlerError` in any other thread: what is asked for changes in the loop."""
        if not self.loop_calls.in_loop():
            raise HandlerError(f"{what} is for those who run in the loop: async def")

    def later(self, call: Callable[..., Any] | None = None, *args: Any) -> Awaitable[None]:
        """Call this in the loop, from another thread; what is returned is there already."""
        if call is not None:
            self.dispatch.before_sending()
            self.loop_calls.post(call, *args)
        return offload.done()

    def _tell(self, audience: Collection[Any], message: bytes, exclude: Client | None) -> None:
        """Groups have something to say."""
        self._broadcast(self.encode([message]), exclude, audience)

    def _broadcast(self, frame: bytes, exclude: Client | None, audience: Audience = None) -> None:
        if not self.broadcasts.unsent:
            self.soon(self._deliver_broadcasts)
        self.broadcasts.add(frame, exclude, audience)
        if self.broadcasts.size > WRITE_SIZE:
            self._deliver_broadcasts()

    def _flush_broadcasts(self) -> None:
        if self.broadcasts.unsent:
            self._deliver_broadcasts()

    def _deliver_broadcasts(self) -> None:
        self.broadcasts.deliver(list(self._sessions.values()))

    # Time.

    def soon(self, call: Callable[[], Any]) -> None:
        """Run `call` in the next iteration of the loop; all such calls together, for one timer."""
        self._soon.append(call)
        if self._soon_call is None:
            self._soon_call = self._reactor.callLater(0, self._run_soon)

    def _run_soon(self) -> None:
        self._soon_call = None
        calls, self._soon = self._soon, deque()
        for call in calls:
            call()

    def throttle(self, session: Session) -> None:
        """Wake this client when it has tokens again."""
        self._throttled[session] = None
        self._tick_soon()

    def _tick_soon(self) -> None:
        if self._tick_call is None:
            self._tick_call = self._reactor.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._tick_call = None
        now = self.seconds()
        for session in list(self._throttled):
            del self._throttled[session]
            if not session.unthrottle(now):
                self.throttle(session)
        if self.groups.tick() or self._throttled:
            self._tick_soon()

    def _watch(self) -> None:
        """Look at deadlines from now on: from the first client, be it that the app is not open yet."""
        if self._sweep_call is None:
            self._sweep_call = self._reactor.callLater(self.interval, self._sweep)

    def _sweep(self) -> None:
        self._sweep_call = self._reactor.callLater(self.interval, self._sweep)
        now = self.seconds()
        for session in list(self._sessions.values()):
            session.sweep(now)
        self._watch_threads()
        for refusing in list(self._refusing):
            refusing.sweep(now)
        if self._refused:
            for text, count in self._refused.items():
                _log.warn("refused {count} connections: {why}", count=count, why=text)
            self._refused.clear()

    def _watch_threads(self) -> None:
        """Say so, once, when handlers that block have had all the threads for a while."""
        waiting = self.dispatch.threads.waiting() or self._offload.waiting()
        self._exhausted = self._exhausted + 1 if waiting else 0
        if self._exhausted == EXHAUSTED:
            THREADS_EXHAUSTED(threads=self.settings.threads)

    # Beginning and end.

    def open(self) -> None:
        """The app is ready: serve those who came early, and everyone from now on."""
        self.is_open = True
        self._watch()
        waiting, self._waiting = self._waiting, []
        for session in waiting:
            session.begin()

    def drain(self) -> Deferred[None]:
        """Answer what has been received, tell everyone, and close. Fires when the last handler is done."""
        self.draining = True
        self._drained = Deferred()
        drained = self._drained
        for session in list(self._sessions.values()):
            if session.has_connection:
                session.drain()
        for refusing in list(self._refusing):
            refusing.release()
        self._check_drained()
        return drained

    def cut(self) -> tuple[int, int]:
        """End what the drain has left: how many clients that cost, and how many unanswered messages."""
        self._drained = None
        sessions = list(self._sessions.values())
        unanswered = [count for session in sessions if (count := session.cut()) is not None]
        return len(unanswered), sum(unanswered)

    def abort(self) -> None:
        """Drop every connection that is left."""
        for session in list(self._sessions.values()):
            if session.has_connection:
                session.abort()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._sessions:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def close(self) -> None:
        """Stop the timers."""
        for call in (self._sweep_call, self._tick_call, self._soon_call):
            if call is not None and call.active():
                call.cancel()


def _none_whole(_data: bytes, _max_message: int, _limit: int) -> None:
    """With ``--message-rate`` each message is taken when there is a token for it."""


def _whole_without(verb: bytes, whole: Whole) -> Whole:
    """Reads in which a message of authentication may be are looked at message by message."""
    return lambda data, max_message, limit: None if verb in data else whole(data, max_message, limit)
