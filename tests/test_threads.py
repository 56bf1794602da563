"""Worker threads: real ones, which the tests meet at events and never wait for by the clock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mtserver.concurrency.threads import InPlace, ThreadPool
from mtserver.settings import default_threads

#: Seconds after which something that must happen never will. No test waits so long unless it fails.
NEVER = 30.0


class Pool(SynchronousTestCase):
    def pool(self, size: int) -> ThreadPool:
        pool = ThreadPool(size, "test")
        self.addCleanup(pool.stop)
        return pool

    def occupied(self, pool: ThreadPool, count: int = 1) -> threading.Event:
        """Has `count` workers wait; what is returned, set, lets them go on."""
        begun: SimpleQueue[None] = SimpleQueue()
        release = threading.Event()
        self.addCleanup(release.set)

        def job() -> None:
            begun.put(None)
            release.wait(NEVER)

        for _ in range(count):
            pool.submit(job)
            begun.get(timeout=NEVER)
        return release

    def done(self, pool: ThreadPool, call: Callable[[], Any]) -> Any:
        """The result of a call in a worker."""
        results: SimpleQueue[Any] = SimpleQueue()
        pool.submit(lambda: results.put(call()))
        return results.get(timeout=NEVER)

    def test_elsewhere(self) -> None:
        """A job runs in a daemon thread with a name of the pool's, not in the caller's."""
        thread = self.done(self.pool(1), threading.current_thread)
        self.assertIsNot(thread, threading.current_thread())
        self.assertEqual((thread.name, thread.daemon), ("test-1", True))

    def test_none_before_needed(self) -> None:
        """Threads start when jobs come, so a fork before that is harmless."""
        before = threading.active_count()
        pool = self.pool(10)
        self.assertEqual((threading.active_count(), pool._started), (before, 0))

    def test_reused(self) -> None:
        """A worker that waits for jobs gets the next one; no second thread is started."""
        pool = self.pool(10)
        idle = threading.Event()

        class Lock:
            """Tells when a worker has said that it is idle, which it does within the pool's lock."""

            def __init__(self, lock: Any) -> None:
                self.lock = lock

            def __enter__(self) -> None:
                self.lock.acquire()

            def __exit__(self, *_: object) -> None:
                if pool._idle:
                    idle.set()
                self.lock.release()

        pool._lock = Lock(pool._lock)  # type: ignore[assignment]
        threads = []
        for _ in range(5):
            threads.append(self.done(pool, threading.current_thread))
            self.assertTrue(idle.wait(NEVER))
            idle.clear()
        self.assertEqual(len(set(threads)), 1)
        self.assertEqual(pool._started, 1)

    def test_as_many_as_needed(self) -> None:
        """Jobs that wait for each other all run, as long as there are threads for them."""
        pool = self.pool(4)
        barrier = threading.Barrier(4)
        results: SimpleQueue[int] = SimpleQueue()
        for _ in range(4):
            pool.submit(lambda: results.put(barrier.wait(NEVER)))
        self.assertEqual({results.get(timeout=NEVER) for _ in range(4)}, {0, 1, 2, 3})

    def test_not_more(self) -> None:
        """No more threads than the size; what is over waits its turn, and all of it runs."""
        pool = self.pool(2)
        release = self.occupied(pool, 2)
        self.assertFalse(pool.waiting())
        results: SimpleQueue[int] = SimpleQueue()
        for number in range(100):
            pool.submit(lambda number=number: results.put(number))  # type: ignore[misc]
        self.assertTrue(pool.waiting())
        self.assertEqual(pool._started, 2)
        release.set()
        self.assertEqual({results.get(timeout=NEVER) for _ in range(100)}, set(range(100)))
        self.assertFalse(pool.waiting())

    def test_in_order(self) -> None:
        """One worker does its jobs in the order in which they came."""
        pool = self.pool(1)
        release = self.occupied(pool)
        results: SimpleQueue[int] = SimpleQueue()
        for number in range(100):
            pool.submit(lambda number=number: results.put(number))  # type: ignore[misc]
        release.set()
        self.assertEqual([results.get(timeout=NEVER) for _ in range(100)], list(range(100)))

    def test_from_many_threads(self) -> None:
        """Every job runs once, whoever submits it, and from however many threads at once."""
        pool = self.pool(3)
        results: SimpleQueue[int] = SimpleQueue()
        start = threading.Barrier(4)

        def submit(begin: int) -> None:
            start.wait(NEVER)
            for number in range(begin, begin + 250):
                pool.submit(lambda number=number: results.put(number))  # type: ignore[misc]

        submitters = [threading.Thread(target=submit, args=(begin,)) for begin in range(0, 1000, 250)]
        for thread in submitters:
            thread.start()
        self.assertEqual(sorted(results.get(timeout=NEVER) for _ in range(1000)), list(range(1000)))
        for thread in submitters:
            thread.join(NEVER)
            self.assertFalse(thread.is_alive())
        self.assertLessEqual(pool._started, 3)

    def test_stop(self) -> None:
        """After stop() each worker ends with the job it has, and with those that came before."""
        pool = ThreadPool(2, "stopping")
        release = self.occupied(pool, 2)
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("stopping-")]
        self.assertEqual(len(workers), 2)
        done: SimpleQueue[str] = SimpleQueue()
        pool.submit(lambda: done.put("accepted"))
        pool.stop()
        release.set()
        for worker in workers:
            worker.join(NEVER)
            self.assertFalse(worker.is_alive())
        self.assertEqual(done.get_nowait(), "accepted")

    def test_after_stop(self) -> None:
        """A job that comes after stop() starts no thread."""
        pool = self.pool(2)
        pool.stop()
        pool.submit(lambda: self.fail("it ran"))
        self.assertEqual(pool._started, 0)


class Others(SynchronousTestCase):
    def test_in_place(self) -> None:
        """InPlace runs a job where and when it is submitted; nothing ever waits."""
        workers, threads = InPlace(), []
        workers.submit(lambda: threads.append(threading.current_thread()))
        self.assertEqual(threads, [threading.current_thread()])
        self.assertFalse(workers.waiting())
        workers.stop()

    def test_default(self) -> None:
        """The count of threads is that of concurrent.futures: processors and 4, at most 32."""
        for processors, threads in ((1, 5), (4, 8), (28, 32), (29, 32), (500, 32), (None, 5)):
            self.patch(os, "cpu_count", lambda processors=processors: processors)
            self.assertEqual(default_threads(), threads)
