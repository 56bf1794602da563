"""Lines: a message ends with LF; a CR right before it is dropped (telnet, ``nc -C`` and Windows send it)."""

from __future__ import annotations

from collections.abc import Sequence

from mtserver.errors import TooLong
from mtserver.framing.framing import Framing

# As numbers: ``b"\r" in data`` raises and catches a TypeError inside CPython before it looks for bytes, and takes eight
# times as long.
_LF = 10
_CR = 13


class LineFraming(Framing):
    """Messages are lines. Replies end with LF alone, which every client of this kind reads."""

    __slots__ = ("_tail",)

    carries_any_byte = False

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        # A line that has begun and not ended. Known to hold no LF, so it is never searched again: that keeps
        # a line that arrives in one-byte segments linear.
        self._tail = bytearray()

    @property
    def buffered(self) -> int:
        return len(self._fresh) + len(self._tail)

    @property
    def unfinished(self) -> bool:
        return bool(self._tail)

    def take(self, limit: int) -> list[bytes]:
        if not self._fresh:
            return []
        data = bytes(self._fresh)  # no copy where it already is bytes
        lines = data.split(b"\n", limit)
        rest = lines.pop()
        if not lines:
            self._fresh = b""
            self._tail += rest
            self._check_tail()
            return lines
        returns = _CR in data
        if self._tail:
            # The CR of a CRLF may have come with the previous segment.
            returns = returns or self._tail.endswith(b"\r")
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        if returns:
            lines = [line.removesuffix(b"\r") for line in lines]
        if len(lines) < limit:
            self._fresh = b""
            self._tail += rest
        else:
            self._fresh = rest  # may hold whole lines still
        # No line of a short enough read can be too long, so most reads skip the look at each.
        if len(data) > self.max_message or len(lines[0]) > self.max_message:
            for index, line in enumerate(lines):
                if len(line) > self.max_message:
                    self.fail(TooLong(self.max_message))
                    return lines[:index]
            self._check_tail()
        return lines

    def _check_tail(self) -> None:
        excess = len(self._tail) - self.max_message
        # One byte more may still be the CR of a line that just fits.
        if excess > 1 or (excess == 1 and not self._tail.endswith(b"\r")):
            self.fail(TooLong(self.max_message))

    @classmethod
    def split_complete(cls, data: bytes, max_message: int, limit: int) -> list[bytes] | None:
        lines = data.split(b"\n", limit)
        if lines.pop() or len(data) > max_message:
            return None
        if _CR in data:
            return [line.removesuffix(b"\r") for line in lines]
        return lines

    def clear(self) -> None:
        super().clear()
        self._tail.clear()

    @classmethod
    def encode(cls, messages: Sequence[bytes]) -> bytes:
        if len(messages) == 1:
            (joined,) = messages
            data = joined + b"\n"
        else:
            # Joined twice, since a number is looked for by memchr, and bytes.count goes byte by byte: twice as long
            # for 16 messages of 64 bytes.
            joined = b"".join(messages)
            data = b"\n".join(messages) + b"\n" if messages else b""
        if _LF in joined:
            raise cls._unfit("a line cannot hold a newline; send one message per line")
        return data
