"""Something that a handler can await, and the loop will keep: what :mod:`mtserver.offload` and the journal return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

# Where a promise stands.
_GIVEN = 0
_KEPT = 1
_BROKEN = 2
_CANCELLED = 3


class Promise(Generic[T]):
    """
    Made, kept and broken in the loop's thread; awaited by one coroutine, wherever a handler may await.

    Whoever waited and was cancelled misses it.
    """

    __slots__ = ("_outcome", "_state", "_wake")

    def __init__(self) -> None:
        self._state = _GIVEN
        self._outcome: Any = None
        self._wake: Callable[[], Any] | None = None

    def keep(self, result: T) -> None:
        """Whoever waits goes on with this result, at once where that is possible."""
        self._settle(_KEPT, result)

    def fail(self, error: BaseException) -> None:
        """Whoever waits goes on with this error."""
        self._settle(_BROKEN, error)

    def _settle(self, state: int, outcome: Any) -> None:
        if self._state != _GIVEN:
            return
        self._state = state
        self._outcome = outcome
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def __await__(self) -> Generator[Any, Any, T]:
        if self._state == _GIVEN:
            if self._wake is not None:
                raise RuntimeError("somebody waits for this promise already")
            yield from self._wait()
        if self._state == _KEPT:
            result: T = self._outcome
            return result
        if self._state == _BROKEN:
            error: BaseException = self._outcome
            raise error
        raise asyncio.CancelledError

    def _wait(self) -> Generator[Any, Any, None]:
        loop = asyncio._get_running_loop()
        if loop is None:
            deferred = Deferred[None]()
            self._wake = lambda: deferred.callback(None)
            yield from deferred
        elif getattr(asyncio.current_task(loop), "takes_promises", False):
            yield self
            if self._state == _GIVEN:
                raise RuntimeError("this promise was awaited in a coroutine that neither asyncio nor mtserver runs")
        else:
            future: asyncio.Future[None] = loop.create_future()
            self._wake = partial(_release, future)
            try:
                yield from future
            finally:
                self._wake = None

    # The task that it was yielded to calls these.

    def then(self, wake: Callable[[], Any]) -> None:
        """Call `wake` once there is an outcome."""
        self._wake = wake

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - as a future's
        """Let whoever waits go on with ``asyncio.CancelledError``, in the next iteration; whether it still waited."""
        if self._state != _GIVEN:
            return False
        self._state = _CANCELLED
        wake, self._wake = self._wake, None
        if wake is not None:
            asyncio.get_running_loop().call_soon(wake)
        return True


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():  # its task has not been cancelled meanwhile
        future.set_result(None)
