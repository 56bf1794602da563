"""
What a user writes: a :class:`Handler`, or a function, and an :class:`App` for what all clients share.

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
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import SimpleNamespace
from typing import Any, Protocol

from mtserver.acks import Ack, Acks
from mtserver.errors import HandlerError
from mtserver.groups import Change, Groups, Member, check_name
from mtserver.journal import Journal, Transaction
from mtserver.journal.client_journal import ClientJournal
from mtserver.settings import Settings

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


class Connection(Protocol):
    """What a client needs of the connection behind it."""

    @property
    def peer(self) -> str: ...

    @property
    def connected_at(self) -> float: ...

    @property
    def app(self) -> App: ...

    @property
    def messages_cut_off(self) -> int: ...

    @property
    def bad_messages(self) -> int: ...

    @property
    def groups(self) -> Collection[str]: ...

    def send(self, message: Any) -> None: ...

    def encode(self, message: Any) -> bytes: ...

    def pause(self) -> None: ...

    def join(self, group: str, label: str) -> Awaitable[None]: ...

    def leave(self, group: str) -> Awaitable[None]: ...

    def close(self) -> None: ...


class Client:
    """
    One connected peer.

    After the connection has ended everything here can still be read, and ``send`` does nothing.
    """

    __slots__ = (
        "_connection",
        "_own_journal",
        "_state",
        "bytes_received",
        "bytes_sent",
        "id",
        "identity",
        "messages_received",
        "messages_sent",
    )

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._state: SimpleNamespace | None = None
        self._own_journal: ClientJournal | None = None
        #: A number, counted up from 1 since the server's start.
        self.id: int = number
        #: Who it is, once authenticated; None otherwise.
        self.identity: str | None = None
        #: Complete messages handed to the handler so far.
        self.messages_received: int = 0
        #: Replies, sent messages and refusals so far.
        self.messages_sent: int = 0
        #: Bytes read from the peer so far, framing and unfinished messages included.
        self.bytes_received: int = 0
        #: Bytes handed to the transport so far.
        self.bytes_sent: int = 0

    # Not kept here, since there may be ten thousand clients, and nobody asks most of them.

    @property
    def app(self) -> App:
        """The application this client talks to."""
        return self._connection.app

    @property
    def messages_cut_off(self) -> int:
        """Messages whose end did not come before the connection's; each was discarded."""
        return self._connection.messages_cut_off

    @property
    def bad_messages(self) -> int:
        """Messages so far that did not fit their type or were refused by the handler as bad."""
        return self._connection.bad_messages

    @property
    def peer(self) -> str:
        """The address, ``host:port``, ``[host]:port`` or ``unix``; for logs and people."""
        return self._connection.peer

    @property
    def connected_at(self) -> float:
        """When it connected, in seconds since the epoch."""
        return self._connection.connected_at

    @property
    def state(self) -> SimpleNamespace:
        """A plain namespace for what a function handler wants to remember of this client."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    def send(self, message: Any) -> None:
        """
        Send a message, in order with the replies; a client that is gone gets none.

        :param message: bytes from a handler of bytes, str from one of str; from a typed one, anything that its
            encoding has a form for. :class:`~mtserver.errors.HandlerError` otherwise, or where the framing cannot
            carry it.
        """
        self._connection.send(message)

    @property
    def own_journal(self) -> ClientJournal:
        """The client as one whose messages are stored."""
        own_journal = self._own_journal
        if own_journal is None:
            own_journal = self._own_journal = ClientJournal(self, self._connection)
        return own_journal

    @property
    def name(self) -> str:
        """What it calls itself (``RESUME <name>``); empty where it has not said."""
        return "" if self._own_journal is None else self._own_journal.name

    @property
    def message_id(self) -> str | None:
        """With ``--message-ids``: the id of the message that is being handled, until something is stored under it."""
        ids = () if self._own_journal is None else self._own_journal.ids
        return ids[0] if len(ids) == 1 else None

    async def journal(self, message: Any, *, id: str | None = None) -> Ack:  # noqa: A002 - it is one
        """
        Store a message in the journal; when this returns it is safe (``--ack``).

        With ``--message-ids`` it is stored under the id of the message that is being handled, and stored once.

        :param message: as for ``send``.
        :param id: to be stored under another; empty: under none.
        :returns: its acknowledgement, which may be returned to the client as it is.
        :raises Unavailable: if it cannot be stored.
        """
        return (await self.journal_batch([message], ids=None if id is None else [id] if id else []))[0]

    def journal_batch(self, messages: Sequence[Any], *, ids: Sequence[str] | None = None) -> Awaitable[Acks]:
        """
        Store several messages, all or none (in a stream of NATS, where this raises, perhaps the first of them).

        :param ids: to be stored under; with ``--message-ids`` those of the messages that are being handled.
        :returns: an acknowledgement for each; their ``words()`` are ``OK <seq>``.
        """
        return self.own_journal.store(messages, ids)

    def transaction(self, message: Any = None) -> AbstractAsyncContextManager[Transaction]:
        """
        The journal's transaction: ``async with client.transaction() as db: await db.execute(...)``.

        What is done to tables of one's own in it is kept when the block is left, together with the message, or not at
        all. With ``--message-ids`` the message is the one that is being handled, and the block is not entered if it was
        stored before: :class:`~mtserver.errors.Duplicate`, which the client is told as ``OK <seq> dup``.

        :param message: to be stored in place of that, or without ids.
        """
        return self.own_journal.transaction(message)

    def join(self, group: str, *, label: str = "") -> Awaitable[None]:
        """
        Have this client hear what a group is told, from when this is done until it leaves, or is gone.

        Any thread may. One that is not the loop's is not told of what only the loop can see: where several joins of one
        message together are more than ``--max-groups``, that is logged.

        :param label: what the other members see of it beside its identity; to join again is to change it.
        :raises Refusal: for a name that cannot be, or more than ``--max-groups``.
        """
        return self._connection.join(group, label)

    def leave(self, group: str) -> Awaitable[None]:
        """Have it hear that group no more."""
        return self._connection.leave(group)

    @property
    def groups(self) -> Collection[str]:
        """The names of those it is in. Any thread may ask."""
        return self._connection.groups

    def close(self) -> None:
        """End the connection once what was sent and answered so far is delivered. Further messages go unread."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.peer}>"


class Handler:
    """
    One client's side of an application; its attributes are that client's state.

    Each method may be ``async def`` (runs on the event loop) or plain ``def`` (runs in a worker thread). For one
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
    """What an app needs of the server that runs it."""

    settings: Settings

    @property
    def journal(self) -> Journal: ...

    def clients(self) -> Collection[Client]: ...

    @property
    def groups(self) -> Groups: ...

    def check_in_loop(self, what: str) -> None: ...

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
        """Who is in it now, on all nodes. Any thread may ask."""
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

    @property
    def clients(self) -> Collection[Client]:
        """The clients connected to this process now. A copy, which stays as it is."""
        return self._serving.clients()

    @property
    def settings(self) -> Settings:
        """The options the server was started with."""
        return self._serving.settings

    @property
    def journal(self) -> Journal:
        """Where messages are kept (``--journal``)."""
        return self._serving.journal

    @property
    def groups(self) -> Groups:
        """Where groups are kept (``--groups``); ``connected`` says whether the other nodes hear us."""
        return self._serving.groups

    def group(self, name: str) -> Group:
        """The group of this name; :class:`~mtserver.errors.BadMessage` if it cannot be one."""
        return Group(self._serving, check_name(name))

    def broadcast(self, message: Any, exclude: Client | None = None) -> None:
        """
        Send `message`, encoded once, to all clients but `exclude`. Any thread may.

        A client that reads too slowly to keep up is closed as ``--send-buffer`` and ``--send-timeout`` say; the
        others are not held up by it.
        """
        _check_exclude(exclude)
        self._serving.broadcast(message, exclude)

    @property
    def _serving(self) -> Server:
        if self._server is None:
            raise RuntimeError("this App is not being served")
        return self._server


def _check_exclude(exclude: Any) -> None:
    """A name or a number would exclude nobody."""
    if exclude is not None and not isinstance(exclude, Client):
        raise HandlerError(f"exclude is a client, and no {type(exclude).__name__}")
