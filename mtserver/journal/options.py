"""
Options of a journal: its place (``sqlite:PATH?durability=fast``, ``nats://HOST/STREAM?sync=always``) and how much of it
is kept (``30d``, ``10GB``).

Pure: text in, values or :class:`~mtserver.errors.ConfigurationError` out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from mtserver.acks import ACCEPTED, DURABLE, REPLICATED
from mtserver.errors import ConfigurationError

_AGES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class SqliteOptions(NamedTuple):
    """Options in ``--journal sqlite:...``."""

    path: Path
    #: Whether commits return before the disk has synced.
    fast: bool


class JetStreamOptions(NamedTuple):
    """Options in ``--journal nats://...`` and ``tls://...``."""

    stream: str
    #: Replicas of a stream that mtserver creates; 0 if not given.
    replicas: int = 0
    #: Operator's word that the servers sync before they acknowledge, which a client cannot see.
    syncs: bool = False


class Keep(NamedTuple):
    """Limits on how much of a journal is kept; 0 is no limit."""

    #: Seconds since a message was received.
    age: float = 0
    #: Bytes of messages.
    size: int = 0


#: No limit: every message is kept.
EVERYTHING = Keep()


def parse_sqlite(description: str) -> SqliteOptions:
    """Parse ``sqlite:PATH`` or ``sqlite:PATH?durability=fast``."""
    scheme, _, rest = description.partition(":")
    path, asks, query = rest.partition("?")
    if scheme != "sqlite" or not path:
        raise ConfigurationError(f"--journal {description}: not of the form sqlite:PATH")
    if asks and query not in ("durability=fast", "durability=full"):
        raise ConfigurationError(f"--journal {description}: behind the ? may stand durability=fast or durability=full")
    return SqliteOptions(Path(path), query == "durability=fast")


def parse_jetstream(stream: str, query: str) -> JetStreamOptions:
    """
    Parse the stream and the query of ``nats://HOST[:PORT][,HOST2...]/STREAM?replicas=3&sync=always`` (or ``tls://``).

    :param stream: name of the stream; empty if the URL has none.
    :param query: text behind the ``?``.
    """
    if not stream:
        raise ConfigurationError("not of the form nats://HOST[:PORT][,HOST2...]/STREAM")
    replicas, syncs = 0, False
    for word in filter(None, query.split("&")):
        name, _, value = word.partition("=")
        if name == "replicas" and value in ("1", "2", "3", "4", "5"):
            replicas = int(value)
        elif word == "sync=always":
            syncs = True
        else:
            raise ConfigurationError("behind the ? may stand replicas=1 (to 5) and sync=always, with & between them")
    return JetStreamOptions(stream, replicas, syncs)


def best_level(options: JetStreamOptions) -> str:
    """Return the highest level that a stream with these options can promise."""
    if not options.syncs:
        return ACCEPTED
    return DURABLE if 0 < options.replicas < 3 else REPLICATED


def parse_keep(text: str) -> Keep:
    """Parse ``30d``, ``10GB`` or both (``30d,10GB``); empty text keeps everything."""
    age, size = 0.0, 0
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", part)
        number, unit = (float(found[1]), found[2]) if found else (0.0, "")
        if number and unit in _AGES and not age:
            age = number * _AGES[unit]
        elif number and unit in _SIZES and not size:
            size = int(number * _SIZES[unit])
        else:
            raise ConfigurationError(
                f"{part!r} is neither an age nor a size: 30d (s, m, h, d, w), 10GB (KB, MB, GB, TB, or KiB and so on)"
            )
    return Keep(age, size)
