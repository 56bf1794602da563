"""The event loop: chosen where nobody else has, and on a clock that does not jump."""

from __future__ import annotations

import contextvars
import errno
import os
import subprocess
import sys
import threading
import time
from typing import Any
from unittest import SkipTest

from twisted.internet.protocol import ProcessProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mtserver.transport import reactor
from tests import DEADLINE
from tests.uvcase import OnUV

PROGRAM = """
import sys
from twisted.logger import formatEvent, globalLogPublisher
said = []
globalLogPublisher.addObserver(lambda event: said.append(formatEvent(event)))
from mtserver.transport import reactor
{first}
assert reactor.install()
from twisted.internet import reactor as r
print(type(r).__name__, type(r._asyncioEventloop).__module__.partition(".")[0])
{then}
print(*[text for text in said if "loop" in text], sep="\\n")
"""

#: Windows as far as it matters: asyncio's loop there is one that Twisted refuses.
WINDOWS = """
import asyncio
from twisted.internet import asyncioreactor
sys.modules["uvloop"] = None
sys.platform = "win32"
asyncio.ProactorEventLoop = type("ProactorEventLoop", (asyncio.SelectorEventLoop,), {})
asyncio.new_event_loop = asyncio.ProactorEventLoop
"""

#: Processes by way of asyncio and of Twisted, in turns. The latter's have no pipes, whose end would tell of theirs.
BESIDE = """
import asyncio
from mtserver.transport import reactor
reactor.install()
from twisted.internet import defer, protocol, reactor as r

class Child(protocol.ProcessProtocol):
    def processEnded(self, reason):
        self.ended.callback(reason.value.exitCode)

async def main():
    for _ in range(2):
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
        print("asyncio", await process.wait())
        child = Child()
        child.ended = defer.Deferred()
        r.spawnProcess(child, "/bin/sh", ["/bin/sh", "-c", "/bin/sleep 0.2; exit 4"], {}, childFDs={})
        print("Twisted", await child.ended.asFuture(r.loop))
    r.stop()

r.callWhenRunning(lambda: r.loop.create_task(main()))
r.run()
"""


def _installed(first: str = "", then: str = "") -> list[str]:
    """Install a reactor in a new process; print its type, what `then` says, and what was logged of loops."""
    program = PROGRAM.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


class Choice(SynchronousTestCase):
    def test_installed_already(self) -> None:
        """Where there is a reactor, it stays."""
        from twisted.internet import reactor as installed

        self.assertFalse(reactor.install())
        self.assertIs(sys.modules["twisted.internet.reactor"], installed)

    def test_install(self) -> None:
        """Where there is none it becomes the reactor on uvloop, which asyncio's own functions find too."""
        then = "import asyncio; print(asyncio.get_event_loop() is r.loop)"
        self.assertEqual(_installed(then=then), ["UVReactor uvloop", "True", ""])

    def test_without_uvloop(self) -> None:
        """Without uvloop asyncio's own loop serves, and that is said in one line."""
        self.assertEqual(
            _installed("sys.modules['uvloop'] = None"),
            [
                "AsyncioSelectorReactor asyncio",
                "uvloop is not installed: serving on asyncio's own loop, several times as slow",
            ],
        )

    def test_windows(self) -> None:
        """The loop on Windows is the one of asyncio's that Twisted can use."""
        self.assertEqual(_installed(WINDOWS)[0], "AsyncioSelectorReactor asyncio")


class Time(SynchronousTestCase):
    def test_steady(self) -> None:
        """A reactor without timers is set on the monotonic clock; one that has some keeps its own."""
        fresh: Any = MemoryReactorClock()
        reactor.steady(fresh)
        self.assertIs(fresh.seconds, time.monotonic)
        timed: Any = MemoryReactorClock()
        timed.callLater(1, lambda: None)
        reactor.steady(timed)
        self.assertIsNot(timed.seconds, time.monotonic)


class Variables(SynchronousTestCase):
    def test_impersonal(self) -> None:
        """Calls by a timer have the context variables of the start, whoever set it and whatever the last one did."""
        variable = contextvars.ContextVar("variable", default="none")
        seen: list[str] = []

        class Asyncio:
            def _onTimer(self) -> None:
                seen.append(variable.get())
                variable.set("left behind")
                if len(seen) == 1:
                    self._onTimer()  # as by iterate() in a call

        variable.set("start")
        made = Asyncio()
        reactor.impersonal(made)
        variable.set("handler")
        made._onTimer()
        made._onTimer()
        self.assertEqual((seen, variable.get()), (["start"] * 3, "handler"))

    def test_others(self) -> None:
        """A reactor without such a timer is left alone."""
        other: Any = MemoryReactorClock()
        before = vars(other).copy()
        reactor.impersonal(other)
        self.assertEqual(vars(other), before)


class Reactor(OnUV, SynchronousTestCase):
    """The uv reactor, where it differs from Twisted's."""

    def test_time_begins_at_the_clock(self) -> None:
        """The reactor's time begins at the wall clock's, for programs that take it for that."""
        self.patch(time, "time", lambda: 1_000_000_000.0)
        self.assertEqual(int(self.reactorFactory().seconds() / 3600), 1_000_000_000 // 3600)

    def test_time_does_not_jump(self) -> None:
        """The reactor's time goes on while the wall clock is set, forward or back."""
        made = self.reactorFactory()
        for jump in (-3600, 3600):
            before = made.seconds()
            now = time.time() + jump
            self.patch(time, "time", lambda now=now: now)
            self.assertGreaterEqual(made.seconds(), before)
            self.assertLess(made.seconds(), before + 1800)

    def test_from_thread(self) -> None:
        """Calls from a thread are made in their order, in the loop's; one that raises is logged and hinders none."""
        made = self.buildReactor()
        called: list[Any] = []

        def call(number: int, *, kind: str) -> None:
            called.append((number, kind, threading.current_thread()))
            raise ZeroDivisionError

        def run() -> None:
            for number in range(3):
                made.callFromThread(call, number, kind="x")
            made.callFromThread(made.stop)

        thread = threading.Thread(target=run)
        made.callWhenRunning(thread.start)
        self.runReactor(made)
        thread.join()
        self.assertEqual(called, [(number, "x", threading.current_thread()) for number in range(3)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def _waits_for_process(self) -> None:
        """The end of a process that has no pipe which would tell of it."""
        made = self.buildReactor()
        ended: list[Any] = []

        class Child(ProcessProtocol):
            def processEnded(self, reason: Failure) -> None:
                ended.append(reason.value)
                made.stop()

        shell = ["/bin/sh", "-c", "exit 4"]
        made.callWhenRunning(made.spawnProcess, Child(), shell[0], shell, {}, childFDs={})
        self.runReactor(made, timeout=DEADLINE)
        self.assertEqual([each.exitCode for each in ended], [4])

    def test_process(self) -> None:
        """The end of a process is noticed."""
        self._waits_for_process()

    def test_process_without_descriptor(self) -> None:
        """The same where there are no descriptors of processes, or none are left."""

        def refuse(_: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        if hasattr(os, "pidfd_open"):
            self.patch(os, "pidfd_open", refuse)
        self._waits_for_process()

    def test_process_beside_asyncios(self) -> None:
        """The same when a process was started by way of asyncio before: uvloop has kept SIGCHLD for itself since."""
        if not hasattr(os, "pidfd_open"):
            raise SkipTest("needs Linux: there SIGCHLD can be done without")
        command = [sys.executable, "-c", BESIDE]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
        self.assertEqual(done.stdout, "asyncio 3\nTwisted 4\n" * 2)
