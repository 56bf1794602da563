"""
Codecs: the messages that a handler receives and returns, read from and written to the bytes of one frame.

The type of a handler's ``message`` argument chooses the codec: ``bytes`` as it came, ``str`` as strict UTF-8
(:mod:`~mtserver.codecs.plain`); every other type is JSON or MessagePack, decoded and validated to it in one step
(:mod:`~mtserver.codecs.typed`). Laws, held by ``tests/test_codecs.py`` for every codec:

* Whatever a frame holds, ``decode`` gives a message of the type, or raises :class:`~mtserver.errors.BadMessage`; or
  :class:`~mtserver.errors.HandlerError` where code of the type's own author raised. Nothing else comes out.
* ``encode`` then ``decode`` is identity, for every message of the type; what cannot be encoded is a HandlerError.
* A refusal always can be, and has at most :data:`REFUSAL_SIZE` bytes.
* The time that a frame takes is bounded by its length and by what :mod:`~mtserver.codecs.typed` says of depth,
  digits and sets.

A codec knows nothing of framings: it turns one frame into one message and back, and a refusal into one frame.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

import msgspec

from mtserver.codecs.codec import REFUSAL_SIZE, Codec
from mtserver.codecs.plain import BytesCodec, TextCodec
from mtserver.codecs.typed import ENCODINGS, JsonCodec, MsgpackCodec, TypedCodec

__all__ = [
    "CODECS",
    "ENCODINGS",
    "REFUSAL_SIZE",
    "BytesCodec",
    "Codec",
    "JsonCodec",
    "MsgpackCodec",
    "TextCodec",
    "TypedCodec",
    "codec_for",
]

#: Codecs of the two types that are sent as they are.
CODECS: dict[Any, Codec] = {bytes: BytesCodec(), str: TextCodec()}


def codec_for(annotation: Any, reply: Any = Any, encoding: str = "json") -> Codec:
    """
    Choose the codec for a message type.

    :param reply: the type of what the handler returns, which matters for typed messages only.
    :param encoding: one of :data:`ENCODINGS`, for typed messages.
    :raises ConfigurationError: for a message type that cannot be decoded, or a reply type that cannot be encoded.
    """
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        if base in CODECS and not any(isinstance(note, msgspec.Meta) for note in notes):
            annotation = base  # the notes are for another library
    for plain, codec in CODECS.items():
        if annotation is plain:
            return codec
    return ENCODINGS[encoding](annotation, reply)
