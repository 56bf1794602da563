"""Netstrings: ``5:hello,`` - D. J. Bernstein, https://cr.yp.to/proto/netstrings.txt (1997)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mtserver.errors import TooLong
from mtserver.framing.lengths import LengthFraming

# The specification allows no leading zeros. More digits than any size has are not parsed: int() is quadratic in them.
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,18})(:?)")


class NetstringFraming(LengthFraming):
    """A decimal length, a colon, the bytes, a comma."""

    __slots__ = ()
    trailer = b","

    def _header(self, data: bytes, position: int) -> tuple[int, int] | None:
        match = _LENGTH.match(data, position)
        if match is None:
            raise self._lost()
        length = int(match[1])
        if length > self.max_message:
            # Refused before the colon as well: further digits only make the message longer.
            raise TooLong(self.max_message)
        if not match[2]:
            if match.end() < len(data):
                raise self._lost()
            return None
        return match.end(), length

    @classmethod
    def encode(cls, messages: Sequence[bytes]) -> bytes:
        return b"".join([b"%d:%b," % (len(message), message) for message in messages])
