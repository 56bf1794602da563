"""
Messages: what a handler receives and returns, and how that is written in the bytes of one frame.

The type of a handler's ``message`` argument chooses the codec: ``bytes`` as it came, ``str`` as strict UTF-8. Typed
messages (JSON) will be a third codec in the table at the end; nothing else here or elsewhere has to know.

A codec knows nothing of framings: it turns one frame into one message and back, and a refusal into one frame.
"""

from __future__ import annotations

from typing import Any, Protocol

from mtserver.errors import BadMessage, ConfigurationError, HandlerError, Refusal

#: The most bytes of a refusal, so that the framing with the shortest messages (int8) carries every one.
REFUSAL_SIZE = 255


class Codec(Protocol):
    """One frame to one message, and back."""

    def decode(self, frame: bytes) -> Any:
        """The message; :class:`~mtserver.errors.BadMessage` if the frame does not hold one."""
        ...

    def encode(self, message: Any) -> bytes:
        """The frame; :class:`~mtserver.errors.HandlerError` if `message` is not of the handler's type."""
        ...

    def refuse(self, refusal: Refusal) -> bytes:
        """The frame that tells the peer of a refusal."""
        ...


def escape(data: bytes | str) -> str:
    """
    Text for a log or a terminal: everything a peer could use to forge lines or drive a terminal becomes ``\\xNN``.

    Printable characters stay; a backslash is doubled, so that nobody can type what looks like an escape.

    :param data: bytes (shown as UTF-8 where they are) or a string from a peer.
    """
    text = data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class BytesCodec:
    """Messages are the bytes of the frame. Refusals are one line of text: ``ERR code [retry-after=seconds] text``."""

    def decode(self, frame: bytes) -> Any:
        return frame

    def encode(self, message: Any) -> bytes:
        if type(message) is bytes:
            return message
        if isinstance(message, (bytes, bytearray, memoryview)):
            return bytes(message)
        raise HandlerError(f"a handler of bytes answered with {type(message).__name__}, not bytes")

    def refuse(self, refusal: Refusal) -> bytes:
        wait = "" if refusal.retry_after is None else f" retry-after={refusal.retry_after}"
        text = f"ERR {refusal.code}{wait} {escape(refusal.text)}".encode()
        if len(text) > REFUSAL_SIZE:
            text = text[:REFUSAL_SIZE].decode(errors="ignore").encode()
        return text


class TextCodec(BytesCodec):
    """Messages are strict UTF-8."""

    def decode(self, frame: bytes) -> Any:
        try:
            return frame.decode()
        except UnicodeDecodeError as error:
            raise BadMessage(f"not UTF-8 at byte {error.start}") from None

    def encode(self, message: Any) -> bytes:
        if not isinstance(message, str):
            raise HandlerError(f"a handler of str answered with {type(message).__name__}, not str")
        try:
            return message.encode()
        except UnicodeEncodeError as error:
            raise HandlerError(f"a lone surrogate at character {error.start} cannot be sent") from None


#: What the annotation of a handler's ``message`` may be. The place for JSON is beside these.
CODECS: dict[Any, Codec] = {bytes: BytesCodec(), str: TextCodec()}


def codec_for(annotation: Any) -> Codec:
    """The codec for a message type; :class:`~mtserver.errors.ConfigurationError` for a type there is none for."""
    try:
        return CODECS[annotation]
    except (KeyError, TypeError):
        name = getattr(annotation, "__name__", repr(annotation))
        raise ConfigurationError(f"messages of type {name} are not supported; use bytes or str") from None
