"""
Calls from other threads into the event loop, many for one wake-up.

Waking an event loop from another thread is a system call and a switch of threads, ten times as dear as the calls
themselves. So calls are queued, and only the first into an empty queue wakes the loop, which then runs all that are
queued, in their order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from mtserver.errors import Refusal
from mtserver.telemetry.escape import escape

_log = Logger("mtserver")


class LoopCalls:
    """
    A queue of calls from any thread to the loop's thread.

    :param reactor: woken by its ``callFromThread``.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._awake = False
        self._loop_thread: int | None = None

    def adopt_thread(self) -> None:
        """Take the calling thread for the loop's. Called once the loop runs, since twistd forks before that."""
        self._loop_thread = threading.get_ident()

    @property
    def has_loop(self) -> bool:
        """Whether the loop has run."""
        return self._loop_thread is not None

    def in_loop(self) -> bool:
        """Whether the caller runs in the loop's thread."""
        return self._loop_thread is None or threading.get_ident() == self._loop_thread

    def post(self, call: Callable[..., Any], *args: Any) -> None:
        """Run `call` in the loop, soon, after all calls posted before. Any thread may post."""
        with self._lock:
            self._calls.append((call, args))
            if self._awake:
                return
            self._awake = True
        self._reactor.callFromThread(self._run)

    def _run(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, deque()
            self._awake = False
        for call, args in calls:
            try:
                call(*args)
            except Refusal as error:  # a line without a traceback, since a client may be the cause
                _log.warn("a call from a thread was refused: {why}", why=escape(str(error)))
            except BaseException:
                # Caught, so that the other calls still run.
                _log.failure("a call from a thread failed")
