"""
Work that leaves the event loop: a blocking call to a thread, CPU-bound work to a process.

::

    row = await mtserver.to_thread(cursor.fetchone)
    digest = await mtserver.to_process(scrypt, password)

Both may be awaited wherever a handler may await, also in tasks of its own and without an asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ParamSpec, TypeVar

from mtserver.concurrency.coroutines import Promise
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.threads import InPlace, ThreadPool, Threads

__all__ = ["Offload", "Promise", "awaitable", "done", "own_thread", "poster", "to_process", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")

_entered: list[Offload] = []


async def to_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call `function` in a thread and wait for its result, or its exception, without stopping anyone else.

    The function sees the caller's contextvars, as with ``asyncio.to_thread``. There are ``--threads`` threads. When the
    caller is cancelled, or its time is out, a call that has not begun never will; one that has goes on unattended.
    """
    context = contextvars.copy_context()
    result: T = await _current().in_thread(lambda: context.run(function, *args, **kwargs))
    return result


async def to_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call `function` in another process and wait for its result, or its exception: for work that keeps a processor busy.

    The pool (a process per processor) starts on first use and ends with the server. Function, arguments and result
    are pickled, so the function is one of a module. A process that dies raises
    ``concurrent.futures.process.BrokenProcessPool`` for the calls it had; later calls get new processes.
    """
    result: T = await _current().in_process(function, *args, **kwargs)
    return result


def own_thread(name: str) -> Threads:
    """Make a thread for work that must not share one, such as a journal's writer; the caller stops it."""
    return _current().own_thread(name)


def awaitable(outcome: Future[T]) -> Awaitable[T]:
    """Return an awaitable, for a handler, of an outcome that another thread sets."""
    return _current().awaitable(outcome)


def poster() -> Callable[..., None]:
    """Return the function that brings calls from any thread to the loop: ``post(call, *args)``."""
    return _current().post


def done() -> Promise[None]:
    """Return a promise that is kept already."""
    promise: Promise[None] = Promise()
    promise.keep(None)
    return promise


def _current() -> Offload:
    if not _entered:
        raise RuntimeError("to_thread and to_process work inside a running mtserver, or a Harness")
    return _entered[-1]


class Offload:
    """
    The threads and processes of one server. The last one entered serves :func:`to_thread` and :func:`to_process`.

    :param loop_calls: brings results back to the loop.
    :param threads: threads other than those of plain handlers: a handler that never returns must not starve these.
    :param in_place: call in the caller's thread what should go to a process, or to a thread of its own; for tests.
    """

    def __init__(self, loop_calls: LoopCalls, threads: Threads, *, in_place: bool = False) -> None:
        self.post = loop_calls.post
        self._threads = threads
        self._in_place = in_place
        self._processes: Executor | None = None

    def enter(self) -> None:
        """Begin to serve :func:`to_thread` and :func:`to_process`."""
        _entered.append(self)

    def leave(self) -> None:
        """Serve them no more."""
        _entered.remove(self)

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        """Return an awaitable of `call`'s result, computed by a thread."""
        outcome: Future[T] = Future()

        def job() -> None:
            if not outcome.set_running_or_notify_cancel():
                return  # the caller was cancelled
            try:
                outcome.set_result(call())
            except BaseException as error:  # of any kind: it is raised in the caller
                outcome.set_exception(error)

        self._threads.submit(job)
        return self.awaitable(outcome, outcome.cancel)

    def in_process(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Return an awaitable of `function`'s result, computed by a worker process."""
        if self._in_place:
            return self.in_thread(lambda: function(*args, **kwargs))
        if self._processes is None:
            # Spawned, not forked: the loop, its threads and its descriptors do not survive being copied.
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(mp_context=context, initializer=_ignore_interrupt)
        try:
            outcome = self._processes.submit(function, *args, **kwargs)
        except BrokenProcessPool:
            self._end_processes()
            return self.in_process(function, *args, **kwargs)
        return self.awaitable(outcome, outcome.cancel)

    def awaitable(self, outcome: Future[T], cancelled: Callable[[], Any] | None = None) -> Awaitable[T]:
        """Return an awaitable of `outcome`, for the loop; `cancelled` is called if the coroutine that waits is."""
        promise: Promise[T] = Promise(cancelled)
        outcome.add_done_callback(lambda outcome: self.post(_arrived, promise, outcome))
        return promise

    def own_thread(self, name: str) -> Threads:
        """Make a thread for :func:`own_thread`."""
        return InPlace() if self._in_place else ThreadPool(1, name)

    def waiting(self) -> bool:
        """Whether calls wait for a free thread; the answer may be a moment old."""
        return self._threads.waiting()

    def stop(self) -> None:
        """End threads as they become free, and processes now."""
        self._threads.stop()
        self._end_processes()

    def _end_processes(self) -> None:
        executor, self._processes = self._processes, None
        if executor is None:
            return
        # Terminated, since concurrent.futures, and with it the end of this process, would wait for a function that
        # never returns. Python 3.14 has terminate_workers() for it; before, the workers are a private dictionary.
        workers = list((getattr(executor, "_processes", None) or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()


def _arrived(promise: Promise[Any], outcome: Future[Any]) -> None:
    error = _error_of(outcome)
    if error is None:
        promise.keep(outcome.result())
    else:
        promise.fail(error)


def _error_of(outcome: Future[Any]) -> BaseException | None:
    if outcome.cancelled():
        return asyncio.CancelledError()
    error = outcome.exception()
    if isinstance(error, StopIteration):
        # Replaced, since neither a future nor a coroutine can carry a StopIteration.
        return RuntimeError(f"StopIteration({error.value!r}) left the function")
    return error


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole process group, but the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
