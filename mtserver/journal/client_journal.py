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
from mtserver.journal.interface import Batch, Transaction

if TYPE_CHECKING:
    from mtserver.app import Client, Connection

_BYTES: set[type] = {bytes}


class ClientJournal:
    """Of one client; made when it first stores something, or says its name."""

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
        #: It has said ``RESUME``, and was refused.
        self.is_resuming = False
        #: What it calls itself; empty: it has not said.
        self.name = ""
        #: Of the messages that are being handled, until they are spent.
        self.ids: Sequence[str] = ()
        #: Those messages, as they came.
        self.frames: Sequence[bytes] = ()
        #: Of the first message that was refused, which no later one is to overtake; empty: there is none.
        self.behind = ""

    @property
    def level(self) -> str:
        """What it means that a message of its is stored."""
        return self._journal.level

    async def store(self, messages: Sequence[Any], ids: Sequence[str] | None) -> Acks:
        """See :meth:`mtserver.app.Client.journal_batch`."""
        journal = self._journal
        if journal.is_full:
            self._connection.pause()
        if ids is None:
            ids = self._spend(len(messages)) if self.is_numbered else ()
        # The list is its handler's, and what is stored is not to change on its way.
        encoded = tuple(messages)
        if set(map(type, encoded)) != _BYTES:
            encode = self._connection.encode
            encoded = tuple([each if type(each) is bytes else encode(each) for each in encoded])
        sequences, duplicates = await journal.append(self._batch(encoded, ids))
        return Acks(sequences, duplicates, journal.level)

    def transaction(self, message: Any) -> AbstractAsyncContextManager[Transaction]:
        """See :meth:`mtserver.app.Client.transaction`."""
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
