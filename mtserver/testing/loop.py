"""An asyncio event loop whose time is a Twisted ``Clock``: ``asyncio.sleep(5)`` ends when the clock is moved by 5."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from twisted.internet.interfaces import IReactorTime


class ClockLoop:
    """
    A part of ``asyncio.AbstractEventLoop``: what tasks, futures, timeouts and the synchronisation primitives need.

    It has no I/O; what needs that fails with an AttributeError that names the method.

    :param clock: for timers, which run when it is moved; what is to run at once waits for :meth:`turn`.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # asyncio asks for the abstract class by name only in its annotations.
        self._as_loop: Any = self
        self._ready: deque[asyncio.Handle] = deque()
        #: Reports of exceptions "never retrieved" or otherwise unhandled.
        self.problems: list[dict[str, Any]] = []

    def time(self) -> float:
        return self._clock.seconds()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self._ready.append(handle)
        return handle

    # Threads do not exist where this loop is used.
    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        self._clock.callLater(max(0, when - self.time()), self._run, handle)
        return handle

    def turn(self) -> bool:
        """Run what is ready now, and not what that makes ready; whether there was any."""
        ready, self._ready = self._ready, deque()
        for handle in ready:
            self._run(handle)
        return bool(ready)

    @staticmethod
    def _run(handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by each handle that is cancelled; ours stay where they are and do nothing when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._as_loop, **kwargs)

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # it belongs to whoever awaits the future
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)
