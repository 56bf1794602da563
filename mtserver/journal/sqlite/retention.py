"""
Retention: older messages go, so that a journal keeps to ``--keep``. In steps, each inside a transaction of its caller.

Laws:

* The oldest numbers go first, and none that is younger than the age, unless the size asks for it. A number is never
  given again.
* A step removes :data:`ROWS` messages or :data:`BYTES` bytes at most; whoever waits for the file waits for one step.
* The size is that of the messages. Ids, sources and handlers' tables come on top of it: no message that goes makes them
  smaller. Free pages stay in the file, for what comes.
* An id stays known for as long as ``--dedupe-window`` says, whether its message is there or not.
* A source goes only by age, and only when neither a message nor an id of it is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw
from twisted.logger import Logger

from mtserver.journal.interface import Batch, Stored
from mtserver.journal.options import Keep
from mtserver.journal.sqlite.dedupe import RENEWED

#: Messages that a step looks at, and removes, at most.
ROWS = 2000
#: Bytes of messages that a step removes, at most (but one message at least).
BYTES = 16 * 1024 * 1024
#: Messages that are measured together.
MEASURED = 10000
#: Sources that are looked for together.
SOURCES = 10000
#: What a row takes in its page besides the address and the message: numbers, lengths, the pointer to it.
OVERHEAD = 24
_SIZE = f"length(message) + length(address) + {OVERHEAD}"
#: Seconds between two looks for sources of which nothing is left.
SWEEP = 3600.0

_log = Logger("mtserver.journal")


class Step(NamedTuple):
    """What a step has removed."""

    messages: int = 0
    #: Of messages, about.
    bytes: int = 0
    sources: int = 0
    #: There may be more that could be removed now.
    more: bool = False
    #: The last number that has gone; 0 if none has.
    last: int = 0
    #: There is no message left before this number.
    first: int = 0


class _Row(NamedTuple):
    sequence: int
    time: float
    size: int


class Measure:
    """The bytes of all messages: of those that were there, counted page by page, and of those that come and go."""

    def __init__(self) -> None:
        #: None before any has come.
        self._first: int | None = None
        self._last = 0
        self.bytes = 0

    def catch_up(self, connection: apsw.Connection) -> bool:
        """Count some of those that are not counted yet; whether it was all of them."""
        first = connection.execute("SELECT min(seq) FROM messages").get
        if first is None:
            self._first, self.bytes = None, 0
            return True
        if self._first is None or first > self._first:  # somebody else has removed some
            self._first, self._last, self.bytes = first, first - 1, 0
        rows = f"SELECT seq, {_SIZE} AS size FROM messages WHERE seq > ? ORDER BY seq LIMIT {MEASURED}"
        found: Any = connection.execute(f"SELECT count(*), max(seq), sum(size) FROM ({rows})", (self._last,)).fetchone()
        count, last, size = found
        if count:
            self._last = last
            self.bytes += size
        return bool(count < MEASURED)

    def added(self, batches: Sequence[Batch], stored: Sequence[Stored]) -> None:
        """These need not be counted, if they follow on those that are."""
        for batch, (sequences, duplicates) in zip(batches, stored, strict=True):
            if self._first is not None and sequences and not duplicates and sequences[0] == self._last + 1:
                self._last = sequences[-1]
                self.bytes += sum(map(len, batch.messages)) + len(sequences) * (len(batch.address) + OVERHEAD)

    def removed(self, first: int, size: int) -> None:
        """So many bytes have gone, and there is none left before this number."""
        self._first = first
        self.bytes -= size


class Retention:
    """Of one journal."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._measure = Measure()
        #: Sources of which perhaps nothing is left, while messages are gone through; None: that is not under way.
        self._candidates: set[int] | None = None
        #: As far as the messages have been gone through.
        self._after = 0
        self._next_sweep = -math.inf

    @property
    def is_asked_for(self) -> bool:
        """Something is to go at all."""
        return bool(self._keep.age or self._keep.size)

    def step(self, connection: apsw.Connection, now: float) -> Step:
        """Remove some of what is to go."""
        excess = 0
        if self._keep.size:
            if not self._measure.catch_up(connection):
                return Step(more=True)
            excess = self._measure.bytes - self._keep.size
        rows = _rows(connection, 0) if self._keep.age or excess > 0 else []
        too_old = now - self._keep.age if self._keep.age else -math.inf
        gone: list[_Row] = []
        for row in rows:
            if excess > 0 or row.time < too_old:
                gone.append(row)
                excess -= row.size
        if not gone:
            return self._sweep(connection, now) if self._keep.age else Step()
        _remove(connection, rows, gone)
        size, last = sum(row.size for row in gone), gone[-1].sequence
        first = last + 1 if gone == rows[: len(gone)] else rows[0].sequence
        return Step(len(gone), size, more=True, last=last, first=first)

    def taken(self, step: Step) -> None:
        """The transaction of this step has been committed."""
        if step.messages and self._keep.size:
            self._measure.removed(step.first, step.bytes)

    def begin_anew(self) -> None:
        """It may be another file."""
        self._measure = Measure()
        self._candidates = None

    def added(self, batches: Sequence[Batch], stored: Sequence[Stored]) -> None:
        """These have been stored."""
        if self._keep.size:
            self._measure.added(batches, stored)

    @property
    def is_sweeping(self) -> bool:
        """It is going through all messages, for sources of which none is left."""
        return self._candidates is not None

    def _sweep(self, connection: apsw.Connection, now: float) -> Step:
        """Go through a page of messages; at the end, remove the sources that none of them was from."""
        # A source that sends again is not so old any more, so what is stored meanwhile does no harm.
        heard = now - self._keep.age - RENEWED
        if self._candidates is None:
            if now < self._next_sweep:
                return Step()
            self._next_sweep, self._after = now + SWEEP, 0
            old = connection.execute("SELECT source FROM sources WHERE seen < ? LIMIT ?", (heard, SOURCES))
            self._candidates = {source for (source,) in old} or None
        if self._candidates is None:
            return Step()
        rows = _rows(connection, self._after)
        if rows:
            page = (self._after, rows[-1].sequence)
            found = connection.execute("SELECT DISTINCT source FROM messages WHERE seq > ? AND seq <= ?", page)
            self._candidates.difference_update(source for (source,) in found)
            self._after = rows[-1].sequence
            if self._candidates:
                return Step()
        unused, self._candidates = self._candidates, None
        connection.executemany(
            """
            DELETE FROM sources WHERE source = ? AND seen < ?
                AND NOT EXISTS (SELECT * FROM ids WHERE ids.source = sources.source)
            """,
            [(source, heard) for source in unused],
        )
        return Step(sources=len(unused))


class Account:
    """What the log is told of it: that it has begun, and how much goes in an hour; not each step."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._messages = 0
        self._bytes = 0
        self._since = -math.inf

    def add(self, step: Step, now: float) -> None:
        """A step has been taken."""
        self._messages += step.messages
        self._bytes += step.bytes
        if not self._messages or now < self._since + 3600:
            return
        if self._since == -math.inf:
            _log.info("--keep: the oldest messages are removed from the journal {path} from now on", path=self._path)
        else:
            _log.info(
                "--keep: {messages} messages ({bytes} bytes) were removed from the journal {path} in {hours:.1f} h",
                path=self._path,
                messages=self._messages,
                bytes=self._bytes,
                hours=(now - self._since) / 3600,
            )
        self._messages = self._bytes = 0
        self._since = now


def _rows(connection: apsw.Connection, after: int) -> list[_Row]:
    """The oldest messages behind a number, as many as a step may have."""
    sql = f"""
        SELECT seq, time, {_SIZE} FROM messages
        WHERE seq > ? ORDER BY seq LIMIT {ROWS}
    """
    rows: list[_Row] = []
    size = 0
    cursor = connection.execute(sql, (after,))
    for row in cursor:
        rows.append(_Row(*row))
        size += rows[-1].size
        if size > BYTES:
            break
    cursor.close(force=True)
    return rows


def _remove(connection: apsw.Connection, rows: list[_Row], gone: list[_Row]) -> None:
    last = gone[-1].sequence
    if gone == rows[: len(gone)]:
        connection.execute("DELETE FROM messages WHERE seq <= ?", (last,))
    else:  # the clock was wrong for a while
        connection.executemany("DELETE FROM messages WHERE seq = ?", [(row.sequence,) for row in gone])
