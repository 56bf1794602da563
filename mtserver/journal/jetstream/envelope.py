"""
Envelope of a message in a stream: the payload is the message as it came; subject and headers have the rest.

Pure: a batch in, subjects and headers out, and a record from those. All that a peer chooses (its address, identity,
name, ids) is escaped, so that ``*``, ``a.>`` or a newline is just a name. Laws:

* Messages with an id are published to their source's subject, ``<stream>.from.<identity>.<name>``, so that the last of
  a source is found with one request; messages without one to ``<stream>.plain``. So the server keeps a subject for each
  source that uses ids, and no others.
* Two messages have the same ``Nats-Msg-Id`` exactly if identity, name and id are the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from mtserver.journal.interface import Batch, Record

#: Header by which the server recognises duplicates.
MESSAGE_ID = "Nats-Msg-Id"

_TIME = "Mt-Time"
_CLIENT = "Mt-Client"
_ADDRESS = "Mt-Address"
_IDENTITY = "Mt-Identity"
_NAME = "Mt-Name"

#: Characters that need no escape in headers: printable ASCII except the space (a header's ends are stripped) and ``%``.
_IN_HEADERS = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_IN_SUBJECTS = "!+,:@~"
#: Token for an empty text, since no token of a subject may be empty. quote() escapes it in any other text.
_EMPTY = "="
#: Prefix of the digest that stands for a long text. quote() escapes it in any other text.
_DIGEST = "#"
#: Characters of a token, at most: a subject has to fit the server's line of 4,096 with everything else there.
TOKEN_SIZE = 200


def token(text: str) -> str:
    """Encode a text as one token of a subject."""
    # quote() leaves full stops, which separate tokens.
    escaped = quote(text, _IN_SUBJECTS, errors="surrogatepass").replace(".", "%2E")
    if len(escaped) > TOKEN_SIZE:
        return _DIGEST + hashlib.sha256(escaped.encode()).hexdigest()
    return escaped or _EMPTY


def encode_header(text: str) -> str:
    """Encode a text as the value of a header."""
    return quote(text, _IN_HEADERS, errors="surrogatepass")


def decode_header(value: str) -> str:
    """Decode the value of a header; a value that another program has put there is returned as it is."""
    try:
        return unquote(value, errors="surrogatepass")
    except UnicodeDecodeError:
        return value


def source(identity: str, name: str) -> str:
    """Encode identity and name as two tokens."""
    return f"{token(identity)}.{token(name)}"


def subject_of(stream: str, whose: str) -> str:
    """Return the subject for messages with ids from a :func:`source`."""
    return f"{stream}.from.{whose}"


class Envelope(NamedTuple):
    """A message as it is published."""

    subject: str
    headers: Mapping[str, str]
    message: bytes


def envelopes(stream: str, batch: Batch) -> list[Envelope]:
    """Return the messages of a batch as they are published."""
    common = {_TIME: repr(batch.time), _CLIENT: str(batch.client), _ADDRESS: encode_header(batch.address)}
    if batch.identity:
        common[_IDENTITY] = encode_header(batch.identity)
    if batch.name:
        common[_NAME] = encode_header(batch.name)
    if not batch.ids:
        return [Envelope(f"{stream}.plain", common, message) for message in batch.messages]
    prefix = source(batch.identity, batch.name)
    subject = subject_of(stream, prefix)
    return [
        # The id stands behind the last full stop, so its own are escaped.
        Envelope(subject, {**common, MESSAGE_ID: f"{prefix}.{encode_header(each).replace('.', '%2E')}"}, message)
        for each, message in zip(batch.ids, batch.messages, strict=True)
    ]


def size_of(envelope: Envelope) -> int:
    """Return the bytes that count against a server's limits, at most."""
    # An atomic publish adds three headers of less than 120 bytes together.
    return 128 + len(envelope.message) + sum(len(name) + len(value) + 4 for name, value in envelope.headers.items())


def id_of(found: Mapping[str, str]) -> str:
    """Return the id of a message with these headers; empty if it has none."""
    return decode_header(found.get(MESSAGE_ID, "").rpartition(".")[2])


def record_of(sequence: int, stored: str, found: Mapping[str, str], message: bytes) -> Record:
    """
    Return a message as a record.

    :param stored: the server's time of storage, for a message that another program has published.
    """
    return Record(
        sequence,
        _number(found[_TIME]) if _TIME in found else _seconds(stored),
        int(_number(found.get(_CLIENT, "0"))),
        decode_header(found.get(_ADDRESS, "")),
        decode_header(found.get(_IDENTITY, "")),
        decode_header(found.get(_NAME, "")),
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
