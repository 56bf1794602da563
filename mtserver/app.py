"""
The handler that a user writes, :class:`Handler` or a function, and the :class:`App` for what all clients share.

::

    class Till(Handler):                       # one instance per client
        def __init__(self, client):
            super().__init__(client)
            self.total = 0

        async def received(self, message: bytes) -> bytes:
            self.total += int(message)
            return b"%d" % self.total

    app = App(Till, lifespan=open_database)    # twistd mtserver --app shop:app

This module knows nothing of how handlers are run (:mod:`mtserver.dispatch`) or served.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import SimpleNamespace
from typing import Any, Protocol

from mtserver.client import Client
from mtserver.errors import HandlerError
from mtserver.groups import Change, Groups, Member, check_name
from mtserver.journal import Journal
from mtserver.settings import Settings

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


class Handler:
    """
    One client's side of an application; its attributes are that client's state.

    Each method may be ``async def`` (runs on the event loop) or plain ``def`` (runs in a thread). For one
    client they are called one after another: ``connected``, then ``received`` per message, then ``disconnected``.
    """

    # A subclass has a __dict__ unless it says otherwise; with this one of its own it costs 300 bytes less.
    __slots__ = ("client",)

    def __init__(self, client: Client) -> None:
        #: The client this instance serves.
        self.client: Client = client

    #: Define ``authenticate(self, message)`` where clients of a protocol of your own say by their first message who
    #: they are. It returns the client's identity, or None to refuse it; until then nothing else is called.
    authenticate: Callable[[Any], Any] | None = None

    def connected(self) -> Any:
        """Called before the first message. An exception closes the connection."""

    def received(self, message: Any) -> Any:
        """
        Called with each message. What it returns is sent; None sends nothing.

        The annotation of `message` chooses how it is decoded: ``bytes`` (also without one) as it came, ``str`` as
        UTF-8; any other type (a dataclass, say) is JSON that fits it, and so is what is returned.
        """
        raise NotImplementedError

    #: Define ``received_batch(self, messages: list[...])`` in place of ``received`` to be given all messages that
    #: have arrived together. It returns one reply per message: a message, None, or a Refusal for that one.
    received_batch: Callable[[Any], Any] | None = None

    def disconnected(self, reason: str) -> Any:
        """Called once, after the last message, with why the connection ended. Sending has no effect any more."""


class Server(Protocol):
    """The server that runs an app, as far as the app needs it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def journal(self) -> Journal: ...

    def clients(self) -> Collection[Client]: ...

    @property
    def groups(self) -> Groups: ...

    def check_in_loop(self, what: str) -> None: ...

    def groups_of(self, session: Any) -> Collection[str]: ...

    def join(self, session: Any, group: str, label: str) -> Awaitable[None]: ...

    def leave(self, session: Any, group: str) -> Awaitable[None]: ...

    def broadcast(self, message: Any, exclude: Client | None) -> None: ...

    def send_to_group(self, group: str, message: Any, exclude: Client | None, *, wait: bool) -> Awaitable[None]: ...


class Group:
    """Clients who hear the same things. Made by :meth:`App.group`; it is there whether anybody is in it or not."""

    __slots__ = ("_server", "name")

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name

    def send(self, message: Any, exclude: Client | None = None, *, full: str = "drop") -> Awaitable[None]:
        """
        Send `message`, encoded once, to all members but `exclude`. Any thread may.

        :param full: what is to become of it where there is no room: ``"drop"`` never waits, and what is dropped between
            nodes is counted and logged; ``"wait"`` has whoever awaits what is returned wait until there is.
        """
        if full not in ("drop", "wait"):
            raise ValueError(f"full={full!r} is neither 'drop' nor 'wait'")
        _check_exclude(exclude)
        return self._server.send_to_group(self.name, message, exclude, wait=full == "wait")

    def members(self) -> list[Member]:
        """List the members on all nodes. Any thread may ask."""
        return self._server.groups.members(self.name)

    def watch(self, changed: Callable[[Change], Any]) -> Callable[[], None]:
        """
        Have `changed` called, in the loop, with each :class:`~mtserver.groups.Change` of who is in it.

        For the loop's thread, and so is what it returns: :class:`~mtserver.errors.HandlerError` in any other.

        :returns: what ends that. Nothing else does: who watches for a client ends it when that has gone.
        """
        self._server.check_in_loop("group.watch()")
        if not callable(changed) or inspect.iscoroutinefunction(changed):
            raise HandlerError("group.watch() takes a function of the change, and no async one")
        return self._server.groups.watch(self.name, changed)


class App:
    """
    A handler, and what all its clients share.

    :param handler: a :class:`Handler` subclass, or a function of ``(client, message)``.
    :param lifespan: called with this app; a context manager, async or not, that is entered before the first client
        is served and left after the last one has gone.
    :param uses_journal: it is no app without the journal, which is looked at before any port opens, and opened before
        the first client is served. Otherwise it is opened when it is first used.
    """

    def __init__(
        self, handler: Callable[..., Any], *, lifespan: Lifespan | None = None, uses_journal: bool = False
    ) -> None:
        self.handler = handler
        self.uses_journal = uses_journal
        self.lifespan = lifespan
        #: A plain namespace, for example for what the lifespan opens.
        self.state: SimpleNamespace = SimpleNamespace()
        self._server: Server | None = None

    def serve_by(self, server: Server | None) -> None:
        """Have this server run it from now on, or none."""
        self._server = server

    @property
    def clients(self) -> Collection[Client]:
        """The clients connected to this process now. A copy, which stays as it is."""
        return self.serving.clients()

    @property
    def settings(self) -> Settings:
        """The options the server was started with."""
        return self.serving.settings

    @property
    def journal(self) -> Journal:
        """Where messages are kept (``--journal``)."""
        return self.serving.journal

    @property
    def groups(self) -> Groups:
        """Where groups are kept (``--groups``); ``connected`` says whether the other nodes hear us."""
        return self.serving.groups

    def group(self, name: str) -> Group:
        """The group of this name; :class:`~mtserver.errors.BadMessage` if it cannot be one."""
        return Group(self.serving, check_name(name))

    def broadcast(self, message: Any, exclude: Client | None = None) -> None:
        """
        Send `message`, encoded once, to all clients but `exclude`. Any thread may.

        A client that reads too slowly to keep up is closed as ``--send-buffer`` and ``--send-timeout`` say; the
        others are not held up by it.
        """
        _check_exclude(exclude)
        self.serving.broadcast(message, exclude)

    @property
    def is_served(self) -> bool:
        """Whether there is a server that runs it."""
        return self._server is not None

    @property
    def serving(self) -> Server:
        """The server that runs it, for what is not above; ``RuntimeError`` while none does."""
        if self._server is None:
            raise RuntimeError("this App is not being served")
        return self._server


def _check_exclude(exclude: Any) -> None:
    """A name or a number would exclude nobody."""
    if exclude is not None and not isinstance(exclude, Client):
        raise HandlerError(f"exclude is a client, and no {type(exclude).__name__}")
