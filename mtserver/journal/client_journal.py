"""
The journal as one client uses it: the client's name, and the ids under which its messages are stored.

Storing something spends an id. So a handler stores all that belongs to one message in one call: of two, only the first
would have the id, and be recognised as a duplicate when the message comes again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from mtserver.acks import Acks
from mtserver.errors import HandlerError
from mtserver.journal.interface import Batch, Journal, Transaction

_BYTES: set[type] = {bytes}


class App(Protocol):
    """App that the client is connected to."""

    @property
    def journal(self) -> Journal: ...


class Connection(Protocol):
    """Connection of a client: its address and codec, and a pause of its reading."""

    @property
    def peer(self) -> str: ...

    @property
    def app(self) -> App: ...

    def encode(self, message: Any) -> bytes: ...

    def pause(self) -> None: ...


class Client(Protocol):
    """Client that stores messages."""

    @property
    def id(self) -> int: ...

    @property
    def identity(self) -> str | None: ...


class ClientJournal:
    """Journal of one client; made when the client first stores something or says its name."""

    __slots__ = (
        "_address",
        "_client",
        "_connection",
        "_journal",
        "behind",
        "frames",
        "ids",
        "is_numbered",
        "is_resuming",
        "name",
    )

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._address = connection.peer
        self._journal = connection.app.journal
        #: Whether its messages have ids (``--message-ids``).
        self.is_numbered = False
        #: Whether the client has said ``RESUME`` without success yet.
        self.is_resuming = False
        #: Name that the client gave itself; empty if it gave none.
        self.name = ""
        #: Ids of the messages that are being handled, until they are spent.
        self.ids: Sequence[str] = ()
        #: Frames of those messages, as they came.
        self.frames: Sequence[bytes] = ()
        #: Id of the first message that was refused, which no later one may overtake; empty if none was.
        self.behind = ""

    @property
    def level(self) -> str:
        """Level at which the client's messages are stored."""
        return self._journal.level

    async def store(self, messages: Sequence[Any], ids: Sequence[str] | None) -> Acks:
        """Store messages; :meth:`mtserver.client.Client.journal_batch` describes it."""
        journal = self._journal
        if journal.is_full:
            self._connection.pause()
        if ids is None:
            ids = self._spend(len(messages)) if self.is_numbered else ()
        # A copy, since the handler may change its list while the messages wait to be stored.
        encoded = tuple(messages)
        if set(map(type, encoded)) != _BYTES:
            encode = self._connection.encode
            encoded = tuple([each if type(each) is bytes else encode(each) for each in encoded])
        sequences, duplicates = await journal.append(self._batch(encoded, ids))
        return Acks(sequences, duplicates, journal.level)

    def transaction(self, message: Any) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction; :meth:`mtserver.client.Client.transaction` describes it."""
        batch = None
        if message is not None or self.frames:
            ids = self._spend(1) if self.is_numbered else ()
            frame = self.frames[0] if message is None else message
            batch = self._batch((frame if type(frame) is bytes else self._connection.encode(frame),), ids)
        return self._journal.transaction(batch)

    def _batch(self, messages: Sequence[bytes], ids: Sequence[str]) -> Batch:
        client = self._client
        return Batch(time.time(), client.id, self._address, messages, client.identity or "", self.name, ids)

    def _spend(self, messages: int) -> Sequence[str]:
        ids, self.ids = self.ids, ()
        if len(ids) != messages:
            raise HandlerError(
                f"{messages} messages to be stored under {len(ids)} ids that are left: with --message-ids there is one "
                "journal() or transaction() for a message, while it is handled; otherwise say which id, or id=''"
            )
        return ids
