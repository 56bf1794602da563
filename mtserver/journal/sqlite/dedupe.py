"""
Ids of messages: which of them are known, and for how long. All of it inside the writer's transaction.

Laws:

* An id that is known, of the same source and not older than the window, is a duplicate, and its message is not stored
  again.
* The ids of the last :attr:`Window.messages` messages are kept, and none that is older than :attr:`Window.seconds`;
  each look at them takes bounded time.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import NamedTuple

import apsw

from mtserver.journal.interface import Batch

#: Ids in one statement, at most.
ROWS = 64
#: Rows that one pruning removes, at most, so that nobody waits long for it.
PRUNED = 2000
#: Sources whose numbers are remembered.
REMEMBERED = 10000
#: Seconds for which it is not written again that a source was heard of.
RENEWED = 3600.0


class Window(NamedTuple):
    """How long ids are known."""

    seconds: float
    messages: int


class Sources:
    """The numbers of sources, by identity and name. Forget them when a transaction is rolled back."""

    def __init__(self) -> None:
        #: And when it was last written that they were heard of.
        self._numbers: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def number(self, connection: apsw.Connection, identity: str, name: str, time: float) -> int | None:
        """
        The number of a source, which is made if it is new; None for clients without identity and name.

        :param time: when it was heard of.
        """
        key = identity, name
        if key == ("", ""):
            return None
        known = self._numbers.get(key)
        if known is None or time > known[1] + RENEWED:
            known = self._numbers[key] = _heard_of(connection, key, time)
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        return known[0]

    def forget(self) -> None:
        """What was remembered may not be in the file any more."""
        self._numbers.clear()


def _heard_of(connection: apsw.Connection, key: tuple[str, str], time: float) -> tuple[int, float]:
    """A source's number, and when it is written that it was heard of."""
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
    """The number of a source that is in the file."""
    found = connection.execute("SELECT source FROM sources WHERE identity = ? AND name = ?", (identity, name)).get
    return None if found is None else int(found)


@functools.cache
def _select(ids: int) -> str:
    return f"SELECT id, seq FROM ids WHERE source = ?1 AND time > ?2 AND id IN ({','.join('?' * ids)})"


@functools.cache
def _insert(ids: int) -> str:
    rows = ",".join(f"(?1,?2,?{number},?{number + 1})" for number in range(3, 3 + 2 * ids, 2))
    # OR REPLACE: one that has left the window may still be there.
    return f"INSERT OR REPLACE INTO ids (source, time, id, seq) VALUES {rows}"


def known(connection: apsw.Connection, source: int, batch: Batch, window: Window) -> dict[str, int]:
    """Those of the batch's ids that are known, and the numbers of their messages."""
    oldest = batch.time - window.seconds
    found: dict[str, int] = {}
    for begin in range(0, len(batch.ids), ROWS):
        some = batch.ids[begin : begin + ROWS]
        found.update(connection.execute(_select(len(some)), (source, oldest, *some)))
    return found


def remember(connection: apsw.Connection, source: int, time: float, numbered: list[tuple[str, int]]) -> None:
    """These ids are known from now on."""
    for begin in range(0, len(numbered), ROWS):
        some = numbered[begin : begin + ROWS]
        values = [value for pair in some for value in pair]
        connection.execute(_insert(len(some)), (source, time, *values))


def prune(connection: apsw.Connection, now: float, window: Window) -> float | None:
    """
    Forget some of the ids that are out of the window, the oldest first.

    :returns: when the youngest was received that was forgotten before its time, because there were too many; or None.
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
