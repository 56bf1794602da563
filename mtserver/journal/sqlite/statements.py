"""
Statements that store batches, as few as it takes.

Rows of one batch share a statement in which their common values stand once (a third faster); small batches share one
with each other. A statement of 64 rows is three times as fast as one of one row, and more rows are no faster.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

#: Rows in one statement, at most.
ROWS = 64
#: Messages from which on a batch has statements of its own.
OWN = 6

Statement = tuple[str, tuple[Any, ...]]

#: Values to insert for one batch: time, client, address, messages, the number of its source (None: no source and no
#: ids), and an id for each message (or none at all).
Rows = tuple[float, int, str, Sequence[bytes], int | None, Sequence[str]]


def _insert(common: str, own: str, rows: int) -> str:
    """Return an INSERT of rows with common columns, whose values are bound first and once, and columns of their own."""
    shared, each = (len(columns.split()) for columns in (common, own))
    bound = "".join(f"?{number}," for number in range(1, shared + 1))
    values = (
        bound + ",".join(f"?{number}" for number in range(first, first + each))
        for first in range(shared + 1, shared + 1 + rows * each, each)
    )
    return f"INSERT INTO messages ({','.join(f'{common} {own}'.split())}) VALUES ({'),('.join(values)})"


# The statements of each number of rows: of several small batches, and of one batch that is anonymous, from a source, or
# with ids as well.
_small = functools.cache(functools.partial(_insert, "", "time client address message"))
_anonymous = functools.cache(functools.partial(_insert, "time client address", "message"))
_sourced = functools.cache(functools.partial(_insert, "time client address source", "message"))
_identified = functools.cache(functools.partial(_insert, "time client address source", "id message"))


def inserts(batches: Iterable[Rows]) -> Iterator[Statement]:
    """Yield the statements that insert batches, in their order."""
    values: list[Any] = []  # of small batches, which share a statement
    for batch in batches:
        time, client, address, messages, source, _ = batch
        if source is None and len(messages) < OWN:
            for message in messages:
                values += (time, client, address, message)
            if len(values) >= 4 * ROWS:
                yield _small(len(values) // 4), tuple(values)
                values.clear()
            continue
        if values:
            yield _small(len(values) // 4), tuple(values)
            values.clear()
        if source is None and len(messages) <= ROWS:
            yield _anonymous(len(messages)), (time, client, address, *messages)  # the usual case, without a copy
            continue
        for begin in range(0, len(messages), ROWS):
            yield _shared(batch, begin)
    if values:
        yield _small(len(values) // 4), tuple(values)


def _shared(batch: Rows, begin: int) -> Statement:
    """Return the statement for the messages of one batch from a place on."""
    time, client, address, messages, source, ids = batch
    some = messages[begin : begin + ROWS]
    if source is None:
        return _anonymous(len(some)), (time, client, address, *some)
    if not ids:
        return _sourced(len(some)), (time, client, address, source, *some)
    pairs = [value for pair in zip(ids[begin : begin + ROWS], some, strict=True) for value in pair]
    return _identified(len(some)), (time, client, address, source, *pairs)
