"""One client's side of how its handler runs: what a dispatch keeps there, and what it asks of it."""

from __future__ import annotations

import abc
import contextvars
from typing import Any

from mtserver.app import Client
from mtserver.concurrency.coroutines import Running
from mtserver.framing import Framing

# Where the handler is; `busy`.
FREE = 0
IN_TURN = 1  # running in the loop, right now
SUSPENDED = 2  # a coroutine that waits for something
AWAY = 3  # with a worker

#: A bit of `holds`: nobody waits for the handler any more.
CANCELLED = 256

#: Bytes of a reply that may wait for the others of its batch without being counted.
SMALL = 2048


class Conversation(abc.ABC):
    """
    One client's side of it: the state that a dispatch keeps there, and what the dispatch asks of it.

    For the loop's thread only, but for `holds`.
    """

    __slots__ = (
        "answered",
        "arrived_at",
        "busy",
        "client",
        "context",
        "framing",
        "handler",
        "holds",
        "replies",
        "running",
    )

    client: Client
    #: Not zero while no further message is to be handled, whatever the reason. A worker may read it.
    holds: int
    #: What has been read and not been handled; None while that is nothing.
    framing: Framing | None
    #: Time at which the oldest of the messages taken last had come, on the server's clock; 0.0: right now.
    arrived_at: float
    #: Messages answered so far, be it with nothing.
    answered: int
    #: The handler's instance for this client, or the client where it is a function; None before the handler has begun,
    #: and if it could not.
    handler: Any
    #: Not zero while the handler is at work, or waits for something: it is not to be given more.
    busy: int
    #: The coroutine that waits for something.
    running: Running | None
    #: Encoded replies that wait for the others of their batch, and do not yet count as answers; None while the
    #: handler is not busy.
    replies: list[bytes] | None
    #: contextvars set by the handler are this client's: seen by its later messages, and by no other client. None
    #: while it has set none.
    context: contextvars.Context | None

    def __init__(self) -> None:
        self.holds = 0
        self.framing = None
        self.arrived_at = 0.0
        self.answered = 0
        self.handler = None
        self.busy = FREE
        self.running = None
        self.replies = None
        self.context = None

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the handler any more."""
        return bool(self.holds & CANCELLED)

    @abc.abstractmethod
    def take(self) -> list[bytes]:
        """The next messages; an empty list if there are none or they are held back."""

    @abc.abstractmethod
    def give_back(self, frames: list[bytes]) -> None:
        """Messages taken and not handled after all, to come first next time."""

    @abc.abstractmethod
    def answer(self, reply: Any) -> None:
        """One message is answered, with None if there is nothing to send."""

    @abc.abstractmethod
    def failed(self, error: BaseException) -> None:
        """One message is not answered, for this reason: a refusal, or whatever the handler raised."""

    @abc.abstractmethod
    def broken(self, error: BaseException) -> None:
        """The handler cannot begin with this client."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Some replies have been left, and the handler is still busy."""

    @abc.abstractmethod
    def catch_up(self) -> None:
        """Something was said to everyone, and something else is about to be said here."""

    @abc.abstractmethod
    def relieve(self) -> None:
        """Many replies may have been left, and the handler is still busy."""

    @abc.abstractmethod
    def rested(self) -> None:
        """The handler is free, and `take` gave nothing."""

    @abc.abstractmethod
    def yielded(self) -> None:
        """The time slice is over: wake the dispatch again when others have had their turn."""

    @abc.abstractmethod
    def released(self) -> None:
        """The handler has been told of the end; nothing more will come."""
