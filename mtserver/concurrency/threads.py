"""
Threads for calls that may block: plain ``def`` handlers, ``to_thread``, the journal.

Why not ``deferToThread``: it costs a Deferred and a wake-up of the loop per message (17k messages/s against 930k for
one hand-off per loop iteration). Why not ``concurrent.futures``: its threads are joined when the process ends, so one
handler that never returns would keep a stopped server alive for ever. These are daemon threads; a graceful stop waits
for them as long as ``--drain-timeout`` says, and no longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

Job = Callable[[], None]


class Threads(Protocol):
    """A pool of threads, in which jobs run that may block."""

    def submit(self, *jobs: Job) -> None:
        """Run each job once a thread is free. A job reports its outcome by itself, and must not raise."""
        ...

    def waiting(self) -> bool:
        """Whether jobs wait for a free thread; the answer may be a moment old."""
        ...

    def stop(self) -> None:
        """Take no more jobs, and let each thread end after the job it has."""
        ...


class ThreadPool:
    """
    Up to `size` daemon threads, each started when it is first needed, so that a fork before that is harmless.

    :param name: begins the names of its threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0

    def submit(self, *jobs: Job) -> None:
        with self._lock:
            for job in jobs:
                self._jobs.put(job)
            woken = min(self._idle, len(jobs))
            self._idle -= woken
            first = self._started + 1
            self._started = min(self._size, self._started + len(jobs) - woken)
            numbers = range(first, self._started + 1)
        for number in numbers:
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()

    def waiting(self) -> bool:
        return not self._jobs.empty()

    def stop(self) -> None:
        with self._lock:
            for _ in range(self._started):
                self._jobs.put(None)
            self._size = self._started  # no new thread for a late job, whose result nobody waits for

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            if self._jobs.empty():
                with self._lock:
                    if self._jobs.empty():
                        self._idle += 1


class InPlace:
    """A pool without threads, for tests: each job runs in the caller's thread, so that no test waits for another."""

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            job()

    def waiting(self) -> bool:
        return False

    def stop(self) -> None:
        """Do nothing: there are no threads."""
