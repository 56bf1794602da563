"""A journal under test: its threads are the test's own, and its loop turns when the test says so."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import InPlace
from mtserver.errors import Unavailable
from mtserver.journal import Batch, open_journal
from mtserver.journal.sqlite import file as file_module
from mtserver.settings import Settings


@implementer(IReactorFromThreads)
class ClockReactor(Clock):
    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Twisted's name
        self.callLater(0, callable, *args, **kwargs)


def opened(path: Path, **settings: Any) -> Any:
    return open_journal(Settings(journal=f"sqlite:{path}", **settings))


def started(awaitable: Awaitable[Any]) -> Deferred[Any]:
    """Return an awaitable's result as a Deferred."""

    async def wait() -> Any:
        return await awaitable

    return Deferred.fromCoroutine(wait())


class Later(InPlace):
    """A worker that is called when the test likes."""

    def __init__(self, jobs: list[Any]) -> None:
        self._jobs = jobs

    def submit(self, *jobs: Any) -> None:
        self._jobs.extend(jobs)


class JournalCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "journal.db"
        self.clock = ClockReactor()
        self.office = Offload(LoopCalls(self.clock), InPlace(), in_place=True)
        self.office.enter()
        self.addCleanup(self.office.leave)
        self.patch(file_module, "BUSY_TIMEOUT", 10)
        self.journal: Any = opened(self.path)
        self.addCleanup(self.close)

    def close(self) -> None:
        if self.journal is not None:
            self.result(self.journal.close())
            self.journal = None

    def result(self, awaitable: Any) -> Any:
        deferred = started(awaitable)
        self.clock.advance(0)
        return self.successResultOf(deferred)

    def append(self, *messages: bytes) -> list[int]:
        return list(self.result(self.journal.append(Batch(1.5, 7, "192.0.2.2:1", messages))).sequences)

    def assert_unavailable(self) -> None:
        deferred = started(self.journal.append(Batch(1.5, 7, "192.0.2.2:1", [b"lost"])))
        self.clock.advance(0)
        self.failureResultOf(deferred, Unavailable)

    def rows(self) -> list[Any]:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        self.addCleanup(connection.close)
        return list(connection.execute("SELECT seq, time, client, address, message FROM messages ORDER BY seq"))
