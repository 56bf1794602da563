"""The interface that every framing has. The laws stand in the package's docstring."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from mtserver.errors import HandlerError, Refusal


class Framing(abc.ABC):
    """
    One direction-pair of one connection: bytes in and messages out, messages in and bytes out.

    Pulled, not pushed: what was fed stays undecoded until somebody takes it, so a client that is ahead of its
    handler costs the bytes it sent and not one Python object per message.

    :param max_message: the most bytes one message may have, its framing not counted.
    """

    __slots__ = ("_fresh", "error", "max_message")

    #: A message may hold every byte there is.
    carries_any_byte: ClassVar[bool] = True

    def __init__(self, max_message: int) -> None:
        self.max_message = max_message
        #: Set once, when the peer broke the framing: nothing more is taken, and what is fed is dropped.
        self.error: Refusal | None = None
        # Fed and not yet looked at. A single piece is kept as it came (the usual case: one read, taken at once);
        # a second one turns it into a bytearray, which grows in linear time.
        self._fresh: bytes | bytearray = b""

    def feed(self, data: bytes) -> None:
        """Add bytes from the peer. Costs no more than a copy; :meth:`take` does the work."""
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
        Up to `limit` (1 or more) complete messages, in order; an empty list means that there is none.

        After the last message before a violation has been taken, `error` is set.
        """

    @property
    def buffered(self) -> int:
        """Bytes held: undecoded ones and those of an unfinished message."""
        return len(self._fresh)

    @property
    @abc.abstractmethod
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended. Defined once :meth:`take` has returned an empty list."""

    @classmethod
    def split_complete(cls, _data: bytes, _max_message: int, _limit: int) -> list[bytes] | None:
        """
        The messages in what was read, if it holds whole ones only, up to `limit` of them, and none too long; else None.

        A shortcut past feeding and taking for the usual case, which needs no instance. This one knows none.
        """
        return None

    @classmethod
    @abc.abstractmethod
    def encode(cls, messages: Sequence[bytes]) -> bytes:
        """
        The bytes that carry these messages.

        Raises :class:`~mtserver.errors.HandlerError` for a message that this framing cannot carry, since its reader
        would see other messages than were sent.
        """

    def clear(self) -> None:
        """Forget everything held."""
        self._fresh = b""

    @property
    def is_idle(self) -> bool:
        """Nothing is held, and nothing is wrong: a new one would do as well. Defined as `unfinished` is."""
        return not (self.unfinished or self._fresh or self.error)

    def fail(self, error: Refusal) -> None:
        """Take nothing more, for this reason."""
        self.error = error
        self.clear()

    @staticmethod
    def _unfit(reason: str) -> HandlerError:
        return HandlerError(f"this framing cannot carry the message: {reason}")
