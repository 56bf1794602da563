"""The interface that every codec has. The laws stand in the package's docstring."""

from __future__ import annotations

from typing import Any, Protocol

from mtserver.errors import Refusal

#: The most bytes of a refusal, so that the framing with the shortest messages (int8) carries every one.
REFUSAL_SIZE = 255


class Codec(Protocol):
    """One frame to one message, and back."""

    @property
    def content_type(self) -> str:
        """What its frames hold, as a media type."""
        ...

    @property
    def needs_any_byte(self) -> bool:
        """Any byte may occur in a frame, whatever the message: a framing that gives some a meaning cannot carry it."""
        ...

    @property
    def sends_as_is(self) -> bool:
        """A message of type bytes is its own frame."""
        ...

    def decode(self, frame: bytes) -> Any:
        """The message; :class:`~mtserver.errors.BadMessage` if the frame does not hold one."""
        ...

    def encode(self, message: Any) -> bytes:
        """The frame, of an acknowledgement too; :class:`~mtserver.errors.HandlerError` if that cannot be sent."""
        ...

    def encode_reply(self, reply: Any) -> bytes:
        """The frame of what the handler has returned, which is to be what it says it returns."""
        ...

    def refuse(self, refusal: Refusal) -> bytes:
        """The frame that tells the peer of a refusal."""
        ...
