"""
Controls: what must never break is broken on purpose, and the test that guards it must fail.

A test that passes whatever the code does protects nothing. Each control stands beside its test, names the promise, puts
something wrong in place of a function or a value, and runs that one test, in this process::

    class Controls(ControlCase):
        def test_not_stored(self) -> None:
            \"\"\"P1: what was never stored is called stored.\"\"\"
            with self.noticed_by(Storing, "test_append"):
                self.patch(Writer, "commit", lambda _writer, batches: [Stored([1]) for _ in batches])

The test runs twice, before the block (it has to pass) and after it (an assertion of its own has to fail). Anything else
is a mistake in the control: an error in what it has put in place, or that nobody has called it.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure
from twisted.python.monkey import MonkeyPatcher
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SkipTest, SynchronousTestCase

#: What is raised by code that has mistakes, and never meant by a control.
_MISTAKES = (AttributeError, ImportError, LookupError, NameError, TypeError)


class ControlCase(SynchronousTestCase):
    """A test case whose tests are controls."""

    def setUp(self) -> None:
        super().setUp()
        self._unused: set[str] = set()
        self._mistakes: list[str] = []
        self._done_in_servers: Path | None = None

    @contextmanager
    def noticed_by(
        self, case: type[SynchronousTestCase], name: str, error: type[Exception] = AssertionError
    ) -> Iterator[None]:
        """
        What is broken in this block is noticed by this test. If that is skipped here, so is its control.

        :param error: what the test ends with, where that is neither an assertion nor raised in its own lines (which may
            look for an answer that is not there).
        """
        # Hypothesis does not take one test from two runners, and it would be slow.
        self.assertFalse(hasattr(getattr(case, name), "hypothesis"), f"{name} runs many examples: name a simple one")
        self._result_of(case, name, "as it is")
        yield
        result = self._result_of(case, name, "broken")
        # Deferreds that the broken code has left with an error say so when collected: here, not in another test.
        gc.collect()
        self.flushLoggedErrors()
        self.assertEqual(self._mistakes, [], "raised in what this control has put in place")
        errors: list[Any] = [failure for _, failure in result.errors]
        others = [str(failure) for failure in errors if not (failure.check(error) or _is_of_tests(failure))]
        self.assertEqual(others, [], f"{name} should end with {error.__name__}")
        self.assertEqual(self._unused, set(), "put in place and never called")
        self.assertTrue(self._done_in_servers is None or self._done_in_servers.exists(), "not put into any server")
        self.assertFalse(result.wasSuccessful(), f"broken on purpose, and not noticed by {case.__name__}.{name}")
        self.assertEqual(result.skips, [])

    def _result_of(self, case: type[SynchronousTestCase], name: str, state: str) -> TestResult:
        # In a folder of its own: the files of one run are not there in the next.
        before, folder = Path.cwd(), Path(self.mktemp())
        folder.mkdir(parents=True)
        result = TestResult()
        os.chdir(folder)
        try:
            case(name).run(result)
        finally:
            os.chdir(before)
        if state == "as it is":
            if result.skips:
                raise SkipTest(str(result.skips[0][1]))
            self.assertTrue(result.wasSuccessful(), f"{name} has to pass first: {result.failures}{result.errors}")
        return result

    def patch(self, obj: Any, attribute: str, value: Any) -> MonkeyPatcher:
        """As trial's; where it is a function that is put in place, it has to be called, and to have no mistakes."""
        wrong = self._watched(value, attribute) if inspect.isfunction(value) else value
        patcher: MonkeyPatcher = super().patch(obj, attribute, wrong)
        return patcher

    def _watched(self, wrong: Callable[..., Any], name: str) -> Callable[..., Any]:
        self._unused.add(name)

        @functools.wraps(wrong)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._unused.discard(name)
            try:
                return wrong(*args, **kwargs)
            except _MISTAKES as error:
                self._mistakes.append(f"{name}: {error!r}")
                raise

        return watched

    def ignore(self, kind: type, name: str, value: Any) -> None:
        """Whatever is said of this attribute of such objects, it has this value."""
        if not hasattr(kind, name):
            setattr(kind, name, None)
            self.addCleanup(delattr, kind, name)
        self.patch(kind, name, property(lambda _: value, lambda *_: None))

    def break_servers(self, wrong: Callable[[], None]) -> None:
        """Each server process that is started from now on first calls this function, whose imports stand in it."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        text = textwrap.dedent(inspect.getsource(wrong))
        self._done_in_servers = folder / "done"
        (folder / "sitecustomize.py").write_text(
            "from __future__ import annotations\nimport pathlib\n\n"
            f"{text}\n{wrong.__name__}()\npathlib.Path({str(self._done_in_servers)!r}).touch()\n"
        )
        before = os.environ.get("PYTHONPATH")
        if before is None:
            self.addCleanup(os.environ.pop, "PYTHONPATH")
        else:
            self.addCleanup(os.environ.__setitem__, "PYTHONPATH", before)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])


def _is_of_tests(failure: Failure) -> bool:
    """Whether this was raised by a line of a test."""
    return Path(failure.frames[-1][1]).is_relative_to(Path(__file__).parent)
