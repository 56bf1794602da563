"""
Errors, each for the one who can mend it: the operator (:class:`ConfigurationError`), the handler's author
(:class:`HandlerError`), the client, or time (:class:`Refusal`).

A refusal is told to the client: a code, a text, and ``retry_after`` where waiting helps. The codec
(:mod:`mtserver.codecs`) gives it its form on the wire.
"""

from __future__ import annotations

import math


class MtserverError(Exception):
    """The root of all errors raised by mtserver."""


class ConfigurationError(MtserverError):
    """An option, a configuration file or an ``--app`` that cannot work. The text is one line for the operator."""


class HandlerError(MtserverError):
    """A handler broke its contract: a reply of the wrong type, or one that its framing cannot carry."""


class Refusal(MtserverError):
    """
    An answer to a client that does not get what it asked for.

    A handler may raise one, which the client then reads in place of a reply.

    :param code: one of the codes documented for the wire, for example ``"unavailable"``.
    :param text: one line for the people at the other end; escaped before it is sent.
    :param retry_after: seconds after which trying again makes sense, sent rounded up; None where it never does.
    :param closes: whether the connection ends with this refusal.
    """

    def __init__(self, code: str, text: str, *, retry_after: float | None = None, closes: bool = False) -> None:
        if retry_after is not None and not 0 <= retry_after < math.inf:
            raise ValueError(f"retry_after={retry_after!r} is not a number of seconds")
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after = None if retry_after is None else math.ceil(retry_after)
        self.closes = closes


class BadMessage(Refusal):
    """The message does not fit the framing, UTF-8 or the type. It closes only where the framing itself is lost."""

    def __init__(self, text: str, *, closes: bool = False) -> None:
        super().__init__("bad-message", text, closes=closes)


class TooLong(Refusal):
    """The message is longer than ``--max-message`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__("too-long", f"a message may have at most {limit} bytes", closes=True)


class Unavailable(Refusal):
    """A part that keeps a promise (a journal, a database) is away. The client may send the message again."""

    def __init__(self, text: str, *, retry_after: float = 1) -> None:
        super().__init__("unavailable", text, retry_after=retry_after)


class Duplicate(MtserverError):
    """
    A message was stored before and must not be handled again. Not caught, it is answered ``OK <seq> dup``.

    :param sequence: the number under which it is stored.
    """

    def __init__(self, sequence: int) -> None:
        super().__init__(f"stored before, with number {sequence}")
        self.sequence = sequence
