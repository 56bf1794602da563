"""
Codecs of the handler's own message types: JSON or MessagePack, decoded and validated in one step by msgspec.

Everything that a client could make expensive is bounded before it costs anything:

* **Depth.** JSON nested deeper than :data:`DEPTH` is refused unread. MessagePack, whose depth shows only when it is
  read, may nest as deep as Python's recursion limit lets msgspec go (about a thousand levels).
* **Digits.** An integer may have at most 4,300 digits (msgspec's limit, and Python's), 64 bits in MessagePack.
* **Hashes.** A client can choose the hash of numbers, of UUIDs and of tuples of them, and a thousand keys with one hash
  take a thousand times as long. A type with sets of such values, or dicts with such keys, is read up to
  :data:`HASHED_SIZE` bytes.
* **Text.** A JSON frame must be UTF-8 to its last byte, also in members that the type does not mention; in MessagePack,
  where bytes may be anything, only the text that is kept must be.

``NaN`` and ``Infinity`` are not JSON, and lone surrogates not text. The last of two equal keys counts: to refuse them
takes another parser, and five times as long (measured, for an object of three fields).

A reply is checked to be an instance of the handler's return type (of one member of a union), without a look into its
fields, and then encoded. A float that is no number is sent as ``null`` in JSON.
"""

from __future__ import annotations

import abc
import itertools
import re
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from mtserver.acks import Ack
from mtserver.codecs.codec import REFUSAL_SIZE
from mtserver.codecs.message_type import (
    Acknowledgement,
    has_container_keys,
    hashes_numbers,
    name_of,
    read_type,
    reply_classes,
)
from mtserver.errors import BadMessage, ConfigurationError, HandlerError, Refusal
from mtserver.telemetry.escape import escape

#: Most arrays and objects within one another: as many as .NET's parser allows, half as many as Rust's.
DEPTH = 64
#: Most bytes of a message with hashes that a client can choose. The worst of this size took 30 ms, of 64 KiB 450 ms.
HASHED_SIZE = 16384

# A string without an end takes the rest of the frame: else the search would start again at each quote in it.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(frame: bytes) -> bool:
    """Whether JSON nests deeper than :data:`DEPTH`, in linear time; for nearly all messages a count is enough."""
    # Each bracket that opens has one that closes, so a frame of 2 * DEPTH bytes cannot nest deeper.
    if len(frame) <= 2 * DEPTH or frame.count(b"[") + frame.count(b"{") <= DEPTH:
        return False
    brackets = _STRING.sub(b"", frame).translate(None, _NOT_BRACKETS)
    return any(depth > DEPTH for depth in itertools.accumulate(map(_STEP.__getitem__, brackets)))


class TypedCodec(abc.ABC):
    """
    The common part of both encodings.

    :param annotation: the type of the messages.
    :param reply: the type of the replies.
    :raises ConfigurationError: if messages of the one cannot be decoded, or replies of the other cannot be encoded.
    """

    content_type: ClassVar[str]
    needs_any_byte: ClassVar[bool]
    sends_as_is = False

    _encode: Callable[[Any], bytes]

    def __init__(self, annotation: Any, reply: Any = Any) -> None:
        self._type = annotation
        found = read_type(annotation, "messages")
        self._hashes = hashes_numbers(found, any_keys=self.needs_any_byte)
        self._reply = "None" if reply in (None, type(None)) else name_of(reply)
        self._classes = reply_classes(reply)

    def decode(self, frame: bytes) -> Any:
        if self._hashes and len(frame) > HASHED_SIZE:
            raise BadMessage(f"a message of this type may have at most {HASHED_SIZE} bytes")
        try:
            return self._decode(frame)
        except msgspec.DecodeError as error:  # ValidationError is one
            raise BadMessage(str(error)) from None
        except UnicodeDecodeError:
            raise BadMessage("not UTF-8") from None
        except RecursionError:
            raise BadMessage("nested too deep") from None
        except BadMessage:
            raise
        except Exception as error:  # raised by code of the type's author: __post_init__, __hash__
            raise HandlerError(f"making a {name_of(self._type)} failed: {error!r}") from error

    def encode(self, message: Any) -> bytes:
        if type(message) is Ack:
            message = Acknowledgement(message.sequence, message.level, message.id, message.duplicate)
        try:
            return self._encode(message)
        except Exception as error:  # msgspec's own have no common root, and code of the type's author raises anything
            raise HandlerError(f"a {type(message).__name__} cannot be sent: {error}") from error

    def encode_reply(self, reply: Any) -> bytes:
        if type(reply) is Ack:
            return self.encode(reply)
        classes = self._classes
        # A bool is an int to Python, but not on the wire.
        if (
            classes is not None
            and type(reply) not in classes
            and (isinstance(reply, bool) or not isinstance(reply, classes))
        ):
            raise HandlerError(f"a handler of {self._reply} answered with {type(reply).__name__}")
        return self.encode(reply)

    def refuse(self, refusal: Refusal) -> bytes:
        fields: dict[str, Any] = {"error": escape(refusal.code[:40])[:40]}
        if refusal.retry_after is not None:
            fields["retry_after"] = min(refusal.retry_after, 1 << 32)
        # Cut before it is escaped, which is slow: the text may quote all of a long message.
        text = escape(refusal.text[:REFUSAL_SIZE])[:REFUSAL_SIZE]
        while len(frame := self._encode({**fields, "text": text})) > REFUSAL_SIZE:
            # A character takes at most four bytes.
            text = text[: -max(1, (len(frame) - REFUSAL_SIZE) // 4)]
        return frame

    @abc.abstractmethod
    def _decode(self, frame: bytes) -> Any:
        """Decode the message; whatever msgspec raises goes up."""


class JsonCodec(TypedCodec):
    """One JSON value, without a newline."""

    content_type = "application/json"
    needs_any_byte = False

    def __init__(self, annotation: Any, reply: Any = Any) -> None:
        super().__init__(annotation, reply)
        if has_container_keys(read_type(annotation, "messages")):
            raise ConfigurationError(f"messages of type {name_of(annotation)} are not JSON: a key is text there")
        self._of_text = msgspec.json.Decoder(annotation).decode
        self._encode = msgspec.json.Encoder().encode

    def _decode(self, frame: bytes) -> Any:
        if too_deep(frame):
            raise BadMessage(f"nested more than {DEPTH} deep")
        try:
            text = frame.decode()
        except UnicodeDecodeError as error:
            raise BadMessage(f"not UTF-8 at byte {error.start}") from None
        return self._of_text(text)


class MsgpackCodec(TypedCodec):
    """One MessagePack value."""

    content_type = "application/msgpack"
    needs_any_byte = True

    def __init__(self, annotation: Any, reply: Any = Any) -> None:
        super().__init__(annotation, reply)
        self._of_bytes = msgspec.msgpack.Decoder(annotation).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def _decode(self, frame: bytes) -> Any:
        return self._of_bytes(frame)


#: Values of ``--encoding``.
ENCODINGS: dict[str, type[TypedCodec]] = {"json": JsonCodec, "msgpack": MsgpackCodec}
