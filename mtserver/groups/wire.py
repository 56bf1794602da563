"""
The form of messages to a group between nodes: the group's subject, and packets of messages.

Pure. Laws:

* Different names have different tokens; a token is legal in a subject and has at most :data:`TOKEN_SIZE` characters.
  (The token of a longer name is a hash; the name itself is then in each packet, and is compared.)
* Messages that are packed are unpacked in their order, and no packet is longer than it may be.
* Bytes that are no packet raise :class:`ValueError`, and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

#: Most characters of a group's token.
TOKEN_SIZE = 100
#: Version of the packets' form; nodes with another do not understand each other, and log it.
VERSION = 1

_HEAD = struct.Struct("!B8sH")
_LENGTH = struct.Struct("!I")
_ODD = re.compile(rb"[^A-Za-z0-9_-]")


class Packet(NamedTuple):
    """Messages that one node's clients have sent to one group."""

    node: bytes
    #: Name of the group; empty where its token is the name.
    name: str
    messages: Sequence[bytes]


def token_of(name: str) -> str:
    """Write a group's name as a token of a subject; letters, digits, ``-`` and ``_`` stand for themselves."""
    token = _ODD.sub(lambda odd: b"=%02X" % ord(odd[0]), name.encode()).decode()
    # No escaped name begins with ==, since = itself becomes =3D.
    return token if len(token) <= TOKEN_SIZE else f"=={hashlib.sha256(name.encode()).hexdigest()}"


def name_with(name: str) -> str:
    """Return the name that a packet must have with its messages: empty unless the token is a hash."""
    return name if token_of(name).startswith("==") else ""


def room_for(name: str, most: int) -> int:
    """Count the bytes that one message to a group may have in a packet of at most `most`."""
    return most - _HEAD.size - len(name_with(name).encode()) - _LENGTH.size


def pack(node: bytes, name: str, messages: Iterable[bytes], most: int) -> Iterator[tuple[int, bytes]]:
    """Pack messages, each of which fits into a packet; yields the count of messages in a packet, and the packet."""
    named = name_with(name).encode()
    head = _HEAD.pack(VERSION, node, len(named)) + named
    pieces, size = [head], len(head)
    for message in messages:
        if len(pieces) > 1 and size + _LENGTH.size + len(message) > most:
            yield len(pieces) // 2, b"".join(pieces)
            pieces, size = [head], len(head)
        pieces += (_LENGTH.pack(len(message)), message)
        size += _LENGTH.size + len(message)
    if len(pieces) > 1:
        yield len(pieces) // 2, b"".join(pieces)


def unpack(packet: bytes) -> Packet:
    """Unpack a packet; ``ValueError`` if it is none, or of another version."""
    try:
        version, node, length = _HEAD.unpack_from(packet)
        if version != VERSION:
            raise ValueError(f"a packet of version {version}, and {VERSION} is ours")
        start = _HEAD.size + length
        name = packet[_HEAD.size : start].decode()
        messages = []
        while start < len(packet):
            (length,) = _LENGTH.unpack_from(packet, start)
            start += _LENGTH.size + length
            messages.append(packet[start - length : start])
    except struct.error as error:
        raise ValueError(f"no packet: {error}") from None
    if start != len(packet):
        raise ValueError("a packet that ends within a message")
    return Packet(node, name, messages)
