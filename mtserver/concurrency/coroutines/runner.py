"""The interface of runners of coroutines; each kind of loop has one of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Protocol, cast

Done = Callable[..., None]

#: A generator function, made a coroutine function by ``types.coroutine``, that takes one turn after another: called
#: with None it yields :data:`READY` whenever it is ready to be sent the next turn's argument; called with an argument
#: it takes that one turn. Compared to a coroutine per turn, this saves a coroutine, and the StopIteration that ends it.
#: The second argument is the task in which turns are taken, as long as nobody else has a reference to it; or None.
Turns = Callable[[Any, Any], Generator[Any, Any, None]]

READY = object()


class Running(Protocol):
    """A coroutine that has suspended."""

    def cancel(self) -> object:
        """Raise ``asyncio.CancelledError`` where it waits."""
        ...


class Runner(Protocol):
    """Starts coroutines in one loop."""

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        """
        Run `coroutine` in `context` until it ends or suspends.

        :return: None if it has ended (its exception is raised here); otherwise the suspended coroutine, to be given to
            `when_done` before the loop goes on.
        """
        ...

    def when_done(self, running: Any, done: Done, *args: Any) -> None:
        """Call `done` once, with the exception that ended the coroutine, or None, and `args`."""
        ...

    def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
        """Return a function that takes one turn, with an argument, in a context; it returns and raises like `start`."""
        ...


def ignore_end(error: BaseException | None) -> None:
    """Do nothing at the end of a coroutine that nobody waits for."""


def coroutine_per_turn(
    start: Callable[[Coroutine[Any, Any, None], Context], Running | None], turns: Turns
) -> Callable[[Any, Context], Running | None]:
    """Take each turn in a coroutine of its own, where nothing faster is known."""
    return lambda turn, context: start(cast("Coroutine[Any, Any, None]", turns(turn, None)), context)
