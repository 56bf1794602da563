"""
The journal: where messages are kept, and when it is safe to say so.

::

    journal = open_journal("sqlite:mtserver.db")
    stored = await journal.append(Batch(time.time(), client.id, client.peer, [b"...", b"..."]))
    records = await journal.read(after=0, limit=100)
    await journal.close()

Laws:

* ``append`` returns when the messages are on disk (at the journal's ``level``), not before; what it returned survives
  ``kill -9`` and a power cut, given an honest disk.
* Sequence numbers grow, and the messages of one call stand in their order.
* Where they cannot be stored it raises :class:`~mtserver.errors.Unavailable`: they are not known to be stored. In a
  file none of them is, then. In a stream they may be, where its acknowledgement did not come; and their first part may
  be, where they did not go together (more than 1,000, some that were stored before, or a stream that takes them one at
  a time). See :mod:`mtserver.journal.jetstream`.
* A message with an id is stored once: sent again under the same identity and name, through whatever process, within
  ``--dedupe-window``, it gets the number that it has, and nothing else happens. Where ids are not known for so long,
  what has one is not stored.

Where what is kept is described as it stands in the file: ``docs/journal.md``.
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
    """:class:`~mtserver.errors.ConfigurationError` where ``--journal`` cannot be, or cannot do what is asked of it."""
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
    from mtserver.journal.sqlite.file import whose  # apsw, only where it is used

    stranger = whose(file)
    if stranger:
        raise ConfigurationError(f"{described}: {stranger}")
    level = ACCEPTED if options.fast else DURABLE
    if LEVELS.index(settings.ack) > LEVELS.index(level):
        instead = "say --ack accepted, or leave ?durability=fast out" if options.fast else "it is one file"
        raise ConfigurationError(f"--ack {settings.ack}: {described} is {level} at most; {instead}")
    return options


def _check_jetstream(settings: Settings) -> tuple[Address, JetStreamOptions]:
    described = f"--journal {settings.journal}"
    place, _, query = settings.journal.partition("?")
    address = check_nats(f"--journal {place}", settings)
    try:
        options = parse_jetstream(address.name, query)
    except ConfigurationError as error:
        raise ConfigurationError(f"{described}: {error}") from None
    level = best_level(options)
    if LEVELS.index(settings.ack) > LEVELS.index(level):
        instead = "say ?replicas=3" if options.syncs else "say --ack accepted, or ?sync=always if its servers do that"
        raise ConfigurationError(f"--ack {settings.ack}: {described} is {level} at most; {instead}")
    return address, options


def open_journal(settings: Settings) -> Journal:
    """
    The journal that ``--journal`` means.

    Storage that is away when it is opened is like storage that goes away later: it is tried again with each append.
    """
    if is_address(settings.journal):
        from mtserver.journal.jetstream import open_stream  # nats-py, only where it is used

        return open_stream(*_check_jetstream(settings), settings)
    from mtserver.journal.sqlite.journal import SqliteJournal  # apsw, only where it is used

    options = _check_sqlite(settings)
    return SqliteJournal(
        options.path,
        fast=options.fast,
        window=settings.dedupe_window,
        window_messages=settings.dedupe_messages,
        keep=parse_keep(settings.keep),
    )
