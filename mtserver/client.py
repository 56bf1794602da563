"""What a handler holds of one client. All of it may be used at any time; ``send`` and ``close`` from any thread."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mtserver.app import App


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

    def send(self, message: Any) -> None: ...

    def close(self) -> None: ...


class Client:
    """
    One connected peer.

    After the connection has ended everything here can still be read, and ``send`` does nothing.
    """

    __slots__ = (
        "_connection",
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
        #: A number, counted up from 1 since the server's start.
        self.id = number
        #: Who it is, once authenticated; None otherwise.
        self.identity: str | None = None
        #: Complete messages handed to the handler so far.
        self.messages_received = 0
        #: Replies, sent messages and refusals so far.
        self.messages_sent = 0
        #: Bytes read from the peer so far, framing and unfinished messages included.
        self.bytes_received = 0
        #: Bytes handed to the transport so far.
        self.bytes_sent = 0

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

    def close(self) -> None:
        """End the connection once what was sent and answered so far is delivered. Further messages go unread."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.peer}>"
