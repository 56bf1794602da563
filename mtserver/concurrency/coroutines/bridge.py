"""What all tasks here have in common: Deferreds that can be awaited in them, and how they are told to be somebody's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from twisted.internet import defer

from mtserver.concurrency.coroutines.runner import READY


class Marking:
    """
    Mixed into a task: itself, once somebody has done something to it that must not meet the next message; a reference
    more, so that whoever counts those need not ask for both.
    """

    _marked: Any = None

    def cancel(self, msg: Any = None) -> bool:
        self._marked = self
        done: bool = super().cancel(msg)  # type: ignore[misc] # the task's
        return done

    def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
        self._marked = self
        super().add_done_callback(fn, context=context)  # type: ignore[misc] # the task's

    def set_name(self, value: object) -> None:
        self._marked = self
        super().set_name(value)  # type: ignore[misc] # the task's


def outcome_of(task: asyncio.Task[None]) -> BaseException | None:
    """The exception that ended a task; None if it ended well."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Bridged(Coroutine[Any, Any, None]):
    """
    A coroutine as an asyncio task sees it, with each Deferred that it waits for turned into a future.

    :param first: what the coroutine has already yielded in a first step taken elsewhere.
    """

    __slots__ = ("_coroutine", "_first", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], *first: Any) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._first = first

    def send(self, value: Any) -> Any:
        if self._first:
            (yielded,), self._first = self._first, ()
        else:
            yielded = self._coroutine.send(value)
        return self._translated(yielded)

    def throw(self, *error: Any) -> Any:
        if self._first:
            (yielded,), self._first = self._first, ()
            if hasattr(yielded, "_asyncio_future_blocking"):
                yielded._asyncio_future_blocking = False
        return self._translated(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine.__await__()

    def _translated(self, yielded: Any) -> Any:
        if not isinstance(yielded, defer.Deferred):
            if yielded is READY:
                raise StopIteration  # its turn was over before anybody knew that it had to wait
            return yielded
        future = self._loop.create_future()

        def fired(result: Any) -> Any:
            if not future.done():
                future.set_result(None)
            return result  # stays in the Deferred, which hands it to the coroutine when that goes on

        def ended(future: asyncio.Future[None]) -> None:
            if future.cancelled():
                yielded.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
                yielded.cancel()

        yielded.addBoth(fired)
        future.add_done_callback(ended)
        future._asyncio_future_blocking = True
        return future
