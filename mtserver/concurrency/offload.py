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

__all__ = ["Offload", "Promise", "awaitable", "done", "own_worker", "poster", "to_process", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")

_offices: list[Offload] = []


async def to_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call `function` in a worker thread and wait for its result, or its exception, without stopping anyone else.

    It sees the caller's contextvars, as with ``asyncio.to_thread``. There are ``--threads`` of them. Where the caller
    is cancelled, or has a timeout, a call that has not begun never will; one that has goes on, and nobody waits for it.
    """
    context = contextvars.copy_context()
    result: T = await _current().in_thread(lambda: context.run(function, *args, **kwargs))
    return result


async def to_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call `function` in another process and wait for its result, or its exception: for work that keeps a processor busy.

    The pool (a process per processor) starts on first use and ends with the server. Function, arguments and result
    are pickled, so the function is one of a module. A worker that dies raises
    ``concurrent.futures.process.BrokenProcessPool`` for the calls it had; later calls get new threads.
    """
    result: T = await _current().in_process(function, *args, **kwargs)
    return result


def own_worker(name: str) -> Threads:
    """A thread for something that must not share its own, such as the writer of a journal; its caller stops it."""
    return _current().own_worker(name)


def awaitable(outcome: Future[T]) -> Awaitable[T]:
    """What a handler can await until `outcome`, which another thread sets, is there."""
    return _current().awaitable(outcome)


def poster() -> Callable[..., None]:
    """What brings calls from any thread to the loop: ``post(call, *args)``, many for one wake-up."""
    return _current().post


def done() -> Promise[None]:
    """What can be awaited and is there already."""
    promise: Promise[None] = Promise()
    promise.keep(None)
    return promise


def _current() -> Offload:
    if not _offices:
        raise RuntimeError("to_thread and to_process work inside a running mtserver, or a Harness")
    return _offices[-1]


class Offload:
    """
    The threads and processes of one server. The newest that was entered serves :func:`to_thread` and the other.

    :param loop_calls: brings results back to the loop.
    :param threads: its own, not those of plain handlers: a handler that never returns must not starve these.
    :param in_place: run what should go to another process, or a thread of its own, here instead; for tests.
    """

    def __init__(self, loop_calls: LoopCalls, threads: Threads, *, in_place: bool = False) -> None:
        self.post = loop_calls.post
        self._threads = threads
        self._in_place = in_place
        self._processes: Executor | None = None

    def enter(self) -> None:
        """Become the one that the two functions use."""
        _offices.append(self)

    def leave(self) -> None:
        """Stop being it."""
        _offices.remove(self)

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        """An awaitable of `call`'s result, computed by a worker thread."""
        outcome: Future[T] = Future()

        def job() -> None:
            if not outcome.set_running_or_notify_cancel():
                return  # nobody waits for it any more, and others may
            try:
                outcome.set_result(call())
            except BaseException as error:  # whatever it is, it belongs to the caller
                outcome.set_exception(error)

        self._threads.submit(job)
        return self.awaitable(outcome, outcome.cancel)

    def in_process(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """An awaitable of `function`'s result, computed by a worker process."""
        if self._in_place:
            return self.in_thread(lambda: function(*args, **kwargs))
        if self._processes is None:
            # Not fork: the loop, its threads and its descriptors do not survive being copied.
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(mp_context=context, initializer=_ignore_interrupt)
        try:
            outcome = self._processes.submit(function, *args, **kwargs)
        except BrokenProcessPool:
            self._end_processes()
            return self.in_process(function, *args, **kwargs)
        return self.awaitable(outcome, outcome.cancel)

    def awaitable(self, outcome: Future[T], cancelled: Callable[[], Any] | None = None) -> Awaitable[T]:
        """`outcome`, to be awaited in the loop; `cancelled` is called if whoever waited was cancelled."""
        promise: Promise[T] = Promise(cancelled)
        outcome.add_done_callback(lambda outcome: self.post(_arrived, promise, outcome))
        return promise

    def own_worker(self, name: str) -> Threads:
        """See :func:`own_worker`."""
        return InPlace() if self._in_place else ThreadPool(1, name)

    def waiting(self) -> bool:
        """Whether calls wait for a free thread. May be a moment old."""
        return self._threads.waiting()

    def stop(self) -> None:
        """End threads as they become free, and processes now."""
        self._threads.stop()
        self._end_processes()

    def _end_processes(self) -> None:
        executor, self._processes = self._processes, None
        if executor is None:
            return
        # concurrent.futures would wait for a function that never returns, and with it the end of this process.
        # Python 3.14 has terminate_workers() for it; before, the workers are a private dictionary.
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
        # Neither a future nor a coroutine can carry it.
        return RuntimeError(f"StopIteration({error.value!r}) left the function")
    return error


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole process group; the server decides when its threads end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
