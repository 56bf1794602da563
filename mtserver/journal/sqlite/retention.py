"""
Retention: removes old messages, so that a journal keeps to ``--keep``; in steps, each in a transaction of the caller.

Laws:

* The oldest numbers go first; a message younger than the age goes only for the size. No number is given twice.
* A step removes :data:`ROWS` messages or :data:`BYTES` bytes at most, so a commit waits for one step at most.
* The size counts messages only. Ids, sources and handlers' tables come on top: removing messages does not shrink them.
  Free pages stay in the file and are used again.
* An id stays known for ``--dedupe-window``, whether its message is kept or not.
* A source is removed only by age, and only when no message and no id of it is left.
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

#: Messages that a step scans, and removes, at most.
ROWS = 2000
#: Bytes of messages that a step removes, at most (but one message at least).
BYTES = 16 * 1024 * 1024
#: Messages that a step counts, at most.
MEASURED = 10000
#: Sources that one sweep looks for, at most.
SOURCES = 10000
#: Bytes of a row in its page besides the address and the message: numbers, lengths, the pointer to it.
OVERHEAD = 24
_SIZE = f"length(message) + length(address) + {OVERHEAD}"
#: Seconds between two sweeps for sources that are left without messages.
SWEEP = 3600.0

_log = Logger("mtserver.journal")


class Step(NamedTuple):
    """Outcome of a step: how much it has removed."""

    messages: int = 0
    #: Bytes of the removed messages, about.
    bytes: int = 0
    sources: int = 0
    #: Whether another step may find more to remove now.
    more: bool = False
    #: Last number removed; 0 if none was.
    last: int = 0
    #: Number before which no message is left.
    first: int = 0


class _Row(NamedTuple):
    sequence: int
    time: float
    size: int


class TotalSize:
    """Bytes of all messages: counted page by page at first, kept up to date as messages come and go."""

    def __init__(self) -> None:
        #: First number counted; None if there is no message.
        self._first: int | None = None
        self._last = 0
        self.bytes = 0

    def catch_up(self, connection: apsw.Connection) -> bool:
        """Count a page of the messages that are not counted yet; return whether it was the last."""
        first = connection.execute("SELECT min(seq) FROM messages").get
        if first is None:
            self._first, self.bytes = None, 0
            return True
        if self._first is None or first > self._first:  # another process has removed some
            self._first, self._last, self.bytes = first, first - 1, 0
        rows = f"SELECT seq, {_SIZE} AS size FROM messages WHERE seq > ? ORDER BY seq LIMIT {MEASURED}"
        found: Any = connection.execute(f"SELECT count(*), max(seq), sum(size) FROM ({rows})", (self._last,)).fetchone()
        count, last, size = found
        if count:
            self._last = last
            self.bytes += size
        return bool(count < MEASURED)

    def added(self, batches: Sequence[Batch], stored: Sequence[Stored]) -> None:
        """Add what was stored, if its numbers follow those that are counted."""
        for batch, (sequences, duplicates) in zip(batches, stored, strict=True):
            if self._first is not None and sequences and not duplicates and sequences[0] == self._last + 1:
                self._last = sequences[-1]
                self.bytes += sum(map(len, batch.messages)) + len(sequences) * (len(batch.address) + OVERHEAD)

    def removed(self, first: int, size: int) -> None:
        """Subtract what was removed before a number."""
        self._first = first
        self.bytes -= size


class Retention:
    """Retention in one journal."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._total = TotalSize()
        #: Old sources of which the sweep under way has not found a message yet; None if there is no sweep.
        self._candidates: set[int] | None = None
        #: Last number that the sweep has scanned.
        self._after = 0
        self._next_sweep = -math.inf

    @property
    def is_enabled(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self._keep.age or self._keep.size)

    def step(self, connection: apsw.Connection, now: float) -> Step:
        """Remove some of the messages that are too old or too many; or else sweep for unused sources."""
        excess = 0
        if self._keep.size:
            if not self._total.catch_up(connection):
                return Step(more=True)
            excess = self._total.bytes - self._keep.size
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

    def committed(self, step: Step) -> None:
        """Account for a step whose transaction was committed."""
        if step.messages and self._keep.size:
            self._total.removed(step.first, step.bytes)

    def reset(self) -> None:
        """Count from the beginning, since the file may be another one."""
        self._total = TotalSize()
        self._candidates = None

    def added(self, batches: Sequence[Batch], stored: Sequence[Stored]) -> None:
        """Account for what was stored."""
        if self._keep.size:
            self._total.added(batches, stored)

    @property
    def is_sweeping(self) -> bool:
        """Whether a sweep is under way."""
        return self._candidates is not None

    def _sweep(self, connection: apsw.Connection, now: float) -> Step:
        """Scan a page of messages for the senders of each; behind the last page, remove the sources without any."""
        # A source that sends during the sweep gets a newer ``seen``, and is not removed.
        oldest = now - self._keep.age - RENEWED
        if self._candidates is None:
            if now < self._next_sweep:
                return Step()
            self._next_sweep, self._after = now + SWEEP, 0
            old = connection.execute("SELECT source FROM sources WHERE seen < ? LIMIT ?", (oldest, SOURCES))
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
            [(source, oldest) for source in unused],
        )
        return Step(sources=len(unused))


class RemovalLog:
    """Log of what retention removes: one line for the first step, then one an hour with the sums."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._messages = 0
        self._bytes = 0
        self._since = -math.inf

    def add(self, step: Step, now: float) -> None:
        """Add a step, and log if an hour has passed."""
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
    """Read the messages behind a number, as many as a step may scan."""
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
    else:  # messages between them are younger: the clock was wrong for a while
        connection.executemany("DELETE FROM messages WHERE seq = ?", [(row.sequence,) for row in gone])
