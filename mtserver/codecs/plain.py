"""Codecs without an encoding of their own: bytes, and text as UTF-8."""

from __future__ import annotations

from typing import Any

from mtserver.acks import Ack
from mtserver.codecs.codec import REFUSAL_SIZE
from mtserver.errors import BadMessage, HandlerError, Refusal
from mtserver.telemetry.escape import escape


class BytesCodec:
    """Frames are the messages. Refusals are one line of text: ``ERR code [retry-after=seconds] text``."""

    content_type = "application/octet-stream"
    needs_any_byte = False  # the handler chooses its bytes
    sends_as_is = True

    def decode(self, frame: bytes) -> Any:
        return frame

    def encode(self, message: Any) -> bytes:
        if type(message) is bytes:
            return message
        if isinstance(message, (bytes, bytearray, memoryview, Ack)):
            return bytes(message)
        raise HandlerError(f"a handler of bytes answered with {type(message).__name__}, not bytes")

    encode_reply = encode

    def refuse(self, refusal: Refusal) -> bytes:
        wait = "" if refusal.retry_after is None else f" retry-after={refusal.retry_after}"
        text = f"ERR {refusal.code}{wait} {escape(refusal.text[:REFUSAL_SIZE])}".encode()
        if len(text) > REFUSAL_SIZE:
            text = text[:REFUSAL_SIZE].decode(errors="ignore").encode()
        return text


class TextCodec(BytesCodec):
    """Messages are strict UTF-8."""

    content_type = "text/plain; charset=utf-8"
    sends_as_is = False

    def decode(self, frame: bytes) -> Any:
        try:
            return frame.decode()
        except UnicodeDecodeError as error:
            raise BadMessage(f"not UTF-8 at byte {error.start}") from None

    def encode(self, message: Any) -> bytes:
        if isinstance(message, Ack):
            return bytes(message)
        if not isinstance(message, str):
            raise HandlerError(f"a handler of str answered with {type(message).__name__}, not str")
        try:
            return message.encode()
        except UnicodeEncodeError as error:
            raise HandlerError(f"a lone surrogate at character {error.start} cannot be sent") from None

    encode_reply = encode
