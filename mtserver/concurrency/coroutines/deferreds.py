"""Coroutines without an asyncio loop (``--reactor epoll``, tests on a fake clock), which may await Deferreds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast

from twisted.internet import defer
from twisted.python.failure import Failure

from mtserver.concurrency.coroutines.runner import Done, Running, Turns, coroutine_per_turn, ignore_end
from mtserver.errors import HandlerError


class DeferredRunner:
    """The runner, and one suspended coroutine, where there is no asyncio loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context
        self._done: Done = ignore_end
        self._args: tuple[Any, ...] = ()
        self._waits_for: defer.Deferred[Any] | None = None
        self._cancelled = False

    @classmethod
    def start(cls, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        self = cls(coroutine, context)
        try:
            self._run(coroutine.send, None)
        except StopIteration:
            return None
        return self

    @classmethod
    def repeated(cls, turns: Turns) -> Callable[[Any, Context], Running | None]:
        return coroutine_per_turn(cls.start, turns)

    @staticmethod
    def when_done(running: DeferredRunner, done: Done, *args: Any) -> None:
        running._done = done
        running._args = args

    def _run(self, method: Callable[[Any], Any], value: Any) -> None:
        yielded = self._context.run(method, value)
        while not isinstance(yielded, defer.Deferred):
            error = HandlerError(
                f"cannot wait for {type(yielded).__name__}: this reactor has no asyncio loop, so handlers may await "
                "Deferreds only (twistd --reactor=asyncio has one)"
            )
            yielded = self._context.run(self._coroutine.throw, error)
        self._waits_for = yielded
        yielded.addBoth(self._resume, yielded)

    def _resume(self, result: Any, deferred: defer.Deferred[Any]) -> Any:
        self._waits_for = None
        try:
            if self._cancelled:
                self._cancelled = False
                if isinstance(result, Failure):
                    result = None  # the Deferred's own CancelledError, handled here
                self._run(self._coroutine.throw, asyncio.CancelledError())
            elif isinstance(result, Failure):
                # Raised here, since a Deferred cannot give a failure from within its own callbacks. Others that wait
                # for it get the failure too; after them it counts as handled.
                deferred.addErrback(lambda _failure: None)
                error = cast("BaseException", result.value)
                self._run(self._coroutine.throw, error.with_traceback(result.getTracebackObject()))
            else:
                self._run(self._coroutine.send, None)  # the Deferred still holds the result, and gives it itself
        except StopIteration:
            self._done(None, *self._args)
        except BaseException as error:  # reported to the starter
            self._done(error, *self._args)
        return result

    def cancel(self) -> None:
        if self._waits_for is not None:
            self._cancelled = True
            self._waits_for.cancel()
