"""
The server: what the clients of all ports share. Who is connected, what is said to many, and the end of it all.

What a port has of its own is in :mod:`mtserver.server.listener`, what an app may ask in :mod:`mtserver.server.serving`.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from mtserver.app import App
from mtserver.client import Client
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import Threads
from mtserver.dispatch import Dispatch, dispatch_for
from mtserver.framing import framing_named
from mtserver.groups import Groups
from mtserver.groups.fan_out import Audience, FanOut
from mtserver.journal import Journal
from mtserver.server.admission import Admission
from mtserver.server.deadlines import Deadlines
from mtserver.server.listener import Listener
from mtserver.server.serving import Serving
from mtserver.session import closing, opening
from mtserver.session.limits import TokenBucket
from mtserver.session.sending import WRITE_SIZE
from mtserver.session.session import Session
from mtserver.session.shared import Gate
from mtserver.settings import Settings
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import CLIENT_ADMITTED, CLIENT_CONNECTED, CLIENT_DISCONNECTED
from mtserver.transport.addresses import format_address


class Server:
    """
    Some ports, and the clients of all of them.

    :param settings: the limits.
    :param reactor: for time.
    :param loop_calls: for calls from threads.
    :param threads: for handlers that block.
    :param offload: for what handlers send to threads and processes.
    :param groups: in which clients are.
    :param journal: opens the journal, or gives the one that is open.
    :param max_clients: where the descriptors do not suffice for ``settings.max_clients``.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        loop_calls: LoopCalls,
        threads: Threads,
        *,
        offload: Offload,
        groups: Groups,
        journal: Callable[[], Journal],
        max_clients: int | None = None,
    ) -> None:
        self._reactor: IReactorTime = reactor
        self.settings = settings
        self.seconds: Callable[[], float] = reactor.seconds
        self.epoch = time.time() - self.seconds()
        self.loop_calls = loop_calls
        self._threads = threads
        self._offload = offload
        self.journal = journal
        self.groups = groups
        groups.begin(self._tell, self._flush_fan_out)
        self.fan_out = FanOut()
        most = settings.max_clients if max_clients is None else max_clients
        self.admission = Admission(self._count, most, settings.max_clients_per_host, self.seconds)
        self.deadlines = Deadlines(self, reactor)
        self.listeners: list[Listener] = []
        self._dispatches: dict[App, Dispatch] = {}
        self.is_open = False
        self.draining = False
        self._last_number = 0
        #: All whose handler is not done with them, even if their connection has ended.
        self.sessions: dict[int, Session] = {}
        self.buckets: dict[Any, TokenBucket] = {}
        self._waiting: list[Session] = []
        self._soon: deque[Callable[[], Any]] = deque()
        self._soon_call: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None

    def _count(self) -> int:
        return len(self.sessions)

    # Ports.

    def listener(self, app: App, framing: str, gate: Callable[[Dispatch], Gate | None]) -> Listener:
        """
        The factory for one more port.

        :param gate: where its clients say who they are, by what runs the app.
        """
        dispatch = self._dispatches.get(app)
        if dispatch is None:
            dispatch = self._dispatches[app] = dispatch_for(
                app,
                self.loop_calls,
                self._threads,
                self.seconds,
                self.fan_out,
                settings=dataclasses.replace(self.settings, framing=framing),
            )
        listener = Listener(self, dispatch, framing_named(framing), gate(dispatch))
        self.listeners.append(listener)
        return listener

    def serving(self, app: App) -> Serving:
        """Make the server as one app may use it."""
        return Serving(self, app)

    # Calls of listeners and sessions.

    def next_number(self) -> int:
        """The number of the next client."""
        self._last_number += 1
        return self._last_number

    def add(self, session: Session, address: IAddress | None) -> None:
        """A client has come."""
        number = session.client.id
        self.sessions[number] = session
        self.admission.count_in(number, address)
        if CLIENT_CONNECTED:
            CLIENT_CONNECTED(client=number, peer=format_address(address))

    def wait_for_opening(self, session: Session) -> None:
        """Begin with this client once the apps are open."""
        self._waiting.append(session)

    def throttle(self, session: Session) -> None:
        """Wake this client when it has tokens again."""
        self.deadlines.throttle(session)

    def joined(self, session: Session) -> None:
        """The handler has the client now."""
        client = session.client
        if CLIENT_ADMITTED:
            CLIENT_ADMITTED(client=client.id, peer=client.peer, identity=escape(client.identity or ""))

    def left(self, session: Session, reason: str) -> None:
        """The connection is gone; the handler may still be at work."""
        client = session.client
        self.deadlines.forget(session)
        self.groups.forget(session)
        self.admission.count_out(client.id)
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

    def finished(self, session: Session) -> None:
        """Forget a client for which nothing is left to do."""
        self.sessions.pop(session.client.id, None)
        self.buckets.pop(session, None)
        self._check_drained()

    def threads_are_short(self) -> bool:
        """Whether something that blocks waits for a thread."""
        return self._threads.waiting() or self._offload.waiting()

    # Messages to many.

    def before_sending(self, app: App) -> None:
        """The calling thread, if it is at a handler of this app, is about to send something that is no reply."""
        self._dispatches[app].before_sending()

    def clients(self, app: App) -> Collection[Client]:
        """The clients whom the handler of this app has."""
        return [session.client for session in self.sessions.values() if session.is_open and session.app is app]

    def broadcast(self, app: App, frames: dict[Any, bytes], exclude: Client | None) -> None:
        """Say this to all clients of an app. In the loop."""
        audience = None
        if len(self._dispatches) > 1:
            audience = [session for session in self.sessions.values() if session.app is app]
        self._say(frames, exclude, audience)

    def _tell(self, audience: Collection[Any], message: bytes, exclude: Client | None) -> None:
        """Say what a group is told, to its members here."""
        framings = {listener.framing for listener in self.listeners}
        if len(framings) > 1:
            framings = {session.listener.framing for session in audience}
        self._say({framing: framing.encode([message]) for framing in framings}, exclude, audience)

    def _say(self, frames: dict[Any, bytes], exclude: Client | None, audience: Audience) -> None:
        if not self.fan_out.unsent:
            self.soon(self._deliver)
        self.fan_out.add(frames, exclude, audience)
        if self.fan_out.size > WRITE_SIZE:
            self._deliver()

    def _flush_fan_out(self) -> None:
        if self.fan_out.unsent:
            self._deliver()

    def _deliver(self) -> None:
        self.fan_out.deliver(list(self.sessions.values()))

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

    # Beginning and end.

    def open(self) -> None:
        """The apps are ready: serve those who came early, and everyone from now on."""
        self.is_open = True
        self.deadlines.watch()
        waiting, self._waiting = self._waiting, []
        now = self.seconds()
        for session in waiting:
            session.heard_at = now  # they could not have said anything
            opening.begin(session)

    def drain(self) -> Deferred[None]:
        """Answer what has been received, tell everyone, and close. Fires when the last handler is done."""
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for session in list(self.sessions.values()):
            closing.drain(session)
        self.admission.release_all()
        self._check_drained()
        return drained

    def abort_after_drain(self) -> tuple[int, int]:
        """End what the drain has left: how many clients that cost, and how many unanswered messages."""
        self._drained = None
        sessions = list(self.sessions.values())
        unanswered = [count for session in sessions if (count := closing.abort_after_drain(session)) is not None]
        return len(unanswered), sum(unanswered)

    def abort(self) -> None:
        """Drop every connection that is left."""
        for session in list(self.sessions.values()):
            closing.abort(session)

    def _check_drained(self) -> None:
        if self._drained is not None and not self.sessions:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def close(self) -> None:
        """Stop the timers."""
        self.deadlines.stop()
        if self._soon_call is not None and self._soon_call.active():
            self._soon_call.cancel()
