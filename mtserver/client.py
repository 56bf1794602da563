"""The client that a handler is given. It may be used at any time; ``send`` and ``close`` from any thread."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from mtserver.acks import Ack, Acks
from mtserver.journal import Transaction
from mtserver.journal.client_journal import ClientJournal

if TYPE_CHECKING:
    from mtserver.app import App


class Connection(Protocol):
    """The connection behind a client, as far as the client needs it."""

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

    def send(self, message: Any) -> None: ...

    def encode(self, message: Any) -> bytes: ...

    def pause(self) -> None: ...

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
        #: Identity, once authenticated; None otherwise.
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
        """Name that the client has given itself (``RESUME <name>``); empty where it has not."""
        return "" if self._own_journal is None else self._own_journal.name

    @property
    def message_id(self) -> str | None:
        """Id of the message being handled, with ``--message-ids``, until something is stored under it."""
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
        return self.app.serving.join(self._connection, group, label)

    def leave(self, group: str) -> Awaitable[None]:
        """Have it hear that group no more."""
        return self.app.serving.leave(self._connection, group)

    @property
    def groups(self) -> Collection[str]:
        """The names of those it is in. Any thread may ask."""
        app = self.app
        return app.serving.groups_of(self._connection) if app.is_served else ()

    def close(self) -> None:
        """End the connection once what was sent and answered so far is delivered. Further messages go unread."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.peer}>"
