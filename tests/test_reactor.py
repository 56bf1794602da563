"""The event loop: chosen where nobody else has, and on a clock that does not jump."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mtserver import reactor


class Choice(SynchronousTestCase):
    def test_installed_already(self) -> None:
        """Where there is a reactor, it stays."""
        from twisted.internet import reactor as installed

        self.assertFalse(reactor.install())
        self.assertIs(sys.modules["twisted.internet.reactor"], installed)

    def test_install(self) -> None:
        """Where there is none it becomes the asyncio reactor, on uvloop where that is installed."""
        program = (
            "from mtserver import reactor\n"
            "assert reactor.install()\n"
            "from twisted.internet import reactor as r\n"
            "print(type(r).__name__, type(r._asyncioEventloop).__module__)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout, "AsyncioSelectorReactor uvloop\n")

    def test_without_uvloop(self) -> None:
        """Without uvloop asyncio's own loop serves; on Windows the one that Twisted can use."""
        self.addCleanup(sys.modules.__setitem__, "uvloop", importlib.import_module("uvloop"))
        sys.modules["uvloop"] = None  # type: ignore[assignment] # how Python spells "cannot be imported"
        loop, fast = reactor.new_loop()
        self.addCleanup(loop.close)
        self.assertFalse(fast)
        self.patch(sys, "platform", "win32")
        loop, fast = reactor.new_loop()
        self.addCleanup(loop.close)
        self.assertFalse(fast)


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
