"""Length-prefixed messages: ``int8``, ``int16``, ``int32``; big-endian, unsigned, as Twisted's IntNStringReceiver."""

from __future__ import annotations

import abc
import struct
from collections.abc import Sequence

from mtserver.errors import BadMessage, Refusal, TooLong
from mtserver.framing.framing import Framing


class LengthFraming(Framing):
    """
    Base of the framings that state the length of a message before its first byte.

    A subclass reads one header; slicing, waiting and limits are done here. A length over the limit is refused as
    soon as its header is complete, so that no client makes the server wait for, or hold, 4 GiB.
    """

    __slots__ = ("_need",)

    #: Bytes that follow each message, to be checked (a netstring's comma).
    trailer = b""

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        # Bytes without which no message can be complete. With fewer, take() returns at once: else each one-byte
        # segment of a long message would cost a copy of all before it.
        self._need = 1

    @property
    def unfinished(self) -> bool:
        return bool(self._fresh)

    @abc.abstractmethod
    def _header(self, data: bytes, position: int) -> tuple[int, int] | None:
        """
        Read the header at `position`: the place where its message begins, and the length; None if it is incomplete.

        Raises :class:`~mtserver.errors.Refusal` for a header that can never become a good one.
        """

    def take(self, limit: int) -> list[bytes]:
        messages: list[bytes] = []
        if len(self._fresh) < self._need:
            return messages
        data = bytes(self._fresh)
        position, size, trailer = 0, len(data), self.trailer
        self._need = 1
        try:
            while position < size and len(messages) < limit:
                header = self._header(data, position)
                if header is None:
                    self._need = size - position + 1
                    break
                begin, length = header
                if length > self.max_message:
                    raise TooLong(self.max_message)
                end = begin + length
                after = end + len(trailer)
                if after > size:
                    self._need = after - position
                    break
                if trailer and data[end:after] != trailer:
                    raise self._lost()
                messages.append(data[begin:end])
                position = after
        except Refusal as error:
            self.fail(error)
        else:
            if position:
                self._fresh = data[position:]
        return messages

    @staticmethod
    def _lost() -> Refusal:
        return BadMessage("the framing is lost", closes=True)

    def clear(self) -> None:
        super().clear()
        self._need = 1


class _IntFraming(LengthFraming):
    __slots__ = ()

    _prefix: struct.Struct

    def _header(self, data: bytes, position: int) -> tuple[int, int] | None:
        begin = position + self._prefix.size
        if begin > len(data):
            return None
        return begin, self._prefix.unpack_from(data, position)[0]

    @classmethod
    def encode(cls, messages: Sequence[bytes]) -> bytes:
        prefix = cls._prefix
        pieces: list[bytes] = []
        try:
            for message in messages:
                pieces += (prefix.pack(len(message)), message)
        except struct.error:
            most = (1 << 8 * prefix.size) - 1
            raise cls._unfit(f"it has more than {most} bytes") from None
        return b"".join(pieces)


class Int8Framing(_IntFraming):
    """A one-byte length, then as many bytes: messages of up to 255 bytes."""

    __slots__ = ()
    _prefix = struct.Struct("!B")


class Int16Framing(_IntFraming):
    """A two-byte big-endian length, then as many bytes."""

    __slots__ = ()
    _prefix = struct.Struct("!H")


class Int32Framing(_IntFraming):
    """A four-byte big-endian length, then as many bytes."""

    __slots__ = ()
    _prefix = struct.Struct("!I")
