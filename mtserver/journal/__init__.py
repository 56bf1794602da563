"""
Journal: the place where messages are kept, and the moment when it is safe to acknowledge them.

::

    journal = open_journal("sqlite:mtserver.db")
    stored = await journal.append(Batch(time.time(), client.id, client.peer, [b"...", b"..."]))
    records = await journal.read(after=0, limit=100)
    await journal.close()

Laws:

* ``append`` returns when the messages are stored at the journal's ``level``, not before. At ``durable`` they survive
  ``kill -9`` and a power cut, given an honest disk.
* Sequence numbers grow, and the messages of one call keep their order.
* :class:`~mtserver.errors.Unavailable` means: not known to be stored. In a file, none of the batch is stored then. In a
  stream, all of it may be (the acknowledgement was lost), or its first part (a batch of more than 1,000 messages, with
  duplicates in it, or for a stream without atomic publishing). :mod:`mtserver.journal.jetstream` says more.
* A message with an id is stored once: sent again under the same identity and name within ``--dedupe-window``, through
  whatever process, it gets the number that it has. A journal that remembers ids for less than that refuses messages
  with ids.

The format of the file is described in ``docs/journal.md``.
"""

from __future__ import annotations

from mtserver.acks import ACCEPTED, DURABLE, LEVELS
from mtserver.errors import ConfigurationError
from mtserver.journal.interface import Batch, Journal, Last, Record, Stored, Transaction
from mtserver.journal.options import (
    JetStreamOptions,
    Keep,
    SqliteOptions,
    best_level,
    parse_jetstream,
    parse_keep,
    parse_sqlite,
)
from mtserver.nats import Address, check_nats, check_reactor, is_address
from mtserver.settings import Settings

__all__ = [
    "Batch",
    "Journal",
    "Keep",
    "Last",
    "Record",
    "Stored",
    "Transaction",
    "check_journal",
    "open_journal",
    "parse_keep",
]


def check_journal(settings: Settings) -> None:
    """
    Check ``--journal``, and that it can do what ``--ack`` and ``--keep`` ask of it.

    :raises ConfigurationError: if not.
    """
    try:
        parse_keep(settings.keep)
    except ConfigurationError as error:
        raise ConfigurationError(f"--keep: {error}") from None
    if is_address(settings.journal):
        _check_jetstream(settings)
        check_reactor(f"--journal {settings.journal}")
    else:
        _check_sqlite(settings)


def _check_sqlite(settings: Settings) -> SqliteOptions:
    described = f"--journal {settings.journal}"
    options = parse_sqlite(settings.journal)
    file = options.path
    if file.is_dir():
        raise ConfigurationError(f"{described}: that is a folder")
    if file.exists() and not file.is_file():
        raise ConfigurationError(f"{described}: that is no file")
    if not file.parent.is_dir():
        raise ConfigurationError(f"{described}: there is no folder {file.parent}")
    from mtserver.journal.sqlite.file import file_problem  # imports apsw, which a stream does not need

    problem = file_problem(file)
    if problem:
        raise ConfigurationError(f"{described}: {problem}")
    instead = "say --ack accepted, or leave ?durability=fast out" if options.fast else "it is one file"
    _check_level(settings, ACCEPTED if options.fast else DURABLE, instead)
    return options


def _check_jetstream(settings: Settings) -> tuple[Address, JetStreamOptions]:
    described = f"--journal {settings.journal}"
    place, _, query = settings.journal.partition("?")
    address = check_nats(f"--journal {place}", settings)
    try:
        options = parse_jetstream(address.name, query)
    except ConfigurationError as error:
        raise ConfigurationError(f"{described}: {error}") from None
    instead = "say ?replicas=3" if options.syncs else "say --ack accepted, or ?sync=always if its servers do that"
    _check_level(settings, best_level(options), instead)
    return address, options


def _check_level(settings: Settings, level: str, instead: str) -> None:
    if LEVELS.index(settings.ack) > LEVELS.index(level):
        journal = f"--journal {settings.journal}"
        raise ConfigurationError(f"--ack {settings.ack}: {journal} is {level} at most; {instead}")


def open_journal(settings: Settings) -> Journal:
    """
    Open the journal that ``--journal`` names.

    Storage that is away now is treated as storage that goes away later: it is tried again with each append.
    """
    if is_address(settings.journal):
        from mtserver.journal.jetstream import open_stream  # imports nats-py, an extra

        return open_stream(*_check_jetstream(settings), settings)
    from mtserver.journal.sqlite.journal import SqliteJournal  # imports apsw, which a stream does not need

    options = _check_sqlite(settings)
    return SqliteJournal(
        options.path,
        fast=options.fast,
        window=settings.dedupe_window,
        window_messages=settings.dedupe_messages,
        keep=parse_keep(settings.keep),
    )
