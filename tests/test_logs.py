"""Log lines: complete, readable, and nothing in them that a peer could have forged."""

from __future__ import annotations

import contextvars
import gc
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import FileLogObserver, Logger, LogLevel, LogPublisher, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import Unavailable
from mtserver.process.service import StartError
from mtserver.telemetry import context
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import (
    CLIENT_ADMITTED,
    CLIENT_CLOSED,
    CLIENT_CONNECTED,
    CLIENT_DISCONNECTED,
    CLIENT_UNREAD,
    HANDLER_FAILED,
    JOURNAL_COMMITTED,
    MESSAGES_HANDLED,
    THREADS_EXHAUSTED,
)
from mtserver.telemetry.levels import Levels
from mtserver.telemetry.logs import (
    _CONTROL,
    OBSERVERS,
    Filtered,
    follow,
    format_exception,
    json_observer,
    text_observer,
)
from mtserver.testing import Harness
from mtserver.transport import listeners
from tests.logcase import LogCase
from tests.test_session import shout

law = settings(max_examples=100, deadline=None)
ANYTHING = st.text(st.characters(codec=None), max_size=30)


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def logged(make: Callable[[Any], FileLogObserver], act: Callable[[Logger], None]) -> str:
    """What the observer writes to a file while `act` logs."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    act(Logger("test.space", observer=LogPublisher(make(file))))
    file.seek(0)
    return file.read()


class Exceptions(SynchronousTestCase):
    def test_traceback(self) -> None:
        """A traceback has its head, the line that raised, and the exception."""

        def fail() -> None:
            raise ValueError("broken")  # this line

        lines = format_exception(raised(fail)).split("\n")
        self.assertEqual(lines[0], "Traceback (most recent call last):")
        self.assertTrue(any(line.endswith("# this line") for line in lines[1:-1]))
        self.assertEqual(lines[-1], "ValueError: broken")

    @law
    @given(ANYTHING)
    def test_forged(self, text: str) -> None:
        """Whatever an exception quotes, it adds no line and no control character."""
        lines = format_exception(ValueError(text)).split("\n")
        self.assertEqual(len(lines), 2)
        self.assertTrue(lines[1].isprintable())

    def test_names(self) -> None:
        """An exception that is not built in is named with its module; one without a text by its name alone."""
        self.assertTrue(format_exception(KeyError()).endswith("\nKeyError"))
        self.assertTrue(format_exception(Unavailable("away")).endswith("\nmtserver.errors.Unavailable: away"))

    def test_cause(self) -> None:
        """A cause comes before what it caused."""

        def fail() -> None:
            try:
                raise ValueError("first\n")
            except ValueError as error:
                raise KeyError("second") from error

        text = format_exception(raised(fail))
        before, after = text.split("\nThe above exception was the direct cause of the following exception:\n")
        self.assertTrue(before.endswith("ValueError: first\\n"))
        self.assertTrue(after.endswith("KeyError: 'second'"))

    def test_context(self) -> None:
        """So does an exception during whose handling another was raised, unless its author suppressed it."""

        def fail() -> None:
            try:
                raise ValueError("first")
            except ValueError:
                raise KeyError("second")  # noqa: B904

        def suppress() -> None:
            try:
                raise ValueError("first")
            except ValueError:
                raise KeyError("second") from None

        text = format_exception(raised(fail))
        self.assertIn("ValueError: first\nDuring handling of the above exception, another exception occurred:\n", text)
        self.assertNotIn("first", format_exception(raised(suppress)))

    def test_circle(self) -> None:
        """Exceptions that are each other's cause are shown once each."""
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        text = format_exception(first)
        self.assertEqual((text.count("ValueError: first"), text.count("ValueError: second")), (1, 1))

    def test_notes(self) -> None:
        """Notes follow the exception, and cannot forge lines either."""
        error = ValueError("broken")
        error.add_note("message: \x1b[2J\nOK")
        self.assertTrue(format_exception(error).endswith("ValueError: broken\nmessage: \\x1b[2J\\nOK"))

    def test_group(self) -> None:
        """The members of a group follow it, each with its own text, one that was shown already not again."""
        shared = ValueError("one")
        group = ExceptionGroup("several", [shared, KeyError("two\n")])
        group.__cause__ = shared
        text = format_exception(group)
        self.assertIn("ExceptionGroup: several (2 sub-exceptions)", text)
        self.assertEqual(text.count("ValueError: one"), 1)
        self.assertIn("KeyError: 'two\\\\n'", text)

    def test_broken_text(self) -> None:
        """An exception whose own text raises is still reported."""

        class Broken(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        self.assertTrue(format_exception(Broken()).endswith(": <its text raised RuntimeError>"))


class Text(SynchronousTestCase):
    def test_line(self) -> None:
        """A line is Twisted's own."""
        line = logged(text_observer, lambda log: log.info("Hello {name}", name="world"))
        self.assertRegex(line, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[test.space#info\] Hello world\n\Z")

    @law
    @given(ANYTHING)
    def test_forged(self, text: str) -> None:
        """Whatever is logged, a file holds it, on lines that are indented, without control characters."""
        written = logged(text_observer, lambda log: log.info("got {text}", text=text))
        self.assertEqual(written[-1], "\n")
        first, *others = written[:-1].split("\n")
        self.assertIn("[test.space#info] got ", first)
        for line in others:
            self.assertTrue(line.startswith("\t"))
        for character in written:
            self.assertTrue(character in "\t\n" or ord(character) not in {*range(32), *range(0x7F, 0xA0)})
        self.assertEqual(written.splitlines(), written[:-1].split("\n"))

    def test_control(self) -> None:
        """Control characters are shown, not obeyed."""
        written = logged(text_observer, lambda log: log.info("{text}", text="\x1b[2J\r\x9b\u2028\ud800\tä"))
        self.assertTrue(written.endswith(" \\x1b[2J\\r\\x9b\\u2028\\ud800\tä\n"), written)

    @law
    @given(
        st.sampled_from(
            [
                "client {client} after {duration:.3f} s: {text}",
                "{text}",
                "",
                "no field",
                "{{{text}}}",
                "{text!r}",
                "{text.__class__}",
                "{client()}",
                "{missing}",
                "{duration:nonsense}",
                "{client:>{duration}}",
                "{broken}",
                "{",
            ]
        ),
        ANYTHING,
        st.dictionaries(st.sampled_from(["log_system", "log_flattened", "log_failure"]), st.just("special")),
    )
    def test_as_twisted(self, template: str, text: str, special: dict[str, Any]) -> None:
        """Each event reads as Twisted writes it."""

        class Broken:
            def __format__(self, spec: str) -> str:
                raise ZeroDivisionError

        if "log_failure" in special:
            special["log_failure"] = Failure(ValueError(text))
        if "log_flattened" in special:
            special["log_flattened"] = {}
        event = {
            "log_format": template,
            "log_time": 1e9,
            "log_namespace": "mtserver",
            "log_level": LogLevel.info,
            "client": 7,
            "duration": 1.5,
            "text": text,
            "broken": Broken(),
            **special,
        }
        written = io.StringIO()
        text_observer(written)(event)
        line = formatEventAsClassicLogText(event)
        self.assertEqual(written.getvalue(), "" if line is None else _CONTROL.sub(lambda match: escape(match[0]), line))

    def test_nothing(self) -> None:
        """An event without a text writes no line."""
        self.assertEqual(logged(text_observer, lambda log: log.emit(LogLevel.info)), "")


class Json(SynchronousTestCase):
    def record(self, act: Callable[[Logger], None]) -> dict[str, Any]:
        written = logged(json_observer, act)
        self.assertTrue(written.endswith("}\n"))
        self.assertEqual(written.count("\n"), 1)

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        record: dict[str, Any] = json.loads(written, parse_constant=refuse)
        return record

    def test_record(self) -> None:
        """A record has time, level, namespace, text, and the event's own numbers and texts."""
        record = self.record(lambda log: log.error("{a} of {b}", a=1, b="two", c=1.5, d=[1], e=None, _f=5, g=True))
        self.assertRegex(record.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
        expected = {"level": "error", "namespace": "test.space", "text": "1 of two", "a": 1, "b": "two", "c": 1.5}
        self.assertEqual(record, {**expected, "g": True})

    def test_time(self) -> None:
        """The time is the event's, in UTC."""
        file = io.StringIO()
        json_observer(file)({"log_format": "x", "log_time": 1_700_000_000.25})
        record = json.loads(file.getvalue())
        self.assertEqual(record["time"], "2023-11-14T22:13:20.250000+00:00")
        self.assertEqual((record["level"], record["namespace"]), ("info", ""))

    @law
    @given(ANYTHING)
    def test_forged(self, text: str) -> None:
        """Whatever is logged is one line of ASCII, and reads back as it was."""
        written = logged(json_observer, lambda log: log.info("{value}", value=text))
        if text:
            self.assertEqual(written.count("\n"), 1)
            self.assertTrue(written.isascii())
            self.assertEqual(json.loads(written)["value"], text)

    def test_own_names_stay(self) -> None:
        """A field that is called like one of the record's own does not replace it."""
        record = self.record(lambda log: log.info("said {text}", text="hello", namespace="mine"))
        self.assertEqual((record["text"], record["namespace"]), ("said hello", "test.space"))

    def test_not_finite(self) -> None:
        """A number that JSON does not have is written as text, since the line would be no JSON."""
        record = self.record(lambda log: log.info("x", a=float("nan"), b=float("-inf")))
        self.assertEqual((record["a"], record["b"]), ("nan", "-inf"))

    def test_failure(self) -> None:
        """A failure's traceback is part of the text, escaped; it is enough of a text by itself."""
        error = raised(lambda: int("five\n"))

        def act(log: Logger) -> None:
            log.failure("handler raised", failure=Failure(error))

        text = self.record(act)["text"]
        self.assertTrue(text.startswith("handler raised\nTraceback (most recent call last):\n"))
        self.assertTrue(text.endswith("'five\\\\n'"), text)
        alone = self.record(lambda log: log.failure("", failure=Failure(error)))
        self.assertTrue(alone["text"].startswith("Traceback"))
        self.assertEqual(alone["level"], "critical")

    def test_nothing(self) -> None:
        """An event without a text writes no line."""
        self.assertEqual(logged(json_observer, lambda log: log.emit(LogLevel.info)), "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Colours(SynchronousTestCase):
    def written(self, file: io.StringIO, level: LogLevel = LogLevel.warn, text: str = "sold [1] x") -> str:
        text_observer(file)(
            {"log_format": "{text}", "text": text, "log_level": level, "log_namespace": "till", "log_time": 0.0}
        )
        return file.getvalue()

    def setUp(self) -> None:
        self.patch(os, "environ", {"TERM": "xterm"})

    def test_terminal(self) -> None:
        """A terminal gets the time dim and the level in its colour; without colours the line is the usual one."""
        line = self.written(Terminal())
        self.assertRegex(line, r"\A\x1b\[2m[-0-9T:+]+\x1b\[0m \x1b\[33m\[till#warn\]\x1b\[0m sold \[1\] x\n\Z")
        self.assertEqual(re.sub("\x1b\\[[0-9;]*m", "", line), self.written(io.StringIO()))

    def test_levels(self) -> None:
        """Each level has a colour of its own."""
        lines = {self.written(Terminal(), level).split("[till")[0].split(" ")[1] for level in LogLevel.iterconstants()}
        self.assertEqual(len(lines), len(list(LogLevel.iterconstants())))

    def test_none(self) -> None:
        """A file has no colours, nor has a terminal that cannot show them or where nobody wants any."""
        self.assertNotIn("\x1b", self.written(io.StringIO()))
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
            self.patch(os, "environ", {"TERM": "xterm", name: value})
            self.assertNotIn("\x1b", self.written(Terminal()))
        self.patch(os, "environ", {"TERM": "xterm", "NO_COLOR": ""})  # empty is as good as not there
        self.assertIn("\x1b", self.written(Terminal()))

    @law
    @given(ANYTHING)
    def test_forged(self, text: str) -> None:
        """Text of a peer's cannot colour anything."""
        written = self.written(Terminal(), text=text)
        self.assertEqual(written.count("\x1b"), 4 if written else 0)


class Said(SynchronousTestCase):
    """The client for whom something was said."""

    def act(self, make: Callable[[Any], FileLogObserver], number: int, namespace: str, **fields: Any) -> str:
        def say() -> str:
            context.enter(number)
            return logged(make, lambda log: Logger(namespace, observer=log.observer).info("hello", **fields))

        return contextvars.copy_context().run(say)

    def test_text(self) -> None:
        """Text has the client's number before what its handler says."""
        self.assertTrue(self.act(text_observer, 7, "till").endswith(" [till#info] [client 7] hello\n"))
        self.assertTrue(self.act(text_observer, 7, "till", log_failure=Failure(ValueError())).count("[client 7]") == 1)

    def test_json(self) -> None:
        """JSON has it as a field, unless the event has one of that name."""
        self.assertEqual(json.loads(self.act(json_observer, 7, "till"))["client"], 7)
        self.assertEqual(json.loads(self.act(json_observer, 7, "till", client="own"))["client"], "own")

    def test_others(self) -> None:
        """Lines from outside of any handler have none, nor do those of others who happen to be at work then."""
        self.assertNotIn("client", logged(text_observer, lambda log: log.info("hello")))
        for namespace in ("mtserver", "mtserver.audit", "twisted.internet.defer", "asyncio"):
            self.assertNotIn("client", self.act(text_observer, 7, namespace))
            self.assertNotIn("client", json.loads(self.act(json_observer, 7, namespace)))


class Filters(SynchronousTestCase):
    def test_levels(self) -> None:
        """Events below their level are not handed on; those without a level are."""
        seen: list[Any] = []
        observer = Filtered(cast("Any", seen.append), Levels(["warn", "till=debug"]))
        for namespace, level in (("till.x", "debug"), ("shop", "info"), ("shop", "warn")):
            observer({"log_namespace": namespace, "log_level": LogLevel.levelWithName(level)})
        observer({"log_format": "legacy"})
        self.assertEqual([event.get("log_namespace") for event in seen], ["till.x", "shop", None])


class Following(LogCase):
    """Lines for events."""

    def test_lines(self) -> None:
        """An event that has a text is a line, its fields are the line's."""
        CLIENT_UNREAD(client=7, size=100)
        (event,) = self.events
        self.assertEqual(self.logged(LogLevel.info), ["client 7 does not read: 100 bytes of ours dropped"])
        self.assertEqual((event["client"], event["size"], event["log_namespace"]), (7, 100, "mtserver"))

    def test_levels(self) -> None:
        """Each line has its event's level."""
        THREADS_EXHAUSTED(threads=3)
        HANDLER_FAILED(client=7, traceback="Traceback")
        self.assertEqual(len(self.logged(LogLevel.warn)), 1)
        self.assertEqual(self.logged(LogLevel.error), ["the handler of client 7 failed: Traceback"])

    def test_optional(self) -> None:
        """A part in brackets is there if its field is."""
        for fields in ({"identity": "x"}, {"identity": ""}, {"identity": None}, {}):
            CLIENT_ADMITTED(client=7, peer="192.0.2.2:1", **fields)
        line = "client 7 connected from 192.0.2.2:1"
        self.assertEqual(self.logged(LogLevel.info), [f"{line}: x", line, line, line])

    def test_once(self) -> None:
        """Two servers in one process do not log twice; one that goes on logs on."""
        first, second = Harness(shout), Harness(shout)
        client = first.connect()
        client.reset()
        lines = [line for line in self.logged(LogLevel.info) if line.startswith("client ")]
        self.assertEqual(len(lines), 2, lines)
        first.stop()
        self.events.clear()
        second.connect()
        self.assertEqual(self.logged(LogLevel.info), ["client 1 connected from 192.0.2.2:50000"])
        second.stop()

    def test_debug(self) -> None:
        """Events of the level debug are listened to where that is wanted, and nowhere else."""
        quiet, loud = follow(Levels()), follow(Levels(["error", "mtserver=debug"]))
        self.addCleanup(quiet)
        self.assertTrue(CLIENT_CONNECTED)
        CLIENT_CONNECTED(client=7, peer="192.0.2.2:1")
        loud()
        self.assertFalse(CLIENT_CONNECTED)
        self.assertEqual(self.logged(LogLevel.debug), ["client 7 has come from 192.0.2.2:1"])

    def test_not_audited(self) -> None:
        """Events of the audit log are not written by the log, too."""
        CLIENT_CLOSED(client=7, peer="192.0.2.2:1", code="idle", reason="x")
        self.assertEqual(len(self.events), 1)


class Ends(SynchronousTestCase):
    """Servers listen, and nobody does afterwards."""

    def setUp(self) -> None:
        gc.collect()
        self._before = self.subscriptions()  # those of servers of other tests that nobody has dropped yet

    @staticmethod
    def subscriptions() -> tuple[int, ...]:
        return tuple(sum(event._counts.values()) for event in (CLIENT_DISCONNECTED, CLIENT_CLOSED))

    def listening(self) -> bool:
        gc.collect()
        log, audit_log = (now - before for now, before in zip(self.subscriptions(), self._before, strict=True))
        self.assertEqual(log, audit_log)
        return log > 0

    def test_stop(self) -> None:
        """A server listens from its start to its stop."""
        self.assertFalse(self.listening())
        harness = Harness(shout)
        self.assertTrue(self.listening())
        harness.stop()
        self.assertFalse(self.listening())

    def test_dropped(self) -> None:
        """A server that is dropped, as in many a test, listens no more."""
        harness = Harness(shout)
        self.assertTrue(self.listening())
        del harness
        self.assertFalse(self.listening())

    def test_start_fails(self) -> None:
        """A server whose start has failed listens no more."""

        class Taken:
            def listen(self, _factory: Any) -> Deferred[None]:
                return fail(OSError("taken"))

        harness = Harness(shout)
        harness.stop()
        self.patch(listeners, "endpoints", lambda *_args: (None, [Taken()]))
        self.patch(sys, "excepthook", sys.excepthook)
        self.assertRaises(StartError, harness.service._listen)
        self.assertFalse(self.listening())

    def test_own_logging(self) -> None:
        """A server in somebody else's process leaves Python's logging as it is."""
        root = logging.getLogger()
        before = (root.level, root.handlers[:])
        harness = Harness(shout)
        self.assertEqual((root.level, root.handlers), before)
        harness.stop()

    def test_nothing_for_nobody(self) -> None:
        """Events for each message are told to nobody, unless somebody has asked for them."""
        harness = Harness(shout)
        self.assertFalse(MESSAGES_HANDLED)
        self.assertFalse(JOURNAL_COMMITTED)
        self.assertFalse(CLIENT_CONNECTED)
        harness.stop()


class Names(SynchronousTestCase):
    def test_formats(self) -> None:
        """--log-format chooses between the two."""
        self.assertEqual(OBSERVERS, {"text": text_observer, "json": json_observer})
