"""
Framing: how a stream of bytes becomes messages, and messages become bytes.

::

    framing = framing_named("line")(max_message=65536)
    framing.feed(b"one\\r\\ntw")
    framing.take(10)              # [b"one"]
    framing.encode([b"a", b"b"])  # b"a\\nb\\n"

Laws, held by ``tests/test_framing.py`` for every framing here:

* Any split of the same bytes gives the same messages.
* ``encode`` then ``feed`` and ``take`` is identity, for every message that ``encode`` accepts. (One exception: a line
  that ends with CR loses it, since CRLF ends a line too; a handler whose clients want CRLF sends it that way.)
* Random bytes lead to messages or to one :class:`~mtserver.errors.Refusal` in ``error``, never to an exception.
* What is held is bounded by what was fed and not yet taken, plus one unfinished message of ``max_message`` bytes.
* The time is linear in the bytes fed, however small the pieces.

A framing knows nothing of transports, time or handlers. To add one: subclass :class:`~mtserver.framing.framing.Framing`
(or :class:`~mtserver.framing.lengths.LengthFraming`), and name it in ``FRAMINGS``.
"""

from __future__ import annotations

from mtserver.errors import ConfigurationError
from mtserver.framing.framing import Framing
from mtserver.framing.lengths import Int8Framing, Int16Framing, Int32Framing
from mtserver.framing.line import LineFraming
from mtserver.framing.netstring import NetstringFraming

__all__ = ["FRAMINGS", "Framing", "framing_named"]

FRAMINGS: dict[str, type[Framing]] = {
    "line": LineFraming,
    "netstring": NetstringFraming,
    "int8": Int8Framing,
    "int16": Int16Framing,
    "int32": Int32Framing,
}


def framing_named(name: str) -> type[Framing]:
    """The framing that ``--framing NAME`` means; :class:`~mtserver.errors.ConfigurationError` where there is none."""
    try:
        return FRAMINGS[name]
    except KeyError:
        raise ConfigurationError(f"no framing is called {name!r}; there are {', '.join(FRAMINGS)}") from None
