"""The runner for Python 3.12 and newer: a task per coroutine, which begins eagerly."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from mtserver.concurrency.coroutines.bridge import DeferredBridge, TouchMark, outcome_of
from mtserver.concurrency.coroutines.runner import Done, Running, Turns, coroutine_per_turn

assert sys.version_info >= (3, 12)  # noqa: S101 - tells mypy not to read on with an older Python's asyncio


class _Task(TouchMark, asyncio.Task[None]):
    """A task whose reference count shows whether somebody has kept or touched it."""


class TaskRunner:
    """Runs each coroutine in a task of its own, which begins eagerly."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    @staticmethod
    def when_done(running: asyncio.Task[None], done: Done, *args: Any) -> None:
        asyncio.Task.add_done_callback(running, lambda task: done(outcome_of(task), *args))

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        task = _Task(DeferredBridge(self.loop, coroutine), loop=self.loop, context=context, eager_start=True)
        if task.done():
            error = outcome_of(task)
            # Ended all the same, although it had cancelled itself: no error.
            if error is not None and not (task.cancelled() and task.cancelling()):
                raise error
            return None
        return task

    def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
        return coroutine_per_turn(self.start, turns)
