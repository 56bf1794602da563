"""Python's logging and warnings in Twisted's log: name, level and traceback; nobody's own is disturbed."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher, STDLibLogObserver
from twisted.trial.unittest import SynchronousTestCase

from mtserver.telemetry.levels import Levels
from mtserver.telemetry.std_logging import LogHandler, begin

till = logging.getLogger("tests.till")


class LoggingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        root.handlers[:] = []  # pytest's own
        root.setLevel(logging.WARNING)

        def restore() -> None:
            root.handlers[:] = before
            root.setLevel(level)

        self.addCleanup(restore)

    def begin(self, *words: str) -> Any:
        end = begin(Levels(words), self.events.append)
        self.addCleanup(logging.captureWarnings, False)
        return end

    def said(self) -> list[tuple[str, str, str]]:
        return [(event["log_namespace"], event["log_level"].name, event["text"]) for event in self.events]


class Records(LoggingCase):
    def test_levels(self) -> None:
        """A record arrives with its logger's name, its level and its text; what is below info does not."""
        self.addCleanup(self.begin())
        till.debug("debug")
        till.info("sold %d of %s", 2, "tea")
        till.warning("warning")
        till.error("error")
        till.critical("critical")
        logging.getLogger().info("root")
        self.assertEqual(
            self.said(),
            [
                ("tests.till", "info", "sold 2 of tea"),
                ("tests.till", "warn", "warning"),
                ("tests.till", "error", "error"),
                ("tests.till", "critical", "critical"),
                ("root", "info", "root"),
            ],
        )

    def test_odd_levels(self) -> None:
        """A level of one's own is the one below it; the lowest is debug."""
        self.addCleanup(self.begin("debug"))
        for number in (1, 25, 45, 99):
            till.setLevel(1)
            self.addCleanup(till.setLevel, logging.NOTSET)
            till.log(number, "x")
        self.assertEqual([level for _, level, _ in self.said()], ["debug", "info", "error", "critical"])

    def test_traceback(self) -> None:
        """An exception's traceback follows the text, escaped; outside of one there is none."""
        self.addCleanup(self.begin())
        try:
            int("five\n\x1b")
        except ValueError:
            till.exception("no number")
        till.exception("nothing")
        first, second = (text for _, _, text in self.said())
        self.assertTrue(first.startswith("no number\nTraceback (most recent call last):\n"), first)
        self.assertTrue(first.endswith(r"'five\\n\\x1b'"), first)
        self.assertEqual(second, "nothing")

    def test_stack(self) -> None:
        """A stack that was asked for follows the text as well."""
        self.addCleanup(self.begin())
        till.info("here", stack_info=True)
        self.assertIn("here\nStack (most recent call last):\n", self.said()[0][2])

    def test_fields(self) -> None:
        """Numbers and text of `extra` are the event's; what would be taken for the log's own is not."""
        self.addCleanup(self.begin())
        extra = {"device": 7, "place": "north", "ratio": 0.5, "list": [1], "log_level": "x", "text": "y", "_own": 1}
        till.info("read", extra=extra)
        (event,) = self.events
        usual = {"text", "log_format", "log_namespace", "log_time", "log_level"}
        self.assertEqual(
            {name: event[name] for name in event.keys() - usual}, {"device": 7, "place": "north", "ratio": 0.5}
        )
        self.assertEqual((event["text"], event["log_level"]), ("read", LogLevel.info))

    def test_time(self) -> None:
        """The time is the record's."""
        self.addCleanup(self.begin())
        record = logging.makeLogRecord({"name": "x", "levelno": 20, "msg": "x", "created": 1e9})
        logging.getLogger().handle(record)
        self.assertEqual(self.events[0]["log_time"], 1e9)

    def test_broken(self) -> None:
        """A record whose arguments do not fit raises nowhere; logging says so in its own way."""
        self.addCleanup(self.begin())
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        till.info("%d", "seven")
        self.assertEqual(self.events, [])
        self.assertIn("--- Logging error ---", errors.getvalue())

    def test_round_trip(self) -> None:
        """Twisted's log handed to logging does not go round for ever, and each line is written once."""
        written = io.StringIO()
        self.patch(sys, "stderr", written)
        logging.basicConfig(format="%(message)s")
        publisher = LogPublisher(STDLibLogObserver("tests.twisted"))
        self.addCleanup(begin(Levels(), publisher))
        log = Logger("tests.namespace", observer=publisher)
        log.info("first")
        till.warning("second")
        log.info("third")
        self.assertEqual(written.getvalue(), "first\nsecond\nthird\n")


class Named(LoggingCase):
    def test_levels(self) -> None:
        """Loggers that are named have levels of their own, lower and higher ones; others have the default."""
        self.addCleanup(self.begin("warn", "tests.till=debug", "tests.till.paper=error"))
        for name in ("tests.till", "tests.till.paper", "tests.other"):
            logging.getLogger(name).debug("debug")
            logging.getLogger(name).warning("warning")
            logging.getLogger(name).error("error")
        self.assertEqual(
            [(name, level) for name, level, _ in self.said()],
            [
                ("tests.till", "debug"),
                ("tests.till", "warn"),
                ("tests.till", "error"),
                ("tests.till.paper", "error"),
                ("tests.other", "warn"),
                ("tests.other", "error"),
            ],
        )

    def test_end(self) -> None:
        """The end leaves levels and handlers as they were, and nothing arrives any more."""
        paper = logging.getLogger("tests.till.paper")
        root = logging.getLogger()
        before = (root.level, till.level, paper.level, root.handlers[:])
        end = self.begin("debug", "tests.till.paper=info")
        self.assertEqual(root.level, logging.DEBUG)
        end()
        self.assertEqual((root.level, till.level, paper.level, root.handlers), before)
        self.assertIs(till.isEnabledFor(logging.INFO), False)
        till.warning("late")
        self.assertEqual(self.events, [])


class Own(LoggingCase):
    def test_own_handler(self) -> None:
        """An author's handler of his own misses nothing, whatever --log-level says."""
        written = io.StringIO()
        handler = logging.StreamHandler(written)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.DEBUG)
        self.addCleanup(self.begin("error"))
        till.debug("debug")
        till.error("error")
        self.assertEqual(written.getvalue(), "debug\nerror\n")
        self.assertEqual([level for _, level, _ in self.said()], ["error"])

    def test_terminal(self) -> None:
        """A handler that writes to the terminal, as basicConfig's does, would write all twice: it is set aside."""
        root = logging.getLogger()
        written = io.StringIO()
        self.patch(sys, "stderr", written)
        logging.basicConfig()
        (theirs,) = root.handlers
        end = self.begin()
        till.warning("once")
        self.assertEqual(len(self.events), 1)
        self.assertEqual(written.getvalue(), "")
        end()
        self.assertEqual(root.handlers, [theirs])
        self.assertNotIsInstance(theirs, LogHandler)


class Warnings(LoggingCase):
    def test_warning(self) -> None:
        """A warning is one event of the logger py.warnings, with its place and kind."""
        self.addCleanup(self.begin())
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # catch_warnings has put its own in place of ours.
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("old way", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(False)
        ((name, level, text),) = self.said()
        self.assertEqual((name, level), ("py.warnings", "warn"))
        self.assertRegex(text, r"\A\S+test_std_logging\.py:\d+: DeprecationWarning: old way\n  warnings\.warn\(.*\)\Z")

    def test_end(self) -> None:
        """The end gives back how warnings were shown."""
        before = warnings.showwarning
        self.begin()()
        self.assertIs(warnings.showwarning, before)
