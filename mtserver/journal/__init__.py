"""
The journal: where messages are kept, and when it is safe to say so.

::

    journal = open_journal("sqlite:mtserver.db")
    sequences = await journal.append(Batch(time.time(), client.id, client.peer, [b"...", b"..."]))
    await journal.close()

Laws:

* ``append`` returns when the messages are on disk, not before; what it returned survives ``kill -9`` and a power cut,
  given an honest disk.
* Sequence numbers grow, and the messages of one call stand in their order.
* Where they cannot be stored it raises :class:`~mtserver.errors.Unavailable`, and none of them is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mtserver.errors import ConfigurationError

__all__ = ["Batch", "Journal", "check_journal", "open_journal"]


class Batch(NamedTuple):
    """Messages to keep, that one client has sent together."""

    #: When they were received, in seconds since the epoch.
    time: float
    #: The client's number.
    client: int
    #: The client's address, as text.
    address: str
    messages: Sequence[bytes]


class Journal(Protocol):
    """Where messages are kept. Used in the loop's thread, and in whatever the loop calls."""

    def append(self, batch: Batch) -> Awaitable[Sequence[int]]:
        """Store these messages; their sequence numbers, once they are durable."""
        ...

    def close(self) -> Awaitable[None]:
        """Store what was appended, and end."""
        ...


def check_journal(description: str) -> Path:
    """The file that ``--journal`` means; :class:`~mtserver.errors.ConfigurationError` for one that cannot be."""
    scheme, colon, path = description.partition(":")
    if scheme != "sqlite" or not colon or not path:
        raise ConfigurationError(f"--journal {description}: not of the form sqlite:PATH")
    file = Path(path)
    if file.is_dir():
        raise ConfigurationError(f"--journal {description}: that is a folder")
    if not file.parent.is_dir():
        raise ConfigurationError(f"--journal {description}: there is no folder {file.parent}")
    if file.exists():
        from mtserver.journal.sqlite import whose  # apsw, only where it is used

        stranger = whose(file)
        if stranger:
            raise ConfigurationError(f"--journal {description}: {stranger}")
    return file


def open_journal(description: str) -> Journal:
    """
    The journal that ``--journal`` means.

    Storage that is away when it is opened is like storage that goes away later: it is tried again with each append.
    """
    from mtserver.journal.sqlite import SqliteJournal  # apsw, only where it is used

    return SqliteJournal(check_journal(description))
