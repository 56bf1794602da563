"""The server as one app may use it, for itself and for its clients: see :class:`mtserver.app.Server`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from mtserver import refusals
from mtserver.app import App
from mtserver.client import Client
from mtserver.concurrency import offload
from mtserver.errors import HandlerError
from mtserver.groups import Groups, check_label, check_name
from mtserver.journal import Journal
from mtserver.session.session import Session
from mtserver.settings import Settings

if TYPE_CHECKING:
    from mtserver.server.server import Server


class Serving:
    """The server, as an app sees it. Any thread may use it where nothing else is said."""

    def __init__(self, server: Server, app: App) -> None:
        self._server = server
        self._app = app

    @property
    def settings(self) -> Settings:
        return self._server.settings

    @property
    def journal(self) -> Journal:
        return self._server.journal()

    @property
    def groups(self) -> Groups:
        return self._server.groups

    def clients(self) -> Collection[Client]:
        return self._server.clients(self._app)

    def broadcast(self, message: Any, exclude: Client | None) -> None:
        server, app = self._server, self._app
        listeners = [listener for listener in server.listeners if listener.app is app]
        data = listeners[0].codec.encode(message)
        frames = {framing: framing.encode([data]) for framing in {listener.framing for listener in listeners}}
        self._in_loop(server.broadcast, app, frames, exclude)

    def send_to_group(self, group: str, message: Any, exclude: Client | None, *, wait: bool) -> Awaitable[None]:
        server, app = self._server, self._app
        listeners = [listener for listener in server.listeners if listener.app is app]
        data = listeners[0].codec.encode(message)
        if server.loop_calls.in_loop():
            if wait:
                server.deadlines.tick_soon()
            return server.groups.send(group, data, exclude, wait=wait)
        if wait:
            raise HandlerError('full="wait" is for those who can wait for the loop: async def')
        # A message that cannot be sent is the sender's mistake, who would not be told of it later.
        for listener in listeners:
            listener.framing.encode([data])
        server.groups.check_size(group, data)
        return self._in_loop(partial(server.groups.send, wait=False), group, data, exclude)

    def check_in_loop(self, what: str) -> None:
        """:class:`~mtserver.errors.HandlerError` in any other thread: what is asked for changes in the loop."""
        if not self._server.loop_calls.in_loop():
            raise HandlerError(f"{what} is for those who run in the loop: async def")

    # Groups of the app's clients.

    def groups_of(self, session: Session) -> Collection[str]:
        """The names of the groups that a client is in."""
        return self._server.groups.groups_of(session)

    def join(self, session: Session, group: str, label: str) -> Awaitable[None]:
        """Have a client join a group: see :meth:`mtserver.client.Client.join`."""
        check_name(group)
        check_label(label)
        if not self._server.loop_calls.in_loop():
            self._check_room(session, group)
            return self._in_loop(self.join, session, group, label)
        if not session.is_open:
            return offload.done()  # gone, and heard of nowhere
        return self._server.groups.join(session, group, label)

    def _check_room(self, session: Session, group: str) -> None:
        """Check for a thread, which does not hear what becomes of its joins; those still on their way are not seen."""
        joined, most = self.groups_of(session), self._server.settings.max_groups
        if session.is_open and group not in joined and len(joined) >= most:
            raise refusals.too_many_groups(most)

    def leave(self, session: Session, group: str) -> Awaitable[None]:
        """Have a client leave a group: see :meth:`mtserver.client.Client.leave`."""
        check_name(group)
        if not self._server.loop_calls.in_loop():
            return self._in_loop(self.leave, session, group)
        return self._server.groups.leave(session, group)

    def _in_loop(self, call: Callable[..., Any], *args: Any) -> Awaitable[None]:
        """Call this in the loop, now or from another thread soon; what is returned is there already."""
        server = self._server
        if server.loop_calls.in_loop():
            call(*args)
        else:
            server.before_sending(self._app)
            server.loop_calls.post(call, *args)
        return offload.done()
