"""
A message as it stands in a stream: the payload is the message, as it came; its subject and headers say the rest.

Pure: a batch in, subjects and headers out, and a record from those. What is a peer's idea (its address, identity, name,
ids) is escaped wherever it goes, so that ``*``, ``a.>`` or a newline is just a name. Laws:

* Messages with an id stand under their source's subject, ``<stream>.from.<identity>.<name>``, so that the last of a
  source is found by one look; those without under ``<stream>.plain``. So the server keeps a subject for each source
  that uses ids, and none for anybody else.
* Two messages have the same ``Nats-Msg-Id`` if identity, name and id are the same, and only then.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from mtserver.journal.interface import Batch, Record

#: The server's own name for what it knows a message by.
MESSAGE_ID = "Nats-Msg-Id"

_TIME = "Mt-Time"
_CLIENT = "Mt-Client"
_ADDRESS = "Mt-Address"
_IDENTITY = "Mt-Identity"
_NAME = "Mt-Name"

#: All that is printed in ASCII but the space (the ends of a header are stripped) and what escapes.
_IN_HEADERS = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_IN_SUBJECTS = "!+,:@~"
#: In place of an empty text, which no token of a subject may be. quote() escapes it, so nobody is called that.
_EMPTY = "="
#: In front of the digest that stands for a longer text; escaped likewise.
_DIGEST = "#"
#: The most characters of a token: a subject has to fit the server's line of 4,096 with everything else there.
TOKEN_SIZE = 200


def token(text: str) -> str:
    """A text as one token of a subject."""
    # quote() takes a full stop for harmless.
    escaped = quote(text, _IN_SUBJECTS, errors="surrogatepass").replace(".", "%2E")
    if len(escaped) > TOKEN_SIZE:
        return _DIGEST + hashlib.sha256(escaped.encode()).hexdigest()
    return escaped or _EMPTY


def header(text: str) -> str:
    """A text as the value of a header."""
    return quote(text, _IN_HEADERS, errors="surrogatepass")


def unheader(value: str) -> str:
    """The text again; what somebody else has put there, as it is."""
    try:
        return unquote(value, errors="surrogatepass")
    except UnicodeDecodeError:
        return value


def source(identity: str, name: str) -> str:
    """Who it is, as two tokens."""
    return f"{token(identity)}.{token(name)}"


def subject_of(stream: str, whose: str) -> str:
    """Where messages with ids go, if they are from that :func:`source`."""
    return f"{stream}.from.{whose}"


class Envelope(NamedTuple):
    """A message with all that is published of it."""

    subject: str
    headers: Mapping[str, str]
    message: bytes


def envelopes(stream: str, batch: Batch) -> list[Envelope]:
    """The messages of a batch as they are published."""
    common = {_TIME: repr(batch.time), _CLIENT: str(batch.client), _ADDRESS: header(batch.address)}
    if batch.identity:
        common[_IDENTITY] = header(batch.identity)
    if batch.name:
        common[_NAME] = header(batch.name)
    if not batch.ids:
        return [Envelope(f"{stream}.plain", common, message) for message in batch.messages]
    prefix = source(batch.identity, batch.name)
    subject = subject_of(stream, prefix)
    return [
        # The id is what stands behind the last full stop; it has none that is not escaped either.
        Envelope(subject, {**common, MESSAGE_ID: f"{prefix}.{header(each).replace('.', '%2E')}"}, message)
        for each, message in zip(batch.ids, batch.messages, strict=True)
    ]


def size_of(envelope: Envelope) -> int:
    """The bytes of it that count against a server's limits, at most."""
    # Whoever publishes several in one go adds three headers of less than 120 bytes together.
    return 128 + len(envelope.message) + sum(len(name) + len(value) + 4 for name, value in envelope.headers.items())


def id_of(found: Mapping[str, str]) -> str:
    """The id of a message with these headers; empty: it has none."""
    return unheader(found.get(MESSAGE_ID, "").rpartition(".")[2])


def record_of(sequence: int, stored: str, found: Mapping[str, str], message: bytes) -> Record:
    """
    A message as it is read.

    :param stored: when it was stored, as the server says it: for one that somebody else has published there.
    """
    return Record(
        sequence,
        _number(found[_TIME]) if _TIME in found else _seconds(stored),
        int(_number(found.get(_CLIENT, "0"))),
        unheader(found.get(_ADDRESS, "")),
        unheader(found.get(_IDENTITY, "")),
        unheader(found.get(_NAME, "")),
        id_of(found),
        message,
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
