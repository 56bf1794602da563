"""Lines: a message ends with LF; a CR right before it is dropped (telnet, ``nc -C`` and Windows send it)."""

from __future__ import annotations

from collections.abc import Sequence

from mtserver.errors import TooLong
from mtserver.framing.framing import Framing

# Numbers, since ``b"\r" in data`` raises and catches a TypeError inside CPython before it looks for bytes, which takes
# eight times as long.
_LF = 10
_CR = 13


class LineFraming(Framing):
    """Messages are lines. Replies end with LF alone, which every client of this kind reads."""

    __slots__ = ("_tail",)

    carries_any_byte = False

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        # Begin of a line without its end. It holds no LF and is never searched again, which keeps a line that
        # arrives in one-byte segments linear.
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
            # The previous segment may have brought the CR of a CRLF.
            returns = returns or self._tail.endswith(b"\r")
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        if returns:
            lines = [line.removesuffix(b"\r") for line in lines]
        if len(lines) < limit:
            self._fresh = b""
            self._tail += rest
        else:
            self._fresh = rest  # may hold complete lines still
        # A read shorter than the limit has no line over it, so most reads skip the look at each line.
        if len(data) > self.max_message or len(lines[0]) > self.max_message:
            for index, line in enumerate(lines):
                if len(line) > self.max_message:
                    self.fail(TooLong(self.max_message))
                    return lines[:index]
            self._check_tail()
        return lines

    def _check_tail(self) -> None:
        excess = len(self._tail) - self.max_message
        # One byte too many may be the CR of a line that just fits.
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
            # Joined twice, for `in` with a number is memchr, while bytes.count of the framed bytes goes byte by byte
            # (16 messages of 64 bytes: twice the time).
            joined = b"".join(messages)
            data = b"\n".join(messages) + b"\n" if messages else b""
        if _LF in joined:
            raise cls._unfit("a line cannot hold a newline; send one message per line")
        return data
