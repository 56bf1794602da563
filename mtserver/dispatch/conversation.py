"""One client's side of how its handler runs: what a dispatch keeps there, and what it asks of it."""

from __future__ import annotations

import contextvars
import typing
from typing import Any

from mtserver.client import Client
from mtserver.concurrency.coroutines import Running

# Where the handler is; `busy`.
FREE = 0
IN_TURN = 1  # running in the loop, right now
SUSPENDED = 2  # a coroutine that waits for something
AWAY = 3  # with a thread

#: Bytes of a reply that may wait for the others of its batch without being counted.
SMALL = 2048
#: A bit of `pauses`: nobody waits for the handler any more.
CANCELLED = 16


class Conversation(typing.Protocol):
    """
    One client, as far as its handler goes; :class:`mtserver.session.session.Session` is one.

    For the loop's thread only, but for `pauses`.
    """

    client: Client
    #: Not zero while no further message is to be handled, whatever the reason. A thread may read it.
    pauses: int
    #: Input that has been read and not been handled; None while there is none.
    inbox: Any
    #: When the oldest of the messages taken last had come, on the server's clock, while somebody listens to how long
    #: messages wait; 0.0: just now.
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
    #: The context variables that the handler has set: seen by this client's later messages, and by no other client's.
    #: None while it has set none.
    context: contextvars.Context | None

    def take(self) -> list[bytes]:
        """The next messages; an empty list if there are none or they are held back."""
        ...

    def give_back(self, messages: list[bytes]) -> None:
        """Messages taken and not handled after all, to come first next time."""
        ...

    def answer(self, reply: Any) -> None:
        """One message is answered, with None if there is nothing to send."""
        ...

    def failed(self, error: BaseException) -> None:
        """One message is not answered, for this reason: a refusal, or whatever the handler raised."""
        ...

    def start_failed(self, error: BaseException) -> None:
        """The handler cannot begin with this client."""
        ...

    def flush(self) -> None:
        """Some replies have been left, and the handler is still busy."""
        ...

    def flush_if_large(self) -> None:
        """Many replies may have been left, and the handler is still busy."""
        ...

    def idle(self) -> None:
        """The handler is free, and `take` gave nothing."""
        ...

    def slice_over(self) -> None:
        """The time slice is over: wake the dispatch again when others have had their turn."""
        ...

    def finished(self) -> None:
        """The handler has been told of the end; nothing more will come."""
        ...
