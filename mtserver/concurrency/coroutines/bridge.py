"""The common part of all tasks here: Deferreds that can be awaited in them, and a mark on tasks that were touched."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from twisted.internet import defer

from mtserver.concurrency.coroutines.runner import READY


class TouchMark:
    """
    Mixin that marks a task once somebody has done something to it that must not meet the next message.

    The mark is a reference of the task to itself, so that one look at the reference count shows kept and touched tasks.
    """

    _touched: Any = None

    def cancel(self, msg: Any = None) -> bool:
        self._touched = self
        done: bool = super().cancel(msg)  # type: ignore[misc] # the task's
        return done

    def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
        self._touched = self
        super().add_done_callback(fn, context=context)  # type: ignore[misc] # the task's

    def set_name(self, value: object) -> None:
        self._touched = self
        super().set_name(value)  # type: ignore[misc] # the task's


def outcome_of(task: asyncio.Task[None]) -> BaseException | None:
    """Return the exception that ended a task; None if it ended well."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class DeferredBridge(Coroutine[Any, Any, None]):
    """
    A coroutine as an asyncio task sees it, with each Deferred that it waits for turned into a future.

    :param first: the object that the coroutine has yielded already, in a first step taken elsewhere.
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
        return self._translate(yielded)

    def throw(self, *error: Any) -> Any:
        if self._first:
            (yielded,), self._first = self._first, ()
            if hasattr(yielded, "_asyncio_future_blocking"):
                yielded._asyncio_future_blocking = False
        return self._translate(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine.__await__()

    def _translate(self, yielded: Any) -> Any:
        if not isinstance(yielded, defer.Deferred):
            if yielded is READY:
                raise StopIteration  # the turn has ended without a wait
            return yielded
        future = self._loop.create_future()

        def fired(result: Any) -> Any:
            if not future.done():
                future.set_result(None)
            return result  # kept in the Deferred, which gives it to the coroutine when that resumes

        def ended(future: asyncio.Future[None]) -> None:
            if future.cancelled():
                yielded.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
                yielded.cancel()

        yielded.addBoth(fired)
        future.add_done_callback(ended)
        future._asyncio_future_blocking = True
        return future
