"""Work that leaves the loop: to a thread, to another process, and back."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import mtserver
from mtserver.concurrency import coroutines
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload, _ignore_interrupt, awaitable, own_thread, to_process, to_thread
from mtserver.concurrency.threads import InPlace, ThreadPool, Threads

#: Seconds after which something that must happen never will. No test waits so long unless it fails.
NEVER = 60.0


@implementer(IReactorFromThreads)
class Reactor:
    """A loop without asyncio: runs what other threads ask for, one call at a time, when the test says so."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Twisted's name
        self.asked.put(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Wait for one call and run it."""
        self.asked.get(timeout=NEVER)()


@implementer(IReactorFromThreads)
class AsyncioReactor:
    """asyncio's loop, as far as the hand-off is concerned."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Twisted's name
        self.loop.call_soon_threadsafe(lambda: callable(*args, **kwargs))


def stop_iteration() -> None:
    raise StopIteration(5)


class OffloadCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()

    def entered(self, threads: Threads | None = None, *, in_place: bool = False, reactor: Any = None) -> Offload:
        offload = Offload(LoopCalls(reactor or self.reactor), threads or InPlace(), in_place=in_place)
        offload.enter()
        self.addCleanup(offload.leave)
        self.addCleanup(offload.stop)
        return offload

    def result(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine without an asyncio loop; return or raise what it does."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            outcome: list[Any] = []
            ensureDeferred(coroutine).addBoth(outcome.append)
            while not outcome:
                self.reactor.turn()
        finally:
            asyncio._set_running_loop(outer)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]


class ToThread(OffloadCase):
    def test_result(self) -> None:
        """to_thread gives the function its arguments, and its caller the result, from another thread."""
        self.entered(ThreadPool(1, "offload"))
        self.assertEqual(self.result(to_thread(divmod, 7, 3)), (2, 1))
        self.assertEqual(self.result(to_thread(sorted, [1, 2], reverse=True)), [2, 1])
        names = self.result(to_thread(lambda: threading.current_thread().name))
        self.assertEqual(names, "offload-1")

    def test_exception(self) -> None:
        """An exception of the function is raised where it is awaited, whatever it is."""
        self.entered(ThreadPool(1, "offload"))
        self.assertRaises(ZeroDivisionError, self.result, to_thread(divmod, 1, 0))
        self.assertRaises(SystemExit, self.result, to_thread(sys.exit))

    def test_stop_iteration(self) -> None:
        """StopIteration, which no coroutine can be given, arrives as a RuntimeError that says so."""
        self.entered()
        error = self.assertRaises(RuntimeError, self.result, to_thread(stop_iteration))
        self.assertEqual(str(error), "StopIteration(5) left the function")

    def test_on_asyncio(self) -> None:
        """Any task on asyncio's loop can await a call: results, errors, and StopIteration."""

        async def main() -> None:
            self.entered(ThreadPool(2, "offload"), reactor=AsyncioReactor())
            async with asyncio.timeout(NEVER):
                results = await asyncio.gather(
                    to_thread(divmod, 7, 3),
                    asyncio.create_task(to_thread(divmod, 1, 0)),
                    to_thread(stop_iteration),
                    return_exceptions=True,
                )
            self.assertEqual(results[0], (2, 1))
            self.assertIsInstance(results[1], ZeroDivisionError)
            self.assertIsInstance(results[2], RuntimeError)

        asyncio.run(main())

    def test_public(self) -> None:
        """Both functions stand in the package itself."""
        self.assertIs(mtserver.to_thread, to_thread)
        self.assertIs(mtserver.to_process, to_process)

    def test_cancelled_before_it_began(self) -> None:
        """A call whose caller was cancelled, or had a timeout, before it began never runs; the others do."""
        jobs: list[Any] = []
        ran: list[int] = []

        class Later(InPlace):
            def submit(self, *submitted: Any) -> None:
                jobs.extend(submitted)

        async def main() -> None:
            self.entered(Later(), reactor=AsyncioReactor())
            tasks = [asyncio.create_task(to_thread(ran.append, number)) for number in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await to_thread(ran.append, 3)
            self.assertEqual(len(jobs), 4)
            for job in jobs:
                job()
            await asyncio.wait(tasks)

        asyncio.run(main())
        self.assertEqual(ran, [1, 2])

    def test_in_deferreds(self) -> None:
        """A call can be awaited where Twisted runs the coroutine, on asyncio's loop too."""

        async def main() -> None:
            self.entered(ThreadPool(2, "offload"), reactor=AsyncioReactor())
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(NEVER):
                deferreds = [ensureDeferred(to_thread(divmod, number, 3)) for number in range(5)]
                both = gatherResults(deferreds).asFuture(loop)
                self.assertEqual(await both, [divmod(number, 3) for number in range(5)])
                failed = ensureDeferred(to_thread(divmod, 1, 0)).asFuture(loop)
                with self.assertRaises(ZeroDivisionError):
                    await failed
                cancelled = ensureDeferred(to_thread(divmod, 1, 1))
                cancelled.cancel()
                self.failureResultOf(cancelled, CancelledError)

        asyncio.run(main())

    def test_in_a_loop_of_ones_own(self) -> None:
        """A thread that runs an asyncio loop of its own can await it there."""

        async def main() -> None:
            self.entered(ThreadPool(2, "offload"), reactor=AsyncioReactor())
            async with asyncio.timeout(NEVER):
                result = await asyncio.to_thread(lambda: asyncio.run(to_thread(divmod, 7, 3)))
            self.assertEqual(result, (2, 1))

        asyncio.run(main())


class Waiting(OffloadCase):
    """A coroutine that waits may be gone when the result arrives."""

    def test_cancelled_deferred(self) -> None:
        """A handler that was cancelled without a loop is not bothered by the result, and nobody else is."""
        self.entered()
        outcome: Future[str] = Future()
        ended: list[Any] = []

        async def waiting() -> None:
            await awaitable(outcome)

        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            runner = coroutines.runner()
            running = runner.start(waiting(), contextvars.copy_context())
            assert running is not None
            runner.when_done(running, ended.append)
            running.cancel()
            outcome.set_result("late")
            self.reactor.turn()
        finally:
            asyncio._set_running_loop(outer)
        self.assertEqual(len(ended), 1)
        self.assertIsInstance(ended[0], asyncio.CancelledError)

    def test_cancelled_future(self) -> None:
        """The same on asyncio's loop."""

        async def main() -> None:
            reactor = Reactor()
            self.entered(reactor=reactor)
            outcome: Future[str] = Future()
            task = asyncio.ensure_future(awaitable(outcome))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            outcome.set_result("late")
            reactor.turn()
            self.assertTrue(task.cancelled())

        asyncio.run(main())

    def test_cancelled_outcome(self) -> None:
        """Work that was cancelled, as a pool that ends does, cancels who waits for it."""

        def cancelled() -> Future[None]:
            outcome: Future[None] = Future()
            outcome.cancel()
            return outcome

        async def main() -> None:
            reactor = Reactor()
            self.entered(reactor=reactor)
            future: Any = awaitable(cancelled())
            reactor.turn()
            with self.assertRaises(asyncio.CancelledError):
                await future

        asyncio.run(main())
        self.entered()
        deferred = self.on_no_loop(lambda: awaitable(cancelled()))
        self.reactor.turn()
        self.failureResultOf(deferred, asyncio.CancelledError)

    def test_failed_outcome(self) -> None:
        """An exception that another thread sets is raised where it is awaited."""
        self.entered()
        outcome: Future[None] = Future()
        deferred = self.on_no_loop(lambda: awaitable(outcome))
        self.assertNoResult(deferred)
        outcome.set_exception(ZeroDivisionError())
        self.assertNoResult(deferred)
        self.reactor.turn()
        self.failureResultOf(deferred, ZeroDivisionError)

    def on_no_loop(self, call: Callable[[], Any]) -> Deferred[Any]:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)

        async def wait() -> Any:
            return await call()

        try:
            return Deferred.fromCoroutine(wait())
        finally:
            asyncio._set_running_loop(outer)


class Servers(OffloadCase):
    def test_outside(self) -> None:
        """Outside of a server both say what they need."""
        self.patch(sys.modules["mtserver.concurrency.offload"], "_entered", [])
        for coroutine in (to_thread(divmod, 1, 1), to_process(divmod, 1, 1)):
            error = self.assertRaises(RuntimeError, coroutine.send, None)
            self.assertIn("inside a running mtserver, or a Harness", str(error))

    def test_newest(self) -> None:
        """The newest of several servers in one process serves; when it has gone, the one before."""
        names = []

        class Named(InPlace):
            def __init__(self, name: str) -> None:
                self.name = name

            def submit(self, *jobs: Callable[[], None]) -> None:
                names.append(self.name)
                super().submit(*jobs)

        self.entered(Named("old"))
        newest = Offload(LoopCalls(self.reactor), Named("new"))
        newest.enter()
        self.result(to_thread(divmod, 1, 1))
        newest.leave()
        self.result(to_thread(divmod, 1, 1))
        self.assertEqual(names, ["new", "old"])

    def test_own_thread(self) -> None:
        """A worker of one's own is a pool of one thread; in a test it is the test."""
        self.entered()
        worker = own_thread("journal")
        self.addCleanup(worker.stop)
        self.assertIsInstance(worker, ThreadPool)
        names: SimpleQueue[str] = SimpleQueue()
        worker.submit(lambda: names.put(threading.current_thread().name))
        self.assertEqual(names.get(timeout=NEVER), "journal-1")
        self.entered(in_place=True)
        self.assertIsInstance(own_thread("journal"), InPlace)

    def test_stop(self) -> None:
        """Stopping stops the workers, also where no process was ever needed, and twice does no harm."""
        stopped = []

        class Noted(InPlace):
            def stop(self) -> None:
                stopped.append(1)

        offload = Offload(LoopCalls(self.reactor), Noted())
        offload.stop()
        offload.stop()
        self.assertEqual(stopped, [1, 1])


class Processes(OffloadCase):
    def test_in_place(self) -> None:
        """The function of a test runs in its process, and what cannot be pickled will do."""
        self.entered(in_place=True)
        self.assertEqual(self.result(to_process(lambda: (os.getpid(), 1))), (os.getpid(), 1))

    def test_life(self) -> None:
        """
        Work runs in another process, its errors come back; a worker that dies costs only what it had; a stop ends all.
        """
        offload = self.entered()
        self.assertIsNone(offload._processes)
        pid = self.result(to_process(os.getpid))
        self.assertNotEqual(pid, os.getpid())
        self.assertEqual(self.result(to_process(math.factorial, 20)), math.factorial(20))
        self.assertRaises(ValueError, self.result, to_process(math.factorial, -1))
        self.assertRaises(BrokenProcessPool, self.result, to_process(os._exit, 1))
        self.assertEqual(self.result(to_process(math.factorial, 5)), 120)
        offload.in_process(time.sleep, 3600)  # one that would keep its worker, and the end of the server, waiting
        children = multiprocessing.active_children()
        self.assertTrue(children)
        offload.stop()
        for child in children:
            child.join(NEVER)
            # The executor's own thread may be the one that has reaped it, and be just about to say so.
            for _ in range(100):
                if not child.is_alive():
                    break
                time.sleep(0.01)
            self.assertFalse(child.is_alive())
        self.assertIsNone(offload._processes)

    def test_interrupt(self) -> None:
        """Ctrl-C, which reaches the whole process group, does not end a worker."""
        before = signal.getsignal(signal.SIGINT)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        _ignore_interrupt()
        self.assertIs(signal.getsignal(signal.SIGINT), signal.SIG_IGN)
