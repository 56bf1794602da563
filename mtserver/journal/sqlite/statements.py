"""
The statements that store batches, as few as it takes.

Rows of one batch share a statement in which what they have in common stands once (a third faster); small batches share
one with each other. 64 rows in a statement are three times as fast as one, and more are no faster.
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


#: What is to be inserted of one batch: time, client, address, messages, the number of its source (None: it has none,
#: and no ids), and an id for each message (or none at all).
Rows = tuple[float, int, str, Sequence[bytes], int | None, Sequence[str]]


@functools.cache
def _plain(rows: int) -> str:
    """For rows that share nothing."""
    return "INSERT INTO messages (time, client, address, message) VALUES " + ",".join(["(?,?,?,?)"] * rows)


@functools.cache
def _shared(messages: int) -> str:
    """For messages of one batch, anonymous."""
    rows = ",".join(f"(?1,?2,?3,?{number})" for number in range(4, 4 + messages))
    return f"INSERT INTO messages (time, client, address, message) VALUES {rows}"


@functools.cache
def _sourced(messages: int) -> str:
    """For messages of one batch, from a source."""
    rows = ",".join(f"(?1,?2,?3,?4,?{number})" for number in range(5, 5 + messages))
    return f"INSERT INTO messages (time, client, address, source, message) VALUES {rows}"


@functools.cache
def _identified(messages: int) -> str:
    """For messages of one batch, from a source, with ids."""
    rows = ",".join(f"(?1,?2,?3,?4,?{number},?{number + 1})" for number in range(5, 5 + 2 * messages, 2))
    return f"INSERT INTO messages (time, client, address, source, id, message) VALUES {rows}"


def inserts(batches: Iterable[Rows]) -> Iterator[Statement]:
    """What inserts them, in their order."""
    values: list[Any] = []  # of the rows of small batches, which share a statement
    for batch in batches:
        time, client, address, messages, source, _ = batch
        if source is None and len(messages) < OWN:
            for message in messages:
                values += (time, client, address, message)
            if len(values) < 4 * ROWS:
                continue
        if values:
            yield _plain(len(values) // 4), tuple(values)
            values.clear()
        if source is None and OWN <= len(messages) <= ROWS:
            yield _shared(len(messages)), (time, client, address, *messages)  # the usual case
        elif source is not None or len(messages) >= OWN:
            for begin in range(0, len(messages), ROWS):
                yield _of_one(batch, begin)
    if values:
        yield _plain(len(values) // 4), tuple(values)


def _of_one(batch: Rows, begin: int) -> Statement:
    """For messages of one batch, from this one on."""
    time, client, address, messages, source, ids = batch
    some = messages[begin : begin + ROWS]
    if source is None:
        return _shared(len(some)), (time, client, address, *some)
    if not ids:
        return _sourced(len(some)), (time, client, address, source, *some)
    pairs = [value for pair in zip(ids[begin : begin + ROWS], some, strict=True) for value in pair]
    return _identified(len(some)), (time, client, address, source, *pairs)
