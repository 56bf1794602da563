"""
The runner for Python 3.11: first steps in a task that has not begun. All private names of 3.11 are used here alone.

asyncio wants a current task from a coroutine's first step on. So coroutines take their first steps, one after another,
in one :class:`ReusableTask`. A coroutine that suspends keeps the task, and the next gets a new one. In its task it
waits

* for a :class:`~mtserver.concurrency.coroutines.promise.Promise` as no task to anybody else: not scheduled, and not in
  ``asyncio.all_tasks()``;
* for anything else as an asyncio task, which it then stays.

Handlers must not notice, so a task serves another coroutine only if nobody has kept it, as its reference count tells. A
task that somebody has kept, or touched, is finished like any task whose coroutine has ended.

tests/test_coroutines.py runs every path on each Python version.
"""

from __future__ import annotations

import asyncio
from asyncio.futures import _get_loop  # type: ignore[attr-defined]
from asyncio.tasks import _current_tasks, _PyTask, _register_task  # type: ignore[attr-defined]
from collections.abc import Callable, Coroutine
from contextvars import Context
from sys import getrefcount
from typing import Any, cast

from mtserver.concurrency.coroutines.bridge import DeferredBridge, TouchMark, outcome_of
from mtserver.concurrency.coroutines.promise import Promise
from mtserver.concurrency.coroutines.runner import READY, Done, Running, Turns, ignore_end

#: References to a task that nobody else has kept, where they are counted: the runner's, a local name, getrefcount's.
_OWN_REFERENCES = 3
#: References to a task in which turns are taken: one more, its generator's.
_OWN_REFERENCES_WITH_TURNS = 4
#: Most tasks kept for turns to come, of some 700 bytes each.
SPARES = 1024


class ReusableTask(TouchMark, _PyTask):  # type: ignore[misc]
    """A task that has been made and not begun."""

    # Attributes of the class until they change, as in asyncio's own futures.
    _name = "mtserver-handler"
    _num_cancels_requested = 0
    _must_cancel = False
    _fut_waiter = None
    _log_destroy_pending = False
    _context: Context | None = None
    #: Whether its coroutine may await promises without a future.
    takes_promises = True
    #: List to which it returns after a turn that has suspended, to be used again.
    pool: list[ReusableTask] | None = None
    _done: Done = staticmethod(ignore_end)
    _args: tuple[Any, ...] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Any = None) -> None:
        super(_PyTask, self).__init__(loop=loop)
        self._coro = coroutine

    def finish(self, error: BaseException | None = None) -> None:
        """Become done, for those who have kept the task."""
        self._touched = None
        future: Any = super(_PyTask, self)
        if error is None:
            future.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
            self._Future__log_traceback = False  # reported by `done`
        # Closed, since a generator that is ready for another turn has a reference to this task.
        self._coro.close()

    def when_done(self, done: Done, *args: Any) -> None:
        """Call `done` at the end of the coroutine."""
        self._done = done
        self._args = args

    def begin(self, yielded: Any, context: Context) -> None:
        """Take over a coroutine whose first step has yielded an object."""
        self._context = context
        self._wait_for(yielded)

    def _wait_for(self, yielded: Any) -> None:
        if type(yielded) is Promise:
            self._fut_waiter = yielded
            yielded.then(self._resume)
            if self._must_cancel and yielded.cancel():
                self._must_cancel = False
        else:
            self._become_task(yielded)

    def _become_task(self, yielded: Any) -> None:
        self.takes_promises = False
        self._log_destroy_pending = True
        _register_task(self)
        _PyTask.add_done_callback(self, type(self)._task_ended)  # noqa: SLF001 - unbound, so no reference to the task
        coroutine, context = self._coro, self._context
        if (
            getattr(yielded, "_asyncio_future_blocking", False)
            and _get_loop(yielded) is self._loop
            and not self._must_cancel
            and yielded is not self
        ):
            # Usual: a future of this loop, to which a task's own first step would attach itself like this.
            self._coro = DeferredBridge(self._loop, coroutine)
            yielded._asyncio_future_blocking = False
            yielded.add_done_callback(self._Task__wakeup, context=context)
            self._fut_waiter = yielded
        else:
            self._coro = DeferredBridge(self._loop, coroutine, yielded)
            cast("Context", context).run(self._Task__step)

    def _resume(self) -> None:
        """Resume the coroutine after its promise is kept, broken or cancelled."""
        loop = self._loop
        if loop in _current_tasks:
            loop.call_soon(self._resume)
            return
        self._fut_waiter = None
        coroutine = self._coro
        step, value = coroutine.send, None
        if self._must_cancel:
            self._must_cancel = False
            step, value = coroutine.throw, asyncio.CancelledError()
        _current_tasks[loop] = self
        try:
            yielded = cast("Context", self._context).run(step, value)
        except BaseException as error:  # reported by `done`
            del _current_tasks[loop]
            self._end(None if isinstance(error, StopIteration) else error)
            return
        del _current_tasks[loop]
        if yielded is not READY:
            self._wait_for(yielded)
            return
        self._report_end(None)
        pool = self.pool
        if pool is not None and len(pool) < SPARES and getrefcount(self) <= _OWN_REFERENCES_WITH_TURNS:
            pool.append(self)
        else:
            self.finish()

    def _end(self, error: BaseException | None) -> None:
        self.finish(error)
        self._report_end(error)

    def _task_ended(self) -> None:
        """Report the end of a coroutine that has become an asyncio task."""
        self._touched = None
        self._coro.close()  # for the reason in `finish`
        self._report_end(outcome_of(self))

    def _report_end(self, error: BaseException | None) -> None:
        done, args = self._done, self._args
        del self._done, self._args
        self._context = None
        done(error, *args)


class TaskRunner:
    """Runs first steps in a shared task that has not begun; a coroutine that suspends keeps it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._spare = ReusableTask(loop)

    @staticmethod
    def when_done(running: ReusableTask, done: Done, *args: Any) -> None:
        running.when_done(done, *args)

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        # asyncio's _enter_task and _leave_task keep `_current_tasks`; they cost a call each.
        loop = self.loop
        if loop in _current_tasks:
            return self._start_within(coroutine, context)
        task = self._spare
        task._coro = coroutine  # noqa: SLF001 - also for a handler that prints its task
        _current_tasks[loop] = task
        try:
            yielded = context.run(coroutine.send, None)
        except BaseException as error:
            del _current_tasks[loop]
            ended = isinstance(error, StopIteration)
            if not ended or getrefcount(task) > _OWN_REFERENCES:
                self._spare = ReusableTask(loop)
                task.finish(None if ended else error)
            if ended:
                return None
            raise
        del _current_tasks[loop]
        self._spare = ReusableTask(loop)
        task.begin(yielded, context)
        return task

    def _start_within(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        """Start a coroutine from within another: a handler may, say, close another client."""
        outer, spare = _current_tasks.pop(self.loop), self._spare
        self._spare = ReusableTask(self.loop)
        try:
            return self.start(coroutine, context)
        finally:
            _current_tasks[self.loop] = outer
            self._spare = spare

    def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
        return _TurnTaker(self, turns).take


class _TurnTaker:
    """Takes turns in tasks that have a generator each, instead of a coroutine per turn."""

    __slots__ = ("_free", "_loop", "_runner", "_send", "_task", "_turns")

    def __init__(self, runner: TaskRunner, turns: Turns) -> None:
        self._runner = runner
        self._loop = runner.loop
        self._turns = turns
        #: Tasks whose turn has suspended and ended, and that nobody has kept.
        self._free: list[ReusableTask] = []
        self._renew()

    def _renew(self) -> None:
        if self._free:
            self._task = self._free.pop()
        else:
            self._task = ReusableTask(self._loop)
            generator = self._task._coro = self._turns(None, self._task)  # noqa: SLF001 - a task of this module
            next(generator)
            self._task.pool = self._free
        self._send = self._task._coro.send  # noqa: SLF001 - a task of this module

    def take(self, turn: Any, context: Context) -> Running | None:
        loop = self._loop
        if loop in _current_tasks:
            return self._runner.start(cast("Coroutine[Any, Any, None]", self._turns(turn, None)), context)
        task = _current_tasks[loop] = self._task
        try:
            yielded = context.run(self._send, turn)
        except BaseException as error:
            del _current_tasks[loop]
            self._renew()
            if isinstance(error, StopIteration):
                task.finish()
                return None
            task.finish(error)
            raise
        del _current_tasks[loop]
        if yielded is not READY:
            self._renew()
            task.begin(yielded, context)
            return task
        if getrefcount(task) > _OWN_REFERENCES_WITH_TURNS:
            self._renew()
            task.finish()
        return None
