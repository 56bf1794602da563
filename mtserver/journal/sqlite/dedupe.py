"""
Deduplication: the ids of messages that are known, and the sources (identity and name) that they belong to. All
functions run inside the writer's transaction.

Laws:

* A message whose id is known for its source, and not older than the window, is a duplicate and is not stored again.
* Ids leave the window by age (:attr:`Window.seconds`) or by number (:attr:`Window.messages`); each step of that takes
  bounded time.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import NamedTuple

import apsw

from mtserver.journal.interface import Batch

#: Ids in one statement, at most.
ROWS = 64
#: Rows that one call of :func:`prune` removes, at most, so that the next commit does not wait long.
PRUNED = 2000
#: Sources whose numbers are cached.
REMEMBERED = 10000
#: Seconds between two updates of a source's ``seen``.
RENEWED = 3600.0


class Window(NamedTuple):
    """Limits on how long ids are known: by age and by number of messages."""

    seconds: float
    messages: int


class Sources:
    """Cache of the sources' numbers, by identity and name. It must be emptied when a transaction is rolled back."""

    def __init__(self) -> None:
        #: Number, and the ``seen`` that is written in the file.
        self._numbers: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def number(self, connection: apsw.Connection, identity: str, name: str, time: float) -> int | None:
        """
        Return the number of a source, a new one if need be; None for clients without identity and name.

        :param time: when it sent something.
        """
        key = identity, name
        if key == ("", ""):
            return None
        known = self._numbers.get(key)
        if known is None or time > known[1] + RENEWED:
            known = self._numbers[key] = _update_source(connection, key, time)
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        return known[0]

    def forget(self) -> None:
        """Empty the cache: its sources may not be in the file any more."""
        self._numbers.clear()


def _update_source(connection: apsw.Connection, key: tuple[str, str], time: float) -> tuple[int, float]:
    """Insert a source, or update its ``seen``; return its number and ``seen``."""
    found = connection.execute("SELECT source, seen FROM sources WHERE identity = ? AND name = ?", key).fetchone()
    if found is None:
        connection.execute("INSERT INTO sources (identity, name, seen) VALUES (?, ?, ?)", (*key, time))
        return connection.last_insert_rowid(), time
    number, seen = found
    if time > seen + RENEWED:
        connection.execute("UPDATE sources SET seen = ? WHERE source = ?", (time, number))
        seen = time
    return number, seen


def find_source(connection: apsw.Connection, identity: str, name: str) -> int | None:
    """Return the number of a source; None if it is not in the file."""
    found = connection.execute("SELECT source FROM sources WHERE identity = ? AND name = ?", (identity, name)).get
    return None if found is None else int(found)


@functools.cache
def _select(ids: int) -> str:
    return f"SELECT id, seq FROM ids WHERE source = ?1 AND time > ?2 AND id IN ({','.join('?' * ids)})"


@functools.cache
def _insert(ids: int) -> str:
    rows = ",".join(f"(?1,?2,?{number},?{number + 1})" for number in range(3, 3 + 2 * ids, 2))
    # OR REPLACE: an id that has left the window may not be pruned yet.
    return f"INSERT OR REPLACE INTO ids (source, time, id, seq) VALUES {rows}"


def known(connection: apsw.Connection, source: int, batch: Batch, window: Window) -> dict[str, int]:
    """Return the ids of the batch that are known, with the numbers of their messages."""
    oldest = batch.time - window.seconds
    found: dict[str, int] = {}
    for begin in range(0, len(batch.ids), ROWS):
        some = batch.ids[begin : begin + ROWS]
        found.update(connection.execute(_select(len(some)), (source, oldest, *some)))
    return found


def remember(connection: apsw.Connection, source: int, time: float, numbered: list[tuple[str, int]]) -> None:
    """Insert ids and the numbers of their messages."""
    for begin in range(0, len(numbered), ROWS):
        some = numbered[begin : begin + ROWS]
        values = [value for pair in some for value in pair]
        connection.execute(_insert(len(some)), (source, time, *values))


def prune(connection: apsw.Connection, now: float, window: Window) -> float | None:
    """
    Delete some of the ids that are out of the window, the oldest first.

    :returns: the time of the youngest that was deleted for number, not for age; None if there was none.
    """
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").get or 0
    oldest = list(connection.execute("SELECT seq, time FROM ids ORDER BY seq LIMIT ?", (PRUNED,)))
    forgotten, early = 0, None
    for seq, time in oldest:
        if seq <= last - window.messages:
            if time > now - window.seconds:
                early = time
        elif time > now - window.seconds:
            break
        forgotten = seq
    if forgotten:
        connection.execute("DELETE FROM ids WHERE seq <= ?", (forgotten,))
    return early
