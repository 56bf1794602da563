"""The interface of every framing. The package's docstring states its laws."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from mtserver.errors import HandlerError, Refusal


class Framing(abc.ABC):
    """
    Both directions of one connection: bytes become messages, messages become bytes.

    Pulled, not pushed: fed bytes stay undecoded until messages are taken, so a client that is ahead of its handler
    costs the bytes it sent and not one Python object per message.

    :param max_message: the most bytes that one message may have, its framing not counted.
    """

    __slots__ = ("_fresh", "error", "max_message")

    #: Whether a message may hold any byte.
    carries_any_byte: ClassVar[bool] = True

    def __init__(self, max_message: int) -> None:
        self.max_message = max_message
        #: Violation by the client, set once: from then on nothing is taken, and fed bytes are dropped.
        self.error: Refusal | None = None
        # Bytes fed and not yet searched. A single piece is kept as it came (the usual case: one read, taken at once);
        # a second one turns it into a bytearray, which grows in linear time.
        self._fresh: bytes | bytearray = b""

    def feed(self, data: bytes) -> None:
        """Add bytes from the client. A call costs at most a copy; :meth:`take` does the work."""
        if self.error is not None:
            return
        if not self._fresh:
            self._fresh = data
        else:
            if type(self._fresh) is bytes:
                self._fresh = bytearray(self._fresh)
            self._fresh += data

    @abc.abstractmethod
    def take(self, limit: int) -> list[bytes]:
        """
        Remove and return up to `limit` (1 or more) complete messages, in order; an empty list: there is none.

        `error` is set once the last message before a violation has been taken.
        """

    @property
    def buffered(self) -> int:
        """Bytes held, undecoded or of an unfinished message."""
        return len(self._fresh)

    @property
    @abc.abstractmethod
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended. Valid only after :meth:`take` has returned an empty list."""

    @classmethod
    def split_complete(cls, _data: bytes, _max_message: int, _limit: int) -> list[bytes] | None:
        """
        Split bytes that hold only complete messages: at most `limit`, none too long. None: feed and take them instead.

        This is a shortcut for the usual read, without an instance; a framing that has none inherits this None.
        """
        return None

    @classmethod
    @abc.abstractmethod
    def encode(cls, messages: Sequence[bytes]) -> bytes:
        """
        Frame messages, as one piece of bytes.

        Raises :class:`~mtserver.errors.HandlerError` for a message that this framing cannot carry: the client would
        read other messages than were sent.
        """

    def clear(self) -> None:
        """Forget everything held."""
        self._fresh = b""

    @property
    def is_idle(self) -> bool:
        """Whether a new framing would do as well: nothing held, no error. Valid only when `unfinished` is."""
        return not (self.unfinished or self._fresh or self.error)

    def fail(self, error: Refusal) -> None:
        """Stop for good, with this error; drop all that is held."""
        self.error = error
        self.clear()

    @staticmethod
    def _unfit(reason: str) -> HandlerError:
        return HandlerError(f"this framing cannot carry the message: {reason}")
