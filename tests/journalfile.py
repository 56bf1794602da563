"""Journal files for tests: written by the writer itself, or as an older version has left them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw

from mtserver.concurrency.threads import InPlace
from mtserver.journal import Batch, Keep, Stored
from mtserver.journal.sqlite import schema
from mtserver.journal.sqlite.dedupe import Window
from mtserver.journal.sqlite.writer import Writer

#: Window for ids, where a test does not say otherwise.
WINDOW = Window(86400, 10_000_000)


def writer(path: Path, *, window: Window = WINDOW, keep: Keep = Keep()) -> Writer:  # noqa: B008 - cannot be changed
    return Writer(path.absolute(), fast=False, window=window, keep=keep, checkpoint_thread=InPlace())


def batch(count: int = 1, *, at: float = 0, client: int = 1, size: int = 10, **more: Any) -> Batch:
    """Return a batch of messages; `at` counts from now where it is negative or zero."""
    moment = time.time() + at if at <= 0 else at
    messages = [b"%d:" % number + b"x" * (size - len(b"%d:" % number)) for number in range(count)]
    return Batch(moment, client, "192.0.2.2:1", messages, **more)


def write(path: Path, *batches: Batch) -> list[Stored]:
    """Store them, and end."""
    journal = writer(path)
    stored = journal.commit(batches)
    assert isinstance(stored, list), stored
    journal.close()
    return stored


def write_version_1(path: Path, *messages: bytes) -> apsw.Connection:
    """A journal of version 1, whose connection its caller closes; or does not, as a process that is killed."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in schema._STEPS[1]:
        connection.execute(statement)
    connection.pragma("user_version", 1)
    rows = [(float(number), number, "192.0.2.1:1", message) for number, message in enumerate(messages, 1)]
    connection.executemany("INSERT INTO messages (time, client, address, message) VALUES (?, ?, ?, ?)", rows)
    return connection


def sequences(path: Path) -> list[int]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [row[0] for row in connection.execute("SELECT seq FROM messages ORDER BY seq")]
    finally:
        connection.close()
