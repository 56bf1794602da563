"""The hand-off: from any thread to the loop, in order, many calls for one wake-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.errors import Refusal
from tests.logcase import LogCase

NEVER = 30.0


@implementer(IReactorFromThreads)
class Reactor:
    """Keeps what it is asked to call until the test lets it."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], Any]] = []

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002
        self.asked.append(lambda: callable(*args, **kwargs))

    def run(self) -> None:
        asked, self.asked = self.asked, []
        for call in asked:
            call()


def in_thread(call: Callable[[], Any]) -> Any:
    """The result of a call in a thread that has ended since."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join(NEVER)
    return results[0]


class Posting(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = Reactor()
        self.loop_calls = LoopCalls(self.reactor)
        self.calls: list[Any] = []

    def test_later(self) -> None:
        """A posted call runs in the loop, with its arguments, and not before."""
        self.loop_calls.post(lambda *args: self.calls.append(args), 1, "two")
        self.assertEqual(self.calls, [])
        self.reactor.run()
        self.assertEqual(self.calls, [(1, "two")])

    def test_refused(self) -> None:
        """A refusal in a call is a line, escaped, without a traceback; the calls behind it are called."""

        def refuse() -> None:
            raise Refusal("busy", "in 100 groups\nalready")

        self.loop_calls.post(refuse)
        self.loop_calls.post(self.calls.append, 1)
        self.reactor.run()
        self.assertEqual(self.calls, [1])
        self.assertEqual(self.logged(LogLevel.critical), [])
        self.assertEqual(self.logged(LogLevel.warn), [r"a call from a thread was refused: in 100 groups\nalready"])

    def test_one_wake_up(self) -> None:
        """However much is posted meanwhile, the loop is woken once, and runs all of it in order."""
        for number in range(100):
            self.loop_calls.post(self.calls.append, number)
        self.assertEqual(len(self.reactor.asked), 1)
        self.reactor.run()
        self.assertEqual(self.calls, list(range(100)))
        self.assertEqual(self.reactor.asked, [])

    def test_woken_again(self) -> None:
        """A call posted after that, also by one of the calls, wakes the loop again and runs in the next turn."""

        def again() -> None:
            self.calls.append("first")
            self.loop_calls.post(self.calls.append, "second")

        self.loop_calls.post(again)
        self.reactor.run()
        self.assertEqual(self.calls, ["first"])
        self.assertEqual(len(self.reactor.asked), 1)
        self.reactor.run()
        self.assertEqual(self.calls, ["first", "second"])

    def test_broken(self) -> None:
        """A call that raises is logged and costs the others nothing."""
        self.loop_calls.post(self.calls.append, 1)
        self.loop_calls.post(lambda: 1 / 0)
        self.loop_calls.post(self.calls.append, 2)
        self.reactor.run()
        self.assertEqual(self.calls, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_from_threads(self) -> None:
        """Calls posted by several threads at once are all called, each thread's in their order."""
        start = threading.Barrier(4)

        def post(name: int) -> None:
            start.wait(NEVER)
            for number in range(500):
                self.loop_calls.post(self.calls.append, (name, number))

        threads = [threading.Thread(target=post, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.reactor.run()  # the loop goes on meanwhile
        self.reactor.run()
        self.assertEqual(len(self.calls), 2000)
        for name in range(4):
            self.assertEqual([number for who, number in self.calls if who == name], list(range(500)))


class Threads(SynchronousTestCase):
    def test_before_the_loop(self) -> None:
        """Until the loop runs, no thread is another than its: nothing can go on at the same time."""
        loop_calls = LoopCalls(Reactor())
        self.assertFalse(loop_calls.has_loop)
        self.assertTrue(loop_calls.in_loop())
        self.assertTrue(in_thread(loop_calls.in_loop))

    def test_adopted(self) -> None:
        """Then the thread that said so is in the loop, and no other."""
        loop_calls = LoopCalls(Reactor())
        loop_calls.adopt_thread()
        self.assertTrue(loop_calls.has_loop)
        self.assertTrue(loop_calls.in_loop())
        self.assertFalse(in_thread(loop_calls.in_loop))
        in_thread(loop_calls.adopt_thread)
        self.assertFalse(loop_calls.in_loop())
