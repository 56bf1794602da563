"""
Runners of handlers' coroutines: each runs at once as far as it goes, and on from there when what it awaits is done.

Laws:

* One function may await Deferreds and asyncio awaitables alike, ``asyncio.timeout`` and ``TaskGroup`` included.
  Without a running asyncio loop (``--reactor epoll``, tests on a fake clock) Deferreds work all the same.
* A coroutine that never really suspends costs no task and no trip through the loop. ``asyncio`` insists on a
  *current task* from the first step on, so the first step runs inside one: on Python 3.12 and newer by
  ``eager_start`` (:mod:`~mtserver.concurrency.coroutines.eager_tasks`); on 3.11 inside an unstarted task that is used
  again if the coroutine ends right there, and that becomes its own if it does not
  (:mod:`~mtserver.concurrency.coroutines.reused_tasks`; 0.5 microseconds against 5 for a task per message).
* mtserver's own awaitables are :class:`Promise` objects; on 3.11, keeping one resumes the coroutine at once, without a
  future and a trip through the loop.

Code that is run again and again, and seldom suspends, need not even be a coroutine each time: see :data:`Turns`.
"""

from __future__ import annotations

import asyncio
import sys

from mtserver.concurrency.coroutines.deferreds import DeferredRunner
from mtserver.concurrency.coroutines.promise import Promise
from mtserver.concurrency.coroutines.runner import READY, Runner, Running, Turns

if sys.version_info >= (3, 12):
    from mtserver.concurrency.coroutines.eager_tasks import TaskRunner
else:
    from mtserver.concurrency.coroutines.reused_tasks import TaskRunner

__all__ = ["READY", "Promise", "Runner", "Running", "Turns", "current", "runner"]

_runners: list[TaskRunner] = []


def runner() -> Runner:
    """Return the runner for the loop that runs in the calling thread, or for a reactor without an asyncio loop."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return DeferredRunner
    if not _runners or _runners[-1].loop is not loop:
        _runners[:] = [TaskRunner(loop)]
    return _runners[-1]


def current() -> object:
    """Return the task that the caller runs in; where there is none, an object to which nobody has a reference."""
    return (asyncio.current_task() if asyncio._get_running_loop() is not None else None) or object()
