"""
Python 3.11: first steps in a task that has not begun. The private names of 3.11 are here, all of them.

asyncio tells tasks by identity, from the first step on. So there is one, a :class:`ReusableTask`, in which coroutines
take their first steps, one coroutine after another; one that suspends keeps it, and the next gets a new one. There it
waits

* for a :class:`~mtserver.concurrency.coroutines.promise.Promise`, without being a task to anybody else: not scheduled,
  not in ``asyncio.all_tasks()``;
* for anything else as the asyncio task that it then is, for good.

Nobody may notice, so a task serves another coroutine only if nobody has kept it: that is what its reference count says.
One that somebody has kept, or has done something to, is finished as any task whose coroutine has ended.

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

from mtserver.concurrency.coroutines.bridge import Bridged, Marking, outcome_of
from mtserver.concurrency.coroutines.promise import Promise
from mtserver.concurrency.coroutines.runner import READY, Done, Running, Turns, nobody

#: References to a task that are not somebody's, where they are counted: the runner's, a local name, and getrefcount's.
_OURS = 3
#: With that of the generator whose turns are taken in it.
_OURS_AND_ITS = 4
#: Tasks kept for the next that have to wait, each of some 700 bytes.
SPARES = 1024


class ReusableTask(Marking, _PyTask):  # type: ignore[misc]
    """A task that has been made and not begun."""

    # Of the class until they change, as in asyncio's own futures.
    _name = "mtserver-handler"
    _num_cancels_requested = 0
    _must_cancel = False
    _fut_waiter = None
    _log_destroy_pending = False
    _context: Context | None = None
    #: Its coroutine may await promises without a future.
    takes_promises = True
    #: Where it goes when its turn is over, if it is not wanted any more.
    pool: list[ReusableTask] | None = None
    _done: Done = staticmethod(nobody)
    _args: tuple[Any, ...] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Any = None) -> None:
        super(_PyTask, self).__init__(loop=loop)
        self._coro = coroutine

    def finish(self, error: BaseException | None = None) -> None:
        """Be done, as seen by whoever has kept it."""
        self._marked = None
        future: Any = super(_PyTask, self)
        if error is None:
            future.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
            self._Future__log_traceback = False  # whoever waits for the coroutine is told
        # A generator that is ready for another turn holds us.
        self._coro.close()

    def when_done(self, done: Done, *args: Any) -> None:
        """As a runner's."""
        self._done = done
        self._args = args

    def begin(self, yielded: Any, context: Context) -> None:
        """Keep the coroutine whose first step has been taken, and has yielded this."""
        self._context = context
        self._wait_for(yielded)

    def _wait_for(self, yielded: Any) -> None:
        if type(yielded) is Promise:
            self._fut_waiter = yielded
            yielded.then(self._go_on)
            if self._must_cancel and yielded.cancel():
                self._must_cancel = False
        else:
            self._become_real(yielded)

    def _become_real(self, yielded: Any) -> None:
        self.takes_promises = False
        self._log_destroy_pending = True
        _register_task(self)
        _PyTask.add_done_callback(self, type(self)._report)  # noqa: SLF001 - ours, by way of no reference to it
        coroutine, context = self._coro, self._context
        if (
            getattr(yielded, "_asyncio_future_blocking", False)
            and _get_loop(yielded) is self._loop
            and not self._must_cancel
            and yielded is not self
        ):
            # The usual case, and what the first step of a task would come to.
            self._coro = Bridged(self._loop, coroutine)
            yielded._asyncio_future_blocking = False
            yielded.add_done_callback(self._Task__wakeup, context=context)
            self._fut_waiter = yielded
        else:
            self._coro = Bridged(self._loop, coroutine, yielded)
            cast("Context", context).run(self._Task__step)

    def _go_on(self) -> None:
        """The promise is kept, or broken, or cancelled."""
        loop = self._loop
        if loop in _current_tasks:
            loop.call_soon(self._go_on)
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
        except BaseException as error:  # reported to whoever waits for it
            del _current_tasks[loop]
            self._end(None if isinstance(error, StopIteration) else error)
            return
        del _current_tasks[loop]
        if yielded is not READY:
            self._wait_for(yielded)
            return
        self._let_go(None)
        pool = self.pool
        if pool is not None and len(pool) < SPARES and getrefcount(self) <= _OURS_AND_ITS:
            pool.append(self)
        else:
            self.finish()

    def _end(self, error: BaseException | None) -> None:
        self.finish(error)
        self._let_go(error)

    def _report(self) -> None:
        """It has ended as a task of asyncio's."""
        self._marked = None
        self._coro.close()  # as in `finish`
        self._let_go(outcome_of(self))

    def _let_go(self, error: BaseException | None) -> None:
        done, args = self._done, self._args
        del self._done, self._args
        self._context = None
        done(error, *args)


class InTasks:
    """First steps share a task that has not begun; a coroutine that suspends makes it its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._spare = ReusableTask(loop)

    @staticmethod
    def when_done(running: ReusableTask, done: Done, *args: Any) -> None:
        running.when_done(done, *args)

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> Running | None:
        # `_current_tasks` is the dictionary that asyncio's _enter_task and _leave_task keep.
        loop = self.loop
        if loop in _current_tasks:
            return self._start_within(coroutine, context)
        task = self._spare
        task._coro = coroutine  # noqa: SLF001 - also so that a handler can print the task it runs in
        _current_tasks[loop] = task
        try:
            yielded = context.run(coroutine.send, None)
        except BaseException as error:
            del _current_tasks[loop]
            ended = isinstance(error, StopIteration)
            if not ended or getrefcount(task) > _OURS:
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
        """A handler that, say, closes another client may start that client's coroutine from within its own."""
        outer, spare = _current_tasks.pop(self.loop), self._spare
        self._spare = ReusableTask(self.loop)
        try:
            return self.start(coroutine, context)
        finally:
            _current_tasks[self.loop] = outer
            self._spare = spare

    def repeated(self, turns: Turns) -> Callable[[Any, Context], Running | None]:
        return _Repeated(self, turns).take


class _Repeated:
    """As `InTasks.start` for turns, each in a task that has a generator of its own."""

    __slots__ = ("_free", "_loop", "_runner", "_send", "_task", "_turns")

    def __init__(self, runner: InTasks, turns: Turns) -> None:
        self._runner = runner
        self._loop = runner.loop
        self._turns = turns
        #: Those whose turn is over, of which nobody has kept anything.
        self._free: list[ReusableTask] = []
        self._renew()

    def _renew(self) -> None:
        if self._free:
            self._task = self._free.pop()
        else:
            self._task = ReusableTask(self._loop)
            generator = self._task._coro = self._turns(None, self._task)  # noqa: SLF001 - one of ours
            next(generator)
            self._task.pool = self._free
        self._send = self._task._coro.send  # noqa: SLF001 - one of ours

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
        if getrefcount(task) > _OURS_AND_ITS:
            self._renew()
            task.finish()
        return None
