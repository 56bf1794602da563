"""
A client as an author of the journal: how it calls itself, and under which ids its messages are stored.

An id is spent with the first thing that is stored under it. What a handler stores for one message it stores in one go;
otherwise the half of it would be a duplicate when the message comes again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from mtserver.acks import Acks
from mtserver.errors import HandlerError
from mtserver.journal import Batch, Transaction

if TYPE_CHECKING:
    from mtserver.client import Client, Connection


class Author:
    """Of one client; made when it first stores something, or says its name."""

    __slots__ = ("_address", "_client", "_connection", "behind", "frames", "ids", "is_numbered", "name")

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._address = connection.peer
        #: Whether its messages have ids (``--message-ids``).
        self.is_numbered = False
        #: What it calls itself; empty: it has not said.
        self.name = ""
        #: Of the messages that are being handled, until they are spent.
        self.ids: Sequence[str] = ()
        #: Those messages, as they came.
        self.frames: Sequence[bytes] = ()
        #: Of the first message that could not be stored, which no later one is to overtake; empty: there is none.
        self.behind = ""

    @property
    def level(self) -> str:
        """What it means that a message of its is stored."""
        return self._connection.app.journal.level

    async def store(self, messages: Sequence[Any], ids: Sequence[str] | None) -> Acks:
        """See :meth:`mtserver.client.Client.journal_batch`."""
        connection = self._connection
        journal = connection.app.journal
        if journal.is_full:
            connection.pause()
        if ids is None:
            ids = self._spend(len(messages)) if self.is_numbered else ()
        encoded = [each if type(each) is bytes else connection.encode(each) for each in messages]
        stored = await journal.append(self._batch(encoded, ids))
        return Acks(stored.sequences, stored.duplicates, journal.level)

    def transaction(self, message: Any) -> AbstractAsyncContextManager[Transaction]:
        """See :meth:`mtserver.client.Client.transaction`."""
        connection = self._connection
        batch = None
        if message is not None or self.ids:
            ids = self._spend(1) if self.is_numbered else ()
            frame = self.frames[0] if message is None else message
            batch = self._batch([frame if type(frame) is bytes else connection.encode(frame)], ids)
        return connection.app.journal.transaction(batch)

    def _batch(self, messages: Sequence[bytes], ids: Sequence[str]) -> Batch:
        client = self._client
        return Batch(time.time(), client.id, self._address, messages, client.identity or "", self.name, ids)

    def _spend(self, messages: int) -> Sequence[str]:
        ids, self.ids = self.ids, ()
        if len(ids) != messages:
            raise HandlerError(
                f"{messages} messages to be stored under {len(ids)} ids: what belongs to one message is stored in one "
                "go, and its transaction is for received, not received_batch"
            )
        return ids
