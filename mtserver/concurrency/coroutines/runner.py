"""What runs coroutines, as its users see it; each kind of loop has one of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Protocol, cast

Done = Callable[..., None]

#: A generator function, made a coroutine function by ``types.coroutine``, that takes one turn after another: called
#: with None it yields :data:`READY` whenever it is ready to be sent the next turn's argument; called with an argument
#: it takes that one turn. Against a coroutine per turn this saves a coroutine, and the StopIteration that ends one. The
#: second argument is the task in which turns are taken, for as long as nobody else has a reference to it; or None.
Turns = Callable[[Any, Any], Generator[Any, Any, None]]

READY = object()


class Running(Protocol):
    """A coroutine that has suspended."""

    def cancel(self) -> object:
        """Raise ``asyncio.CancelledError`` where it waits."""
        ...


class Runner(Protocol):
    """How coroutines are started in one loop."""

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        """
        Run `coroutine` in `context` until it ends or suspends.

        :return: None if it has ended (an exception of its own is raised here); otherwise a handle on it, to be given
            to `when_done` before the loop goes on.
        """
        ...

    def when_done(self, running: Any, done: Done, *args: Any) -> None:
        """Call `done`, once, with the exception that ended it or None, and `args`."""
        ...

    def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
        """What takes one turn, with this argument, in this context; returns and raises as `start`."""
        ...


def nobody(error: BaseException | None) -> None:
    """Nobody waits for it."""


def one_by_one(
    start: Callable[[Coroutine[Any, Any, None], Context], Running | None], turns: Turns
) -> Callable[[Any, Context], Running | None]:
    """A coroutine for each turn, where nothing better is known."""
    return lambda turn, context: start(cast("Coroutine[Any, Any, None]", turns(turn, None)), context)
