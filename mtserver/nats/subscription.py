"""A subscription to a subject, which outlives the connections that it is made on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Function called, in the loop, with a message: its subject, the subject for a reply (or an empty text), its bytes.
MessageCallback = Callable[[str, str, bytes], Any]


class Subscription:
    """One subject, and the function that is called with each message on it."""

    __slots__ = ("callback", "number", "subject")

    def __init__(self, subject: str, callback: MessageCallback) -> None:
        self.subject = subject
        self.callback = callback
        #: Number on the present connection; 0 while there is none.
        self.number = 0
