"""The interface of every codec. The package's docstring states its laws."""

from __future__ import annotations

from typing import Any, Protocol

from mtserver.errors import Refusal

#: Most bytes of a refusal's frame: int8, the framing with the shortest messages, must carry every one.
REFUSAL_SIZE = 255


class Codec(Protocol):
    """Turns one frame into one message of the handler's type, and back."""

    @property
    def content_type(self) -> str:
        """Media type of the frames."""
        ...

    @property
    def needs_any_byte(self) -> bool:
        """Whether any byte may occur in a frame, so that a framing which gives one a meaning (line) cannot carry it."""
        ...

    @property
    def sends_as_is(self) -> bool:
        """Whether a message of type bytes is its own frame."""
        ...

    def decode(self, frame: bytes) -> Any:
        """Read the message of a frame; :class:`~mtserver.errors.BadMessage` if it does not hold one."""
        ...

    def encode(self, message: Any) -> bytes:
        """Write the frame of a message or an Ack; :class:`~mtserver.errors.HandlerError` if it cannot be sent."""
        ...

    def encode_reply(self, reply: Any) -> bytes:
        """Write the frame of a returned reply, checked against the handler's return annotation first."""
        ...

    def refuse(self, refusal: Refusal) -> bytes:
        """Write the frame that tells the client of a refusal; at most :data:`REFUSAL_SIZE` bytes."""
        ...
