"""
Input that a client's handler has not been given: undecoded bytes, and messages given back. Pure.

There is one while something is held, and none otherwise. Bytes stay undecoded until somebody takes messages, so a
client that is ahead of its handler costs the bytes it sent and not one Python object per message.
"""

from __future__ import annotations

from mtserver.errors import Refusal
from mtserver.framing import Framing


class Inbox:
    """
    The unhandled input of one client.

    :param framing: new, for this inbox alone; it decodes what comes.
    """

    __slots__ = ("_framing", "_given_back", "arrived_at", "began_at")

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._given_back: list[bytes] = []
        #: When the oldest of what is held came, on the server's clock.
        self.arrived_at = 0.0
        #: When the unfinished message began, on the server's clock; 0.0 while there is none, or its time does not run.
        self.began_at = 0.0

    def feed(self, data: bytes) -> None:
        """Add bytes from the client."""
        self._framing.feed(data)

    def take(self, limit: int) -> list[bytes]:
        """Up to `limit` complete messages, in order; those that were given back come first, however many they are."""
        if self._given_back:
            messages, self._given_back = self._given_back, []
            return messages
        return self._framing.take(limit)

    def give_back(self, messages: list[bytes]) -> None:
        """Messages that were taken and not handled: they are the next."""
        self._given_back = messages

    @property
    def has_given_back(self) -> bool:
        """Messages wait that have been taken, and counted, before."""
        return bool(self._given_back)

    @property
    def size(self) -> int:
        """Undecoded bytes held, those of an unfinished message among them."""
        return self._framing.buffered

    @property
    def error(self) -> Refusal | None:
        """Refusal of a client that broke the framing, after which nothing more is taken; None where all is well."""
        return self._framing.error

    def fail(self, error: Refusal) -> None:
        """Take nothing more, for this reason."""
        self._given_back = []
        self._framing.fail(error)

    @property
    def is_unfinished(self) -> bool:
        """Whether a message has begun and not ended. Defined once :meth:`take` has returned an empty list."""
        return self._framing.unfinished

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, and nothing is wrong. Defined as `is_unfinished` is."""
        return not self._given_back and self._framing.is_idle

    def allow(self, max_message: int) -> None:
        """Change the most bytes that one message may have."""
        self._framing.max_message = max_message
