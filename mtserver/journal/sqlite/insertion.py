"""
Insertion: batches get their numbers and become rows, and what comes again gets the number that it has.

All of it inside the writer's transaction, which holds the lock from before the first number on: so nobody else, in this
process or another, gets the same, and nobody else stores under the same id meanwhile.
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
    Into one file, through one connection at a time.

    :param window: how long ids are known.
    """

    def __init__(self, window: dedupe.Window) -> None:
        self._window = window
        self._sources = dedupe.Sources()
        self._version = 0
        #: Ids may be known, so that there may be some to forget.
        self.has_ids = False
        self._warned = False

    def open(self, connection: apsw.Connection) -> None:
        """The connection is a new one."""
        self.forget()
        # Those of an earlier process have to leave the window as well.
        self.has_ids = connection.execute("SELECT EXISTS (SELECT * FROM ids)").get == 1

    def begin(self, connection: apsw.Connection) -> None:
        """A transaction has begun."""
        version = connection.pragma("data_version")
        if version != self._version:
            self._version = version  # somebody else has written, and may have removed sources
            self.forget()

    def forget(self) -> None:
        """What was inserted may not be there any more."""
        self._sources.forget()

    def insert(self, connection: apsw.Connection, batches: Sequence[Batch]) -> list[Stored]:
        """Number and insert them."""
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0
        following = last + 1
        stored: list[Stored] = []
        rows: list[Rows] = []
        lasts: dict[int, tuple[int, str]] = {}
        for batch in batches:
            received, client, address, messages, owner, name, numbered = batch
            source = self._sources.number(connection, owner, name, received) if owner or name else None
            if numbered:
                outcome, messages, numbered = self._new_of(connection, source, batch, following)
                if messages:
                    lasts[source or 0] = (following + len(messages) - 1, numbered[-1])
            else:
                outcome = Stored(range(following, following + len(messages)))
            following += len(messages)
            stored.append(outcome)
            rows.append((received, client, address, messages, source, numbered))
        for statement, values in inserts(rows):
            connection.execute(statement, values)
        # AUTOINCREMENT has numbered them in their order, without gaps, since nobody else can write meanwhile.
        if following - 1 != last and connection.last_insert_rowid() != following - 1:
            raise OSError("the messages were not numbered one after another")
        if lasts:
            self.has_ids = True
            values_of = [(sequence, last_id, source) for source, (sequence, last_id) in lasts.items()]
            connection.executemany("UPDATE sources SET last_seq = ?, last_id = ? WHERE source = ?", values_of)
        return stored

    def _new_of(
        self, connection: apsw.Connection, source: int | None, batch: Batch, following: int
    ) -> tuple[Stored, Sequence[bytes], Sequence[str]]:
        """What becomes of a batch with ids, and those of its messages (and their ids) that are new."""
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
        for place, (message, name) in enumerate(zip(batch.messages, batch.ids, strict=True)):
            number = known.get(name)
            if number is None:
                number = known[name] = following + len(new)
                new.append((name, number))
                messages.append(message)
            else:
                duplicates.add(place)
            numbers.append(number)
        dedupe.remember(connection, source, batch.time, new)
        return Stored(numbers, frozenset(duplicates)), messages, [name for name, _ in new]

    def prune(self, connection: apsw.Connection) -> None:
        """Forget some of the ids that are out of the window."""
        now = time.time()
        early = dedupe.prune(connection, now, self._window)
        if early is not None and not self._warned:
            self._warned = True
            _log.warn(
                "ids are forgotten after {age:.0f} s already, since there are more than --dedupe-messages {messages}",
                age=now - early,
                messages=self._window.messages,
            )
