"""
Running a handler's coroutine: at once as far as it goes, and on from there when what it awaits is done.

Two laws:

* One function may await Deferreds and asyncio awaitables alike, ``asyncio.timeout`` and ``TaskGroup`` included.
  Without a running asyncio loop (``--reactor epoll``, tests on a fake clock) Deferreds work all the same.
* A coroutine that never really suspends costs no task and no trip through the loop. ``asyncio`` insists on a
  *current task* from the first step on, so the first step runs inside one: on Python 3.12 and newer by
  ``eager_start``; on 3.11 inside an unstarted task that is used again if the coroutine ends right there, and that
  becomes its real task if it does not (0.5 microseconds against 5 for a task per message).

What is run again and again, and seldom suspends, need not even be a coroutine each time: see :data:`Turns`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Protocol, cast

from twisted.internet import defer
from twisted.python.failure import Failure

from mtserver.errors import HandlerError

Done = Callable[..., None]

#: A generator function, made a coroutine function by ``types.coroutine``, that takes one turn after another: called
#: with None it yields :data:`READY` whenever it is ready to be sent the next turn's argument, for as long as it did not
#: suspend in a turn; called with an argument it takes that one turn. Where it suspended it ends with its turn.
#: Against a coroutine per turn this saves a coroutine, and the StopIteration that ends one.
Turns = Callable[[Any], Generator[Any, Any, None]]

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


def runner() -> Runner:
    """The calling thread's, whose loop is running; or that of a reactor without an asyncio loop."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return _OnDeferreds
    if not _runners or _runners[-1].loop is not loop:
        _runners[:] = [_InTasks(loop)]
    return _runners[-1]


def _nobody(error: BaseException | None) -> None:
    """Nobody waits for it."""


def _when_done(running: asyncio.Task[None], done: Done, *args: Any) -> None:
    running.add_done_callback(lambda task: done(_outcome(task), *args))


def _outcome(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _one_by_one(
    start: Callable[[Coroutine[Any, Any, None], Context], Running | None], turns: Turns
) -> Callable[[Any, Context], Running | None]:
    """A coroutine for each turn, where nothing better is known."""
    return lambda turn, context: start(cast("Coroutine[Any, Any, None]", turns(turn)), context)


class _OnDeferreds:
    """A suspended coroutine where there is no asyncio loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context
        self._done: Done = _nobody
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
        return _one_by_one(cls.start, turns)

    @staticmethod
    def when_done(running: _OnDeferreds, done: Done, *args: Any) -> None:
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
                    result = None  # the Deferred's own word for having been cancelled
                self._run(self._coroutine.throw, asyncio.CancelledError())
            elif isinstance(result, Failure):
                # A Deferred cannot hand over a failure from within its own callbacks. Others that wait for it get it
                # too; after them it counts as handled.
                deferred.addErrback(lambda _failure: None)
                error = cast("BaseException", result.value)
                self._run(self._coroutine.throw, error.with_traceback(result.getTracebackObject()))
            else:
                self._run(self._coroutine.send, None)  # the Deferred still holds the result and hands it over itself
        except StopIteration:
            self._done(None, *self._args)
        except BaseException as error:  # reported to whoever started it
            self._done(error, *self._args)
        return result

    def cancel(self) -> None:
        if self._waits_for is not None:
            self._cancelled = True
            self._waits_for.cancel()


class _Bridged(Coroutine[Any, Any, None]):
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


if sys.version_info >= (3, 12):

    class _InTasks:
        """A task per coroutine, that begins eagerly."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop

        when_done = staticmethod(_when_done)

        def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
            task = asyncio.Task(_Bridged(self.loop, coroutine), loop=self.loop, context=context, eager_start=True)
            if task.done():
                error = _outcome(task)
                # One that cancelled itself and ended all the same has ended.
                if error is not None and not (task.cancelled() and task.cancelling()):
                    raise error
                return None
            return task

        def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
            return _one_by_one(self.start, turns)

else:
    # The private names of 3.11, all of them here; tests/test_coroutines.py runs every path on each Python version.
    from asyncio.futures import _get_loop  # type: ignore[attr-defined]
    from asyncio.tasks import _current_tasks, _PyTask, _register_task  # type: ignore[attr-defined]

    class _LateTask(_PyTask):  # type: ignore[misc]
        """A task that has been made and not begun."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            super(_PyTask, self).__init__(loop=loop)
            self._name = "mtserver-handler"
            self._num_cancels_requested = 0
            self._must_cancel = False
            self._fut_waiter = None
            self._coro: Any = None
            self._context: Any = None
            self._log_destroy_pending = False
            #: Somebody has done something to it: it cannot serve the next coroutine as if new.
            self.touched = False

        def cancel(self, msg: Any = None) -> bool:
            self.touched = True
            return bool(super().cancel(msg=msg))

        def add_done_callback(self, fn: Any, *, context: Context | None = None) -> None:
            self.touched = True
            super().add_done_callback(fn, context=context)

        def begin(self, coroutine: Coroutine[Any, Any, None], yielded: Any, context: Context) -> None:
            """Become the real task of a coroutine whose first step has been taken, and has yielded this."""
            self._context = context
            self._log_destroy_pending = True
            _register_task(self)
            if (
                getattr(yielded, "_asyncio_future_blocking", False)
                and _get_loop(yielded) is self._loop
                and not self._must_cancel
                and yielded is not self
            ):
                # The usual case, and what the first step of a task would come to.
                self._coro = _Bridged(self._loop, coroutine)
                yielded._asyncio_future_blocking = False
                yielded.add_done_callback(self._Task__wakeup, context=context)
                self._fut_waiter = yielded
            else:
                self._coro = _Bridged(self._loop, coroutine, yielded)
                context.run(self._Task__step)

    class _InTasks:
        """First steps share a task that has not begun; a coroutine that suspends makes it its own."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop
            self._spare = _LateTask(loop)

        when_done = staticmethod(_when_done)

        def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
            # `_current_tasks` is the dictionary that asyncio's _enter_task and _leave_task keep.
            loop = self.loop
            if loop in _current_tasks:
                return self._start_within(coroutine, context)
            if self._spare.touched:  # by somebody who has kept it from a turn long over
                self._spare = _LateTask(loop)
            task = self._spare
            task._coro = coroutine  # noqa: SLF001 - so that a handler can print the task it runs in
            _current_tasks[loop] = task
            try:
                yielded = context.run(coroutine.send, None)
            except StopIteration:
                del _current_tasks[loop]
                return None
            except BaseException:
                del _current_tasks[loop]
                self._spare = _LateTask(loop)
                raise
            del _current_tasks[loop]
            self._spare = _LateTask(loop)
            task.begin(coroutine, yielded, context)
            return task

        def _start_within(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
            """A handler that, say, closes another client may start that client's coroutine from within its own."""
            outer, spare = _current_tasks.pop(self.loop), self._spare
            self._spare = _LateTask(self.loop)
            try:
                return self.start(coroutine, context)
            finally:
                _current_tasks[self.loop] = outer
                self._spare = spare

        def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
            return _Repeated(self, turns).take

    class _Repeated:
        """As `_InTasks.start` for the turns of one generator, with a spare task of its own."""

        __slots__ = ("_loop", "_runner", "_send", "_task", "_turns")

        def __init__(self, runner: _InTasks, turns: Turns) -> None:
            self._runner = runner
            self._loop = runner.loop
            self._turns = turns
            self._renew()

        def _renew(self) -> None:
            generator = self._turns(None)
            next(generator)
            self._send = generator.send
            self._task = _LateTask(self._loop)
            self._task._coro = generator  # noqa: SLF001 - as above

        def take(self, turn: Any, context: Context) -> Running | None:
            loop = self._loop
            if loop in _current_tasks:
                return self._runner.start(cast("Coroutine[Any, Any, None]", self._turns(turn)), context)
            if self._task.touched:  # as above
                self._renew()
            task = _current_tasks[loop] = self._task
            try:
                yielded = context.run(self._send, turn)
            except BaseException as error:
                del _current_tasks[loop]
                self._renew()
                if isinstance(error, StopIteration):
                    return None
                raise
            del _current_tasks[loop]
            if yielded is READY:
                return None
            self._renew()
            task.begin(task._coro, yielded, context)  # noqa: SLF001
            return task


_runners: list[_InTasks] = []
