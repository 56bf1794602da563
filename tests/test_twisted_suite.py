"""
Twisted's own tests of what a reactor is, which it keeps for whoever writes one, with ours to be tested.

They come with Twisted: what they ask for is what the installed version promises its protocols.
"""

from __future__ import annotations

import functools
import gc
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import SkipTest

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.uvcase import OnUV

#: Deprecated arguments in Twisted's tests, and sockets that they leave for the garbage collector, are not ours to mend;
#: one of uvloop's that is left would be.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:unclosed resource:ResourceWarning"),
]

#: Of `twisted.internet.test`.
MODULES = ("core", "endpoints", "fdset", "process", "socket", "tcp", "threads", "time", "tls", "udp", "unix")

_PREFIX = "Twisted puts the protocol's prefix in the log's context for each read; 2 microseconds per message"
_PRIVATE = "looks for private attributes of Twisted's own transport: sessionno, logstr"

#: Tests that fail, and that is why. One that begins to pass fails, so that it is taken from this list.
EXCEPTIONS = {
    "tcp.TCP4ClientTestsBuilder.test_logPrefix": _PREFIX,
    "tcp.TCP6ClientTestsBuilder.test_logPrefix": _PREFIX,
    "tls.SSLClientTestsMixin.test_logPrefix": _PREFIX,
    "tls.StartTLSClientTestsMixin.test_logPrefix": _PREFIX,
    "tcp.TCPTransportTestsBuilder.test_serverAddressTCP4": _PRIVATE,
    "tcp.TCPTransportTestsBuilder.test_serverAddressTCP6": _PRIVATE,
}


def _changes_user(_: object) -> None:
    raise SkipTest("needs root, and a Python that every user may run")


#: Tests of what is not ours, and fails on some machines whatever the reactor.
SKIPPED = {"test_changeUID": _changes_user}


class Suite(OnUV):
    """Common parts of all classes here."""

    #: Seconds until a reactor is stopped that a test runs. Only what hangs ever takes that long.
    timeout = 20

    @classmethod
    def tearDownClass(cls) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", "unclosed resource", ResourceWarning)
            gc.collect()  # now, before somebody else's test gets the blame


def _builders() -> Iterator[tuple[str, type[Any]]]:
    """The test cases that Twisted makes anew for each reactor, with their names."""
    for name in MODULES:
        module = importlib.import_module(f"twisted.internet.test.test_{name}")
        for generated in list(vars(module).values()):
            # Select is the reactor that there is everywhere.
            if isinstance(generated, type) and generated.__name__.endswith("_SelectReactorTests"):
                builder = generated.__bases__[0]
                yield f"{name}.{builder.__name__}", builder


def _failing(test: Callable[[Any], None], reason: str) -> Callable[[Any], None]:
    # Not trial's `todo`: pytest stumbles over it.
    @functools.wraps(test)
    def expected_to_fail(self: Any) -> None:
        try:
            test(self)
        except self.failureException:
            return
        gc.collect()  # of Deferreds, which log their errors as they go
        self.assertTrue(self.flushLoggedErrors(), f"passes by now, and need not be excused: {reason}")

    return expected_to_fail


def _made() -> dict[str, type[Any]]:
    made = {}
    for name, builder in _builders():
        replaced: dict[str, Any] = {test: skip for test, skip in SKIPPED.items() if hasattr(builder, test)}
        for test, reason in EXCEPTIONS.items():
            case, _, method = test.rpartition(".")
            if case == name:
                replaced[method] = _failing(getattr(builder, method), reason)
        title = name[0].upper() + name[1:].replace(".", "_")
        made[name] = type(title, (Suite, builder, SynchronousTestCase), {"__module__": __name__, **replaced})
    return made


_MADE = _made()
globals().update({case.__name__: case for case in _MADE.values()})


class Whole(SynchronousTestCase):
    def test_count(self) -> None:
        """Twisted still makes its test cases in the way we take them, and each exception is one of them."""
        tests = [f"{name}.{test}" for name, case in _MADE.items() for test in dir(case) if test.startswith("test")]
        self.assertGreaterEqual(len(tests), 260)
        self.assertLessEqual(set(EXCEPTIONS), set(tests))
