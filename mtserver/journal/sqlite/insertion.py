"""
Insertion: batches become numbered rows, and duplicates get the number that they have.

Everything runs inside the writer's transaction, which holds the file's lock from before the first number: no other
connection or process can give the same number, or store under the same id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import apsw
from twisted.logger import Logger

from mtserver.journal.interface import Batch, Stored
from mtserver.journal.sqlite import dedupe
from mtserver.journal.sqlite.statements import Rows, inserts

_log = Logger("mtserver.journal")


class Insertion:
    """
    Insertion into one file, through one connection at a time.

    :param window: limits on how long ids are known.
    """

    def __init__(self, window: dedupe.Window) -> None:
        self._window = window
        self._sources = dedupe.Sources()
        self._version = 0
        #: Whether the file may have ids, which leave the window in time.
        self.has_ids = False
        self._warned = False

    def open(self, connection: apsw.Connection) -> None:
        """Begin with a new connection."""
        self.forget()
        # Ids that an earlier process has stored leave the window as well.
        self.has_ids = connection.execute("SELECT EXISTS (SELECT * FROM ids)").get == 1

    def begin(self, connection: apsw.Connection) -> None:
        """Begin a transaction."""
        version = connection.pragma("data_version")
        if version != self._version:
            self._version = version  # another process has written, and may have removed sources
            self.forget()

    def forget(self) -> None:
        """Empty the caches: what was inserted may not be in the file any more."""
        self._sources.forget()

    def insert(self, connection: apsw.Connection, batches: Sequence[Batch]) -> list[Stored]:
        """Number and insert the messages of batches."""
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0
        following = last + 1
        stored: list[Stored] = []
        rows: list[Rows] = []
        lasts: dict[int, tuple[int, str]] = {}
        for batch in batches:
            received, client, address, messages, identity, name, ids = batch
            source = self._sources.number(connection, identity, name, received) if identity or name else None
            if ids:
                outcome, messages, ids = self._deduplicate(connection, source, batch, following)
                if messages:
                    lasts[source or 0] = (following + len(messages) - 1, ids[-1])
            else:
                outcome = Stored(range(following, following + len(messages)))
            following += len(messages)
            stored.append(outcome)
            rows.append((received, client, address, messages, source, ids))
        for statement, values in inserts(rows):
            connection.execute(statement, values)
        # AUTOINCREMENT numbers in order and without gaps, since nobody else can write meanwhile.
        if following - 1 != last and connection.last_insert_rowid() != following - 1:
            raise OSError("the messages were not numbered one after another")
        if lasts:
            self.has_ids = True
            updates = [(sequence, last_id, source) for source, (sequence, last_id) in lasts.items()]
            connection.executemany("UPDATE sources SET last_seq = ?, last_id = ? WHERE source = ?", updates)
        return stored

    def _deduplicate(
        self, connection: apsw.Connection, source: int | None, batch: Batch, following: int
    ) -> tuple[Stored, Sequence[bytes], Sequence[str]]:
        """Return the outcome of a batch with ids, and its new messages with their ids."""
        if source is None or len(batch.ids) != len(batch.messages):
            raise ValueError("messages with ids have one each, and an identity or a name")
        known = dedupe.known(connection, source, batch, self._window)
        if not known and len(set(batch.ids)) == len(batch.ids):
            sequences: Sequence[int] = range(following, following + len(batch.ids))
            dedupe.remember(connection, source, batch.time, list(zip(batch.ids, sequences, strict=True)))
            return Stored(sequences), batch.messages, batch.ids
        numbers, duplicates = [], set()
        new: list[tuple[str, int]] = []
        messages: list[bytes] = []
        for place, (message, message_id) in enumerate(zip(batch.messages, batch.ids, strict=True)):
            number = known.get(message_id)
            if number is None:
                number = known[message_id] = following + len(new)
                new.append((message_id, number))
                messages.append(message)
            else:
                duplicates.add(place)
            numbers.append(number)
        dedupe.remember(connection, source, batch.time, new)
        return Stored(numbers, frozenset(duplicates)), messages, [message_id for message_id, _ in new]

    def prune(self, connection: apsw.Connection) -> None:
        """Delete some of the ids that are out of the window."""
        now = time.time()
        early = dedupe.prune(connection, now, self._window)
        if early is not None and not self._warned:
            self._warned = True
            _log.warn(
                "ids are forgotten after {age:.0f} s already, since there are more than --dedupe-messages {messages}",
                age=now - early,
                messages=self._window.messages,
            )
