"""Promises: awaitables for handlers, kept in the loop's thread; ``to_thread`` and the journal return them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

# States of a promise.
_GIVEN = 0
_KEPT = 1
_BROKEN = 2
_CANCELLED = 3


class Promise(Generic[T]):
    """
    Made, kept and broken in the loop's thread; awaited by one coroutine, wherever a handler may await.

    A coroutine that is cancelled while it waits misses the outcome.

    :param cancelled: called when the coroutine that waits is cancelled, to stop work whose outcome nobody wants.
    """

    __slots__ = ("_cancelled", "_outcome", "_state", "_wake")

    def __init__(self, cancelled: Callable[[], Any] | None = None) -> None:
        self._state = _GIVEN
        self._outcome: Any = None
        self._wake: Callable[[], Any] | None = None
        self._cancelled = cancelled

    def keep(self, result: T) -> None:
        """Resume the coroutine that waits with this result, at once where that is possible."""
        self._settle(_KEPT, result)

    def fail(self, error: BaseException) -> None:
        """Resume the coroutine that waits with this error."""
        self._settle(_BROKEN, error)

    def _settle(self, state: int, outcome: Any) -> None:
        if self._state != _GIVEN:
            return
        self._outcome = outcome
        self._state = state
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def __await__(self) -> Generator[Any, Any, T]:
        if self._state == _GIVEN:
            if self._wake is not None:
                raise RuntimeError("somebody waits for this promise already")
            try:
                yield from self._wait()
            except BaseException:
                self.cancel()
                raise
        if self._state == _KEPT:
            result: T = self._outcome
            return result
        if self._state == _BROKEN:
            error: BaseException = self._outcome
            raise error
        raise asyncio.CancelledError

    def _wait(self) -> Generator[Any, Any, None]:
        """
        Wait in the way of the driver that runs the coroutine, which is found out by trying.

        A driver that does not know an object that it is given resumes the coroutine with it at once: Twisted's does,
        wherever a handler calls it (``ensureDeferred``, ``inlineCallbacks``).
        """
        loop = asyncio._get_running_loop()
        if loop is not None:
            if getattr(asyncio.current_task(loop), "takes_promises", False):
                yield self
            else:
                yield from self._in_future(loop)
        if self._state == _GIVEN:
            deferred = Deferred[None]()
            self._wake = partial(deferred.callback, None)
            yield deferred
        if self._state == _GIVEN:
            raise RuntimeError("this promise is awaited in a coroutine that neither asyncio, Twisted nor mtserver runs")

    def _in_future(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, None]:
        future: asyncio.Future[None] = loop.create_future()
        self._wake = partial(_release, loop, future)
        # Checked again, since in another thread, with a loop of the handler's own, it may have been kept meanwhile.
        if self._state == _GIVEN:
            future._asyncio_future_blocking = True
            yield future

    # The task to which the promise was yielded calls these.

    def then(self, wake: Callable[[], Any]) -> None:
        """Call `wake` once there is an outcome."""
        self._wake = wake

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - as a future's
        """Resume the coroutine with ``asyncio.CancelledError`` in the next iteration; False if there is an outcome."""
        if self._state != _GIVEN:
            return False
        self._state = _CANCELLED
        wake, self._wake = self._wake, None
        if self._cancelled is not None:
            self._cancelled()
        loop = asyncio._get_running_loop()
        if wake is not None and loop is not None:
            loop.call_soon(wake)
        return True


def _release(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if asyncio._get_running_loop() is not loop:
        loop.call_soon_threadsafe(_release, loop, future)
    elif not future.done():  # its task has not been cancelled meanwhile
        future.set_result(None)
