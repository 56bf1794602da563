"""Running coroutines: on asyncio's loop, on uvloop's, and where there is none."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mtserver.concurrency.coroutines import READY, Promise, Running, runner
from mtserver.concurrency.coroutines.bridge import DeferredBridge
from mtserver.errors import HandlerError

uvloop: Any
try:
    import uvloop
except ImportError:  # absent on Windows and PyPy
    uvloop = None

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="outside")


class Run:
    """One coroutine that was started, and what became of it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], context: Context | None = None) -> None:
        self.ended: list[BaseException | None] = []
        self._waiter: asyncio.Future[None] | None = None
        if context is None:  # an empty one is false
            context = contextvars.copy_context()
        self.running: Running | None = runner().start(coroutine, context)
        if self.running is not None:
            runner().when_done(self.running, self._end)

    def _end(self, error: BaseException | None) -> None:
        self.ended.append(error)
        if self._waiter is not None:
            self._waiter.set_result(None)

    async def end(self) -> None:
        """Wait for it, in a test that runs on a loop."""
        if not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def cancel(self) -> None:
        assert self.running is not None
        self.running.cancel()


# The cases themselves are not a test case, so that neither runner runs them without a loop.
if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


class Everywhere(_Case):
    """Laws with and without an asyncio loop. A test is a coroutine function that never waits by itself."""

    def runs(self, test: Callable[[Callable[[], Any]], None]) -> None:
        """Call `test` with a function that lets everything happen that can."""
        raise NotImplementedError

    def test_ends_at_once(self) -> None:
        """A coroutine that never suspends has ended when start returns: no handle, and `done` is not called."""

        def test(settle: Callable[[], Any]) -> None:
            seen = []

            async def quick() -> None:
                seen.append(1)

            run = Run(quick())
            self.assertIsNone(run.running)
            self.assertEqual(seen, [1])
            settle()
            self.assertEqual(run.ended, [])

        self.runs(test)

    def test_raises_at_once(self) -> None:
        """An exception in the first step is raised by start, and nothing else happens."""

        def test(settle: Callable[[], Any]) -> None:

            async def broken() -> None:
                raise ZeroDivisionError

            for _ in range(3):
                self.assertRaises(ZeroDivisionError, runner().start, broken(), contextvars.copy_context())
            settle()

        self.runs(test)

    def test_fired(self) -> None:
        """A Deferred that has its result already suspends nobody."""

        def test(_settle: Callable[[], Any]) -> None:
            seen = []

            async def waiting() -> None:
                seen.append(await succeed("result"))
                try:
                    await fail(ValueError("failed"))
                except ValueError as error:
                    seen.append(str(error))

            self.assertIsNone(Run(waiting()).running)
            self.assertEqual(seen, ["result", "failed"])

        self.runs(test)

    def test_result(self) -> None:
        """A coroutine goes on with what its Deferred fires with, and `done` is told None at the end, once."""

        def test(settle: Callable[[], Any]) -> None:
            first, second, seen = Deferred[str](), Deferred[str](), []

            async def waiting() -> None:
                seen.append(await first)
                seen.append(await second)

            run = Run(waiting())
            self.assertIsNotNone(run.running)
            first.callback("one")
            settle()
            self.assertEqual((seen, run.ended), (["one"], []))
            second.callback("two")
            settle()
            self.assertEqual((seen, run.ended), (["one", "two"], [None]))

        self.runs(test)

    def test_chained(self) -> None:
        """A Deferred that waits for another is waited for until that has fired."""

        def test(settle: Callable[[], Any]) -> None:
            inner, seen = Deferred[str](), []
            outer: Deferred[Any] = succeed(None).addCallback(lambda _: inner)

            async def waiting() -> None:
                seen.append(await outer)

            run = Run(waiting())
            inner.callback("inner")
            settle()
            self.assertEqual((seen, run.ended), (["inner"], [None]))

        self.runs(test)

    def test_failure(self) -> None:
        """A Deferred's failure is raised where it is awaited; caught there, it is nobody's unhandled error."""

        def test(settle: Callable[[], Any]) -> None:
            deferred, seen = Deferred[None](), []

            async def waiting(deferred: Deferred[None]) -> None:
                try:
                    await deferred
                except ValueError as error:
                    seen.append(str(error))

            run = Run(waiting(deferred))
            deferred.errback(ValueError("failed"))
            settle()
            self.assertEqual((seen, run.ended), (["failed"], [None]))
            del deferred, run
            gc.collect()
            self.assertEqual(self.flushLoggedErrors(), [])

        self.runs(test)

    def test_shared_failure(self) -> None:
        """Two coroutines that wait for one Deferred are each raised its failure."""

        def test(settle: Callable[[], Any]) -> None:
            deferred, seen = Deferred[None](), []

            async def waiting(name: str) -> None:
                try:
                    await deferred
                except ValueError:
                    seen.append(name)

            runs = [Run(waiting("one")), Run(waiting("two"))]
            deferred.errback(ValueError("failed"))
            settle()
            self.assertEqual((seen, [run.ended for run in runs]), (["one", "two"], [[None], [None]]))

        self.runs(test)

    def test_shared_result(self) -> None:
        """Two coroutines that wait for one Deferred are each given its result."""

        def test(settle: Callable[[], Any]) -> None:
            deferred, seen = Deferred[str](), []

            async def waiting() -> None:
                seen.append(await deferred)

            runs = [Run(waiting()), Run(waiting())]
            deferred.callback("result")
            settle()
            self.assertEqual((seen, [run.ended for run in runs]), (["result", "result"], [[None], [None]]))

        self.runs(test)

    def test_raises_later(self) -> None:
        """An exception after the first step is given to `done`, the coroutine's own or its Deferred's."""

        def test(settle: Callable[[], Any]) -> None:
            own, others = Deferred[None](), Deferred[None]()

            async def waiting(deferred: Deferred[None]) -> None:
                await deferred
                raise ZeroDivisionError

            runs = [Run(waiting(own)), Run(waiting(others))]
            own.callback(None)
            others.errback(ValueError())
            settle()
            ((first,), (second,)) = [run.ended for run in runs]
            self.assertIsInstance(first, ZeroDivisionError)
            self.assertIsInstance(second, ValueError)

        self.runs(test)

    def test_cancel(self) -> None:
        """cancel() cancels the Deferred and raises CancelledError where the coroutine waits; `done` is told of it."""

        def test(settle: Callable[[], Any]) -> None:
            cancelled: list[Any] = []
            deferred, seen = Deferred[None](cancelled.append), []

            async def waiting() -> None:
                try:
                    await deferred
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    raise

            run = Run(waiting())
            run.cancel()
            settle()
            self.assertEqual((cancelled, seen), ([deferred], ["cancelled"]))
            self.assertIsInstance(run.ended[0], asyncio.CancelledError)
            self.assertEqual(len(run.ended), 1)
            gc.collect()
            self.assertEqual(self.flushLoggedErrors(), [])

        self.runs(test)

    def test_cancel_stubborn(self) -> None:
        """A coroutine that goes on after it was cancelled goes on, and may wait again."""

        def test(settle: Callable[[], Any]) -> None:
            first, second, seen = Deferred[str](), Deferred[str](), []

            async def waiting() -> None:
                try:
                    await first
                except asyncio.CancelledError:
                    seen.append(await second)

            run = Run(waiting())
            run.cancel()
            settle()
            second.callback("still here")
            settle()
            self.assertEqual((seen, run.ended), (["still here"], [None]))

        self.runs(test)

    def test_cancel_answered(self) -> None:
        """Cancelled, a Deferred may fire with a result; the coroutine is cancelled all the same."""

        def test(settle: Callable[[], Any]) -> None:
            deferred: Deferred[str] = Deferred(lambda deferred: deferred.callback("too late"))

            async def waiting() -> None:
                await deferred

            run = Run(waiting())
            run.cancel()
            settle()
            self.assertIsInstance(run.ended[0], asyncio.CancelledError)

        self.runs(test)

    def test_cancel_ended(self) -> None:
        """Cancelling what has ended does nothing."""

        def test(settle: Callable[[], Any]) -> None:
            deferred = Deferred[None]()

            async def waiting() -> None:
                await deferred

            run = Run(waiting())
            deferred.callback(None)
            settle()
            run.cancel()
            settle()
            self.assertEqual(run.ended, [None])

        self.runs(test)

    def test_deferred_cancelled(self) -> None:
        """Twisted's CancelledError, where somebody else cancels the Deferred, is an error like others."""

        def test(settle: Callable[[], Any]) -> None:
            deferred = Deferred[None]()

            async def waiting() -> None:
                await deferred

            run = Run(waiting())
            deferred.cancel()
            settle()
            self.assertIsInstance(run.ended[0], CancelledError)

        self.runs(test)

    def test_context(self) -> None:
        """Context variables are those of the context it was started in, at every step, and reach nobody else's."""

        def test(settle: Callable[[], Any]) -> None:
            deferred, seen = Deferred[None](), []

            async def waiting(name: str) -> None:
                VARIABLE.set(name)
                await deferred
                seen.append(VARIABLE.get())

            async def later() -> None:
                seen.append(VARIABLE.get())

            contexts = [contextvars.copy_context(), contextvars.copy_context()]
            runs = [Run(waiting(name), context) for name, context in zip("ab", contexts, strict=True)]
            deferred.callback(None)
            settle()
            self.assertEqual([run.ended for run in runs], [[None], [None]])
            Run(later(), contexts[0])
            self.assertEqual((seen, VARIABLE.get()), (["a", "b", "a"], "outside"))

        self.runs(test)

    def test_nested(self) -> None:
        """A coroutine may start another in its first step and later; each ends by itself."""

        def test(settle: Callable[[], Any]) -> None:
            gate, inner_gate, seen = Deferred[None](), Deferred[None](), []
            inner_runs: list[Run] = []

            async def quick(name: str) -> None:
                seen.append(name)

            async def slow() -> None:
                await inner_gate
                seen.append("slow")

            async def outer() -> None:
                Run(quick("one"), Context())
                inner_runs.append(Run(slow(), Context()))
                await gate
                Run(quick("two"), Context())
                inner_runs.append(Run(slow(), Context()))
                seen.append("outer")

            run = Run(outer())
            gate.callback(None)
            settle()
            self.assertEqual((seen, run.ended), (["one", "two", "outer"], [None]))
            inner_gate.callback(None)
            settle()
            self.assertEqual(seen, ["one", "two", "outer", "slow", "slow"])
            self.assertEqual([inner.ended for inner in inner_runs], [[None], [None]])

        self.runs(test)

    def test_turns(self) -> None:
        """Turns that end at once leave no handle; each gets its argument, and runs in its context."""

        def test(settle: Callable[[], Any]) -> None:
            seen = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    seen.append((turn, VARIABLE.get()))
                    if only:
                        return

            take = runner().repeated(turns)
            for turn in ("one", "two", "three"):
                context = contextvars.copy_context()
                context.run(VARIABLE.set, turn.upper())
                self.assertIsNone(take(turn, context))
            settle()
            self.assertEqual(seen, [("one", "ONE"), ("two", "TWO"), ("three", "THREE")])

        self.runs(test)

    def test_turns_that_suspend(self) -> None:
        """Some turns wait, others are taken meanwhile; each ends on its own, and has its context again."""

        def test(settle: Callable[[], Any]) -> None:
            gates = {"one": Deferred[None](), "three": Deferred[None]()}
            seen: list[Any] = []
            ended: list[Any] = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    if turn in gates:
                        yield from wait(gates[turn])
                        seen.append((turn, VARIABLE.get()))
                        return
                    seen.append((turn, VARIABLE.get()))
                    if only:
                        return

            async def wait(gate: Deferred[None]) -> None:
                await gate

            take = runner().repeated(turns)
            for turn in ("one", "two", "three", "four"):
                context = contextvars.copy_context()
                context.run(VARIABLE.set, turn.upper())
                running = take(turn, context)
                self.assertEqual(running is not None, turn in gates)
                if running is not None:
                    runner().when_done(running, lambda error, turn: ended.append((turn, error)), turn)
            self.assertEqual(seen, [("two", "TWO"), ("four", "FOUR")])
            gates["three"].callback(None)
            settle()
            gates["one"].callback(None)
            settle()
            self.assertEqual(seen[2:], [("three", "THREE"), ("one", "ONE")])
            self.assertEqual(ended, [("three", None), ("one", None)])

        self.runs(test)

    def test_turns_that_fail(self) -> None:
        """An exception in a turn is raised where it was taken; it may be the last one. Others follow, either way."""

        def test(settle: Callable[[], Any]) -> None:
            seen = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    if turn == "broken":
                        raise ZeroDivisionError
                    seen.append(turn)
                    if only or turn == "last":
                        return

            take = runner().repeated(turns)
            for turn in ("broken", "one", "last", "broken", "two"):
                if turn == "broken":
                    self.assertRaises(ZeroDivisionError, take, turn, contextvars.copy_context())
                else:
                    self.assertIsNone(take(turn, contextvars.copy_context()))
            settle()
            self.assertEqual(seen, ["one", "last", "two"])

        self.runs(test)

    def test_turns_within_turns(self) -> None:
        """A turn may have another one taken before it is over, and may wait after that."""

        def test(settle: Callable[[], Any]) -> None:
            gate = Deferred[None]()
            seen: list[str] = []
            ended: list[Any] = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    seen.append(turn)
                    if turn == "outer":
                        self.assertIsNone(take("inner", contextvars.copy_context()))
                        yield from wait()
                        seen.append("outer again")
                        return
                    if only:
                        return

            async def wait() -> None:
                await gate

            take = runner().repeated(turns)
            running = take("outer", contextvars.copy_context())
            assert running is not None
            runner().when_done(running, ended.append)
            self.assertIsNone(take("next", contextvars.copy_context()))
            gate.callback(None)
            settle()
            self.assertEqual((seen, ended), (["outer", "inner", "next", "outer again"], [None]))

        self.runs(test)

    def test_promise(self) -> None:
        """A promise hands over its result when it is kept; one kept already does so at once."""

        def test(settle: Callable[[], Any]) -> None:
            first, second, kept = Promise[str](), Promise[str](), Promise[str]()
            kept.keep("kept")
            gate, seen = Deferred[str](), []

            async def waiting() -> None:
                seen.extend([await first, await kept])
                seen.extend([await gate, await second])

            run = Run(waiting())
            settle()
            first.keep("first")
            first.keep("again")
            settle()
            gate.callback("deferred")
            settle()
            self.assertEqual((seen, run.ended), (["first", "kept"], []))
            second.keep("second")
            settle()
            self.assertEqual((seen, run.ended), (["first", "kept", "deferred", "second"], [None]))

        self.runs(test)

    def test_promise_broken(self) -> None:
        """A broken promise raises its error where it is awaited, and from there to whoever waits for the coroutine."""

        def test(settle: Callable[[], Any]) -> None:
            caught, uncaught = Promise[str](), Promise[str]()

            async def waiting() -> None:
                try:
                    await caught
                except KeyError:
                    await uncaught

            run = Run(waiting())
            caught.fail(KeyError())
            settle()
            uncaught.fail(ZeroDivisionError())
            settle()
            self.assertEqual([type(error) for error in run.ended], [ZeroDivisionError])

        self.runs(test)

    def test_promise_cancelled(self) -> None:
        """A coroutine that waits for a promise can be cancelled, and misses it then; also at the moment it is kept."""

        def test(settle: Callable[[], Any]) -> None:
            for keep_first in (False, True):
                promise = Promise[str]()
                seen: list[Any] = []

                async def waiting(promise: Promise[str], seen: list[Any]) -> None:
                    try:
                        seen.append(await promise)
                    finally:
                        seen.append("over")

                run = Run(waiting(promise, seen))
                if not keep_first:
                    run.cancel()
                promise.keep("kept")
                settle()
                if not keep_first:
                    self.assertEqual(seen, ["over"])
                    self.assertIsInstance(run.ended[0], asyncio.CancelledError)
                else:
                    self.assertEqual((seen, run.ended), (["kept", "over"], [None]))

        self.runs(test)

    def test_promise_awaited_twice(self) -> None:
        """Two cannot wait for one promise."""

        def test(settle: Callable[[], Any]) -> None:
            promise = Promise[str]()

            async def waiting() -> None:
                await promise

            run = Run(waiting())
            self.assertRaisesRegex(RuntimeError, "somebody waits", Run, waiting())
            promise.keep("")
            settle()
            self.assertEqual(run.ended, [None])

        self.runs(test)

    def test_turns_with_promises(self) -> None:
        """Turns that wait for promises, one after another and at the same time, each in its own context."""

        def test(settle: Callable[[], Any]) -> None:
            promises: dict[str, Promise[str]] = {}
            seen: list[Any] = []
            ended: list[Any] = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    yield from wait(turn)
                    if only:
                        return

            async def wait(turn: str) -> None:
                for name in (turn, turn + " again"):
                    promises[name] = Promise()
                    seen.append((await promises[name], VARIABLE.get()))

            take = runner().repeated(turns)
            for _ in range(3):
                for turn in ("one", "two", "three"):
                    context = contextvars.copy_context()
                    context.run(VARIABLE.set, turn.upper())
                    running = take(turn, context)
                    assert running is not None
                    runner().when_done(running, lambda error, turn: ended.append((turn, error)), turn)
                for turn in ("two", "one", "three"):
                    promises[turn].keep(turn)
                    settle()
                for turn in ("three", "two", "one"):
                    promises[turn + " again"].keep(turn)
                    settle()
                self.assertEqual([first for first, _ in seen], ["two", "one", "three", "three", "two", "one"])
                self.assertEqual([second.lower() for _, second in seen], [first for first, _ in seen])
                self.assertEqual(ended, [("three", None), ("two", None), ("one", None)])
                seen.clear()
                ended.clear()

        self.runs(test)

    def test_promise_kept_within_a_turn(self) -> None:
        """A coroutine may keep the promise that another waits for; also be that other cancelled right then."""

        def test(settle: Callable[[], Any]) -> None:
            for cancels in (False, True):
                promise = Promise[str]()
                seen: list[Any] = []

                async def waiting(promise: Promise[str], seen: list[Any]) -> None:
                    seen.append(await promise)

                run = Run(waiting(promise, seen))

                async def keeping(promise: Promise[str], run: Run, cancels: bool) -> None:
                    promise.keep("kept")
                    if cancels and not run.ended:
                        run.cancel()

                Run(keeping(promise, run, cancels))
                settle()
                if seen:
                    self.assertEqual((seen, run.ended), (["kept"], [None]))
                else:
                    self.assertIsInstance(run.ended[0], asyncio.CancelledError)
                    self.assertTrue(cancels)

        self.runs(test)


class WithoutLoop(Everywhere, SynchronousTestCase):
    def runs(self, test: Callable[[Callable[[], Any]], None]) -> None:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            test(lambda: None)
        finally:
            asyncio._set_running_loop(outer)

    def test_future(self) -> None:
        """An awaitable of asyncio's cannot be awaited; the error says so where it is, and what would help."""

        def test(_settle: Callable[[], Any]) -> None:
            loop = asyncio.new_event_loop()
            self.addCleanup(loop.close)
            gate, seen = Deferred[None](), []

            async def waiting() -> None:
                await loop.create_future()

            async def catching() -> None:
                try:
                    await loop.create_future()
                except HandlerError as error:
                    seen.append(str(error))
                await gate

            error = self.assertRaises(HandlerError, Run, waiting())
            self.assertIn("cannot wait for", str(error))
            self.assertIn("--reactor=asyncio", str(error))
            run = Run(catching())
            gate.callback(None)
            self.assertEqual((seen, run.ended), ([str(error)], [None]))

        self.runs(test)


def pretending(kind: Any) -> Any:
    """A loop that says it runs, as Python 3.12's eager tasks ask, while the test takes its turns between its turns."""

    class Pretending(kind):  # type: ignore[misc]
        pretends = False

        def is_running(self) -> bool:
            return self.pretends or bool(super().is_running())

    return Pretending


class OnLoop(Everywhere, SynchronousTestCase):
    """asyncio's own loop; what holds there must hold on uvloop's too."""

    new_loop: ClassVar[Callable[[], asyncio.AbstractEventLoop]] = staticmethod(asyncio.new_event_loop)

    def running(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test on the loop. What asyncio finds unhandled fails it."""
        problems: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, problem: problems.append(problem))
            async with asyncio.timeout(30):  # a test that hangs fails
                await test()

        with asyncio.Runner(loop_factory=type(self).new_loop) as runner:
            runner.run(main())
            gc.collect()
        self.assertEqual(problems, [])

    def runs(self, test: Callable[[Callable[[], Any]], None]) -> None:
        """The test runs outside of any task; settling is turns of the loop."""
        sample = type(self).new_loop()
        sample.close()
        loop = pretending(type(sample))()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, problem: problems.append(problem))
        outer = asyncio._get_running_loop()

        def settle() -> None:
            asyncio._set_running_loop(None)
            loop.pretends = False
            for _ in range(5):
                loop.call_soon(loop.stop)
                loop.run_forever()
            asyncio._set_running_loop(loop)
            loop.pretends = True

        asyncio._set_running_loop(loop)
        loop.pretends = True
        try:
            test(settle)
            gc.collect()
            settle()
        finally:
            asyncio._set_running_loop(outer)
            loop.pretends = False
            loop.close()
        self.assertEqual(problems, [])

    def test_current_task(self) -> None:
        """The current task is one and the same from the first step to the last, and it can be printed."""

        async def test() -> None:
            tasks = []

            async def waiting() -> None:
                tasks.append(asyncio.current_task())
                repr(tasks[0])
                await asyncio.sleep(0)
                tasks.append(asyncio.current_task())
                repr(tasks[1])
                await ended.wait()
                tasks.append(asyncio.current_task())

            ended = asyncio.Event()
            outer = asyncio.current_task()
            run = Run(waiting())
            self.assertIs(asyncio.current_task(), outer)
            await asyncio.sleep(0)
            ended.set()
            await run.end()
            self.assertEqual(tasks, [run.running] * 3)
            self.assertIs(asyncio.current_task(), outer)

        self.running(test)

    def test_current_task_of_turns(self) -> None:
        """Each turn has a current task; those that wait have one each, and keep it."""

        async def test() -> None:
            loop = asyncio.get_running_loop()
            gate = loop.create_future()
            tasks: dict[str, list[Any]] = {}
            ended = asyncio.Event()

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    tasks[turn] = [asyncio.current_task()]
                    if turn != "quick":
                        yield from wait(turn)
                        return
                    if only:
                        return

            async def wait(turn: str) -> None:
                await gate
                tasks[turn].append(asyncio.current_task())

            take = runner().repeated(turns)

            def begin() -> None:
                for turn in ("quick", "one", "quick", "two"):
                    running = take(turn, contextvars.copy_context())
                    if running is not None:
                        runner().when_done(running, lambda _error: ended.set())
                gate.set_result(None)

            loop.call_soon(begin)
            await ended.wait()
            await asyncio.sleep(0)
            self.assertIsNotNone(tasks["quick"][0])
            for turn in ("one", "two"):
                self.assertEqual(len(tasks[turn]), 2)
                self.assertIs(tasks[turn][0], tasks[turn][1])
            self.assertIsNot(tasks["one"][0], tasks["two"][0])

        self.running(test)

    def test_kept_after_a_promise(self) -> None:
        """A task that somebody has kept serves no other turn afterwards; one that nobody has is used again."""

        async def test() -> None:
            kept: list[Any] = []
            tasks: list[Any] = []
            promises: list[Promise[None]] = []

            @types.coroutine
            def turns(only: str | None, _task: Any) -> Generator[Any, Any, None]:
                while True:
                    turn = only or (yield READY)
                    tasks.append(id(asyncio.current_task()))
                    if turn == "keep":
                        kept.append(asyncio.current_task())
                    promises.append(Promise())
                    yield from promises[-1].__await__()
                    if only:
                        return

            take = runner().repeated(turns)
            ended = asyncio.Event()
            made: list[Any] = []
            if sys.version_info < (3, 12):
                from mtserver.concurrency.coroutines import reused_tasks

                class Counted(reused_tasks.ReusableTask):
                    def __init__(self, *args: Any) -> None:
                        made.append(1)
                        super().__init__(*args)

                self.patch(reused_tasks, "ReusableTask", Counted)

            def begin() -> None:
                for turn in ("keep", "one", "two", "keep", "three", "four"):
                    running = take(turn, contextvars.copy_context())
                    assert running is not None
                    runner().when_done(running, lambda _error: None)
                    del running
                    promises[-1].keep(None)
                ended.set()

            asyncio.get_running_loop().call_soon(begin)
            await ended.wait()
            await asyncio.sleep(0)
            self.assertEqual(len(tasks), 6)
            if sys.version_info < (3, 12):
                self.assertEqual(len(made), 3, "one at work while the next stands by, and one for each that was kept")
            for number, task in ((0, kept[0]), (3, kept[1])):
                self.assertNotIn(id(task), tasks[number + 1 :], f"turn {number}")
                self.assertFalse(task.cancel(), "it is over")

        self.running(test)

    def test_timeout_of_a_promise(self) -> None:
        """asyncio.timeout ends a wait for a promise."""

        async def test() -> None:
            seen = []

            async def waiting() -> None:
                try:
                    async with asyncio.timeout(0):
                        await Promise[None]()
                except TimeoutError:
                    seen.append("timeout")
                await asyncio.sleep(0)
                seen.append("on")

            run = Run(waiting())
            await run.end()
            self.assertEqual((seen, run.ended), (["timeout", "on"], [None]))

        self.running(test)

    def test_promise_in_tasks(self) -> None:
        """Tasks of the handler's own may wait for promises, gathered or with a time limit."""

        async def test() -> None:
            promises = [Promise[int]() for _ in range(3)]
            seen: list[Any] = []

            async def wait(promise: Promise[int]) -> int:
                return await promise

            async def waiting() -> None:
                seen.append(await asyncio.gather(*map(wait, promises[:2])))
                try:
                    await asyncio.wait_for(wait(promises[2]), 0.001)
                except TimeoutError:
                    seen.append("timeout")
                promises[2].keep(2)

            run = Run(waiting())
            await asyncio.sleep(0)
            for number in (1, 0):
                promises[number].keep(number)
            await run.end()
            self.assertEqual((seen, run.ended), ([[0, 1], "timeout"], [None]))

        self.running(test)

    def test_cancel_itself_before_a_promise(self) -> None:
        """A coroutine that cancels its own task is cancelled where it waits for a promise next."""

        async def test() -> None:
            async def waiting() -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await Promise[None]()

            run = Run(waiting())
            await run.end()
            self.assertIsInstance(run.ended[0], asyncio.CancelledError)

        self.running(test)

    def test_both_worlds(self) -> None:
        """One function may await Deferreds, futures and tasks in turn."""

        async def test() -> None:
            gate, seen = Deferred[str](), []
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def waiting() -> None:
                seen.append(await gate)
                seen.append(await future)
                seen.append(await asyncio.create_task(asyncio.sleep(0, "task")))
                seen.append(await succeed("fired"))

            run = Run(waiting())
            gate.callback("deferred")
            await asyncio.sleep(0)
            future.set_result("future")
            await run.end()
            self.assertEqual((seen, run.ended), (["deferred", "future", "task", "fired"], [None]))

        self.running(test)

    def test_timeout(self) -> None:
        """asyncio.timeout ends a wait for a Deferred, which is cancelled, and for a future."""

        async def test() -> None:
            cancelled: list[Any] = []
            deferred = Deferred[None](cancelled.append)
            seen = []

            async def waiting() -> None:
                for awaitable in (deferred, asyncio.get_running_loop().create_future()):
                    try:
                        async with asyncio.timeout(0):
                            await awaitable
                    except TimeoutError:
                        seen.append("timeout")

            run = Run(waiting())
            await run.end()
            self.assertEqual((seen, run.ended, cancelled), (["timeout", "timeout"], [None], [deferred]))

        self.running(test)

    def test_timeout_not_needed(self) -> None:
        """A timeout in a coroutine that ends at once leaves nothing behind for the next."""

        async def test() -> None:
            seen = []

            async def quick() -> None:
                async with asyncio.timeout(0):  # noqa: ASYNC100 - it has no time to strike, which is the point
                    seen.append(1)

            for _ in range(3):
                self.assertIsNone(Run(quick()).running)
            gate = asyncio.Event()

            async def waiting() -> None:
                await gate.wait()
                seen.append(2)

            run = Run(waiting())
            for _ in range(3):
                await asyncio.sleep(0)  # the timeouts of the others would come now
            gate.set()
            await run.end()
            self.assertEqual((seen, run.ended), ([1, 1, 1, 2], [None]))

        self.running(test)

    def test_task_group(self) -> None:
        """A TaskGroup works from the first step on; one task's error cancels the others and is raised as a group."""

        async def test() -> None:
            seen = []

            async def member(name: str) -> None:
                await asyncio.sleep(0)
                seen.append(name)

            async def broken() -> None:
                raise ZeroDivisionError

            async def good() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(member("a"))
                    group.create_task(member("b"))

            async def bad() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(3600))
                    group.create_task(broken())

            runs = [Run(good()), Run(bad())]
            for run in runs:
                await run.end()
            self.assertEqual((seen, runs[0].ended), (["a", "b"], [None]))
            self.assertIsInstance(runs[1].ended[0], ExceptionGroup)

        self.running(test)

    def test_cancel_itself(self) -> None:
        """A coroutine that cancels its own task in the first step is cancelled where it suspends next."""

        async def test() -> None:
            for make in (Deferred[None], asyncio.get_running_loop().create_future):
                seen: list[str] = []

                async def waiting(make: Callable[[], Any], seen: list[str]) -> None:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    try:
                        await make()
                    except asyncio.CancelledError:
                        seen.append("cancelled")
                        raise

                run = Run(waiting(make, seen))
                await run.end()
                self.assertEqual(seen, ["cancelled"])
                self.assertIsInstance(run.ended[0], asyncio.CancelledError)

        self.running(test)

    def test_cancel_itself_and_end(self) -> None:
        """One that cancels itself and ends at once passes that on to nobody."""

        async def test() -> None:
            async def hasty() -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

            async def waiting() -> None:
                await asyncio.sleep(0)

            try:
                Run(hasty())
            except asyncio.CancelledError:
                self.fail("it had ended")
            run = Run(waiting())
            await run.end()
            self.assertEqual(run.ended, [None])

        self.running(test)

    def test_from_a_task(self) -> None:
        """Started from within another task, that one stays the current one afterwards, also where it raises."""

        async def test() -> None:
            outer = asyncio.current_task()

            async def broken() -> None:
                raise ZeroDivisionError

            async def quick() -> None: ...

            async def slow() -> None:
                await asyncio.sleep(0)

            self.assertRaises(ZeroDivisionError, Run, broken())
            self.assertIs(asyncio.current_task(), outer)
            self.assertIsNone(Run(quick()).running)
            self.assertIs(asyncio.current_task(), outer)
            run = Run(slow())
            self.assertIs(asyncio.current_task(), outer)
            self.assertIn(run.running, asyncio.all_tasks())
            await run.end()

        self.running(test)

    def test_cancelled_and_fired(self) -> None:
        """A coroutine that is cancelled in the moment in which its Deferred fires is cancelled."""

        async def test() -> None:
            deferred = Deferred[str]()

            async def waiting() -> None:
                await deferred

            run = Run(waiting())
            run.cancel()
            deferred.callback("late")
            await run.end()
            self.assertIsInstance(run.ended[0], asyncio.CancelledError)

        self.running(test)

    def test_close(self) -> None:
        """The coroutine of a task is one in all respects: it can be closed and awaited."""

        async def test() -> None:
            seen = []

            async def waiting() -> None:
                try:
                    await Deferred[None]()
                finally:
                    seen.append("closed")

            bridged = DeferredBridge(asyncio.get_running_loop(), waiting())
            bridged.send(None)
            bridged.close()
            self.assertEqual(seen, ["closed"])
            await DeferredBridge(asyncio.get_running_loop(), asyncio.sleep(0))

        self.running(test)


class OnUvloop(OnLoop):
    if uvloop is None:
        skip = "uvloop is not installed"
    else:
        new_loop = staticmethod(uvloop.new_event_loop)
