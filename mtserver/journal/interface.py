"""
The interface of a journal: what goes in, what comes out, and what each kind of journal does in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol


class Batch(NamedTuple):
    """Messages to keep, that one client has sent together."""

    #: When they were received, in seconds since the epoch.
    time: float
    #: The client's number.
    client: int
    #: The client's address, as text.
    address: str
    messages: Sequence[bytes]
    #: Who the client is; empty where nobody has asked.
    identity: str = ""
    #: What it calls itself, among all with that identity; empty if it has not said.
    name: str = ""
    #: The messages' ids, one for each; empty: they have none.
    ids: Sequence[str] = ()


class Stored(NamedTuple):
    """What has become of a batch."""

    #: A number for each of its messages.
    sequences: Sequence[int]
    #: Which of them (by their places, from 0) were stored before, and have the number that they got then.
    duplicates: frozenset[int] = frozenset()


class Record(NamedTuple):
    """One message as it is kept."""

    sequence: int
    time: float
    client: int
    address: str
    identity: str
    name: str
    #: Empty: it has none.
    id: str
    message: bytes


class Last(NamedTuple):
    """The last message with an id that was stored under an identity and a name."""

    sequence: int
    id: str


class Transaction(Protocol):
    """
    The journal's transaction, as a handler has it: tables of its own, which are kept with the message or not at all.

    SQL and bindings as of SQLite. Neither the journal's own tables nor the transaction itself may be touched.
    """

    #: The number of the message in it; None where there is none.
    sequence: int | None

    def execute(self, sql: str, bindings: Any = ()) -> Awaitable[list[tuple[Any, ...]]]:
        """Execute a statement; its rows."""
        ...

    def executemany(self, sql: str, bindings: Sequence[Any]) -> Awaitable[None]:
        """Execute a statement once for each of several bindings."""
        ...


class Journal(Protocol):
    """Where messages are kept. Used in the loop's thread, and in whatever the loop calls."""

    @property
    def level(self) -> str:
        """What it takes for a message to be stored: ``accepted``, ``durable`` or ``replicated``."""
        ...

    @property
    def is_full(self) -> bool:
        """So much waits to be stored that those who read messages from somewhere should read no more for now."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing can be stored, if the last attempt failed; an empty text otherwise."""
        ...

    def append(self, batch: Batch) -> Awaitable[Stored]:
        """Store these messages."""
        ...

    def transaction(self, batch: Batch | None) -> AbstractAsyncContextManager[Transaction]:
        """
        Store a batch, of one message at most, together with what is done inside, when the block is left.

        :raises Duplicate: on entering, if the message was stored before.
        """
        ...

    def read(self, after: int = 0, limit: int = 1000) -> Awaitable[list[Record]]:
        """The next messages after a sequence number (or its place, if it is not kept any more), in their order."""
        ...

    def position(self) -> Awaitable[int]:
        """The sequence number of the last message that is stored; 0 if there has been none."""
        ...

    def last(self, identity: str, name: str) -> Awaitable[Last | None]:
        """The last message with an id of those with this identity and name; None if there has been none."""
        ...

    def tick(self) -> None:
        """Called about once a second while the server runs: for what takes its time, and what has taken too long."""
        ...

    def close(self) -> Awaitable[None]:
        """Store what was appended, and end."""
        ...
