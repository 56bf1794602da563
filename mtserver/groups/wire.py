"""
How nodes say to each other what a group is told: the group's subject, and messages in one of NATS.

Pure. Laws:

* Different names have different tokens; a token is legal in a subject and has at most :data:`TOKEN_SIZE` characters.
  (Of a name that is too long for that it is a hash; the name itself then stands with the messages, and is compared.)
* What is packed is unpacked in its order, and no packet is longer than it may be.
* Anything else is :class:`ValueError`, and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

#: Characters of a group's token, at most.
TOKEN_SIZE = 100
#: Of this form of packets; nodes that speak another do not understand each other, and say so.
VERSION = 1

_HEAD = struct.Struct("!B8sH")
_LENGTH = struct.Struct("!I")
_ODD = re.compile(rb"[^A-Za-z0-9_-]")


class Packet(NamedTuple):
    """Messages that one node's clients have told one group."""

    node: bytes
    #: The group's name; empty where the subject has said it.
    name: str
    messages: Sequence[bytes]


def token_of(name: str) -> str:
    """What stands for a group's name in a subject: itself, where it is letters, digits, ``-`` and ``_``."""
    token = _ODD.sub(lambda odd: b"=%02X" % ord(odd[0]), name.encode()).decode()
    # No name that is escaped begins so, since of = itself it makes =3D.
    return token if len(token) <= TOKEN_SIZE else f"=={hashlib.sha256(name.encode()).hexdigest()}"


def name_with(name: str) -> str:
    """What of a group's name has to stand with the messages."""
    return name if token_of(name).startswith("==") else ""


def room_for(name: str, most: int) -> int:
    """Bytes that one message to a group may have, where a packet may have so many."""
    return most - _HEAD.size - len(name_with(name).encode()) - _LENGTH.size


def pack(node: bytes, name: str, messages: Iterable[bytes], most: int) -> Iterator[tuple[int, bytes]]:
    """Packets with these messages, each of which fits into one; before each, how many are in it."""
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
    """The opposite."""
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
