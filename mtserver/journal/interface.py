"""The interface that every journal has: batches go in, records come out; :class:`Journal` has the operations."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol


class Batch(NamedTuple):
    """Messages that one client has sent together, to be stored together."""

    #: Time of reception, in seconds since the epoch.
    time: float
    #: Number of the client.
    client: int
    #: Address of the client, as text.
    address: str
    messages: Sequence[bytes]
    #: Authenticated identity of the client; empty without authentication.
    identity: str = ""
    #: Name that the client gave itself with ``RESUME``; empty if it gave none.
    name: str = ""
    #: Ids of the messages, one for each; empty if they have none.
    ids: Sequence[str] = ()


class Stored(NamedTuple):
    """Outcome of storing a batch."""

    #: Sequence number of each message.
    sequences: Sequence[int]
    #: Places (from 0) of the messages that were stored before; their numbers are those they got then.
    duplicates: frozenset[int] = frozenset()


class Record(NamedTuple):
    """One stored message."""

    sequence: int
    time: float
    client: int
    address: str
    identity: str
    name: str
    #: Id of the message; empty if it has none.
    id: str
    message: bytes


class Last(NamedTuple):
    """Last message with an id that was stored under an identity and a name."""

    sequence: int
    id: str


class Transaction(Protocol):
    """
    Transaction of the journal as a handler uses it: changes to the handler's own tables, kept with its message or not
    at all.

    SQL and bindings are SQLite's. Statements may read the journal's tables but not change them, and may not end the
    transaction.
    """

    #: Sequence number of the message in the transaction; None without a message.
    sequence: int | None

    def execute(self, sql: str, bindings: Any = ()) -> Awaitable[list[tuple[Any, ...]]]:
        """Execute a statement and return its rows."""
        ...

    def executemany(self, sql: str, bindings: Sequence[Any]) -> Awaitable[None]:
        """Execute a statement once for each of the bindings."""
        ...


class Journal(Protocol):
    """Store of messages. All methods are called in the event loop's thread."""

    @property
    def level(self) -> str:
        """Level at which a message counts as stored: ``accepted``, ``durable`` or ``replicated``."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be stored that reading from clients should pause."""
        ...

    @property
    def trouble(self) -> str:
        """Reason why nothing can be stored, if the last attempt failed; empty otherwise."""
        ...

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """Store a batch."""
        ...

    def transaction(self, batch: Batch | None) -> AbstractAsyncContextManager[Transaction]:
        """
        Store a batch of at most one message together with what the block executes, when the block is left.

        :raises Duplicate: on entering, if the message was stored before.
        """
        ...

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """Read the messages that follow a sequence number, in order; the message with that number may be gone."""
        ...

    def position(self) -> Awaitable[int]:
        """Return the sequence number of the last message stored; 0 if there has been none."""
        ...

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """Return the last message with an id stored under this identity and name; None if there has been none."""
        ...

    def tick(self) -> None:
        """Do periodic work and end what has taken too long; called about once a second while the server runs."""
        ...

    def close(self) -> Awaitable[None]:
        """Store what was appended, and release the storage."""
        ...
