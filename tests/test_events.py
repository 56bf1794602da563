"""Events: a contract of names, fields and units, and who is told of them."""

from __future__ import annotations

import ast
import logging
import re
import string
from collections.abc import Mapping
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import mtserver
from mtserver.telemetry import events
from mtserver.telemetry.events import EVENTS, LEVELS, Event, Subscriber, subscribe

#: Fields that are numbers, by a word of their name, and the word of the unit that their meaning has.
UNITS = {
    "seconds": "seconds",
    "duration": "seconds",
    "bytes": "bytes",
    "size": "bytes",
    "messages": "messages",
    "clients": "clients",
    "threads": "threads",
    "users": "users",
    "keys": "keys",
    "count": "events",
    "cut": "clients",
}
#: Names that no field may have: it would hold what nobody is to read, or be taken for the log's own.
FORBIDDEN = re.compile(r"password|secret|token|key|credential|text|level|namespace|time|event|audit|log_.*")


DOCUMENT = Path(__file__).parent.parent / "docs" / "logging.md"
PACKAGE = Path(mtserver.__file__).parent
CONSTANTS = {name: value for name, value in vars(events).items() if isinstance(value, Event)}


def told(source: str) -> list[tuple[str, set[str]]]:
    """Each call of an event in a module: its constant's name, and the fields; ``None`` for some that are not named."""
    return [
        (node.func.id, {str(word.arg) for word in node.keywords} | {"None" for _ in node.args})
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONSTANTS
    ]


class Contract(SynchronousTestCase):
    def test_told(self) -> None:
        """Each event is told somewhere, with fields of its row and, in all places together, with all of them."""
        fields: dict[str, set[str]] = {"LOST": {"count"}}  # which the file writes itself
        for path in sorted(PACKAGE.rglob("*.py")):
            for constant, some in told(path.read_text()):
                self.assertLessEqual(some, set(CONSTANTS[constant].fields), f"{path}: {constant}")
                fields[constant] = fields.get(constant, set()) | some
        self.assertEqual(fields, {constant: set(event.fields) for constant, event in CONSTANTS.items()})

    def test_strangers_are_found(self) -> None:
        """The check sees fields that are handed on unnamed."""
        self.assertEqual(
            told("START(**fields)\nSTOP(1, seconds=2)"), [("START", {"None"}), ("STOP", {"None", "seconds"})]
        )

    def test_names(self) -> None:
        """The constant of an event is its name in capitals, or that behind CLIENT_."""
        self.assertEqual(set(CONSTANTS.values()), set(EVENTS.values()))
        for constant, event in CONSTANTS.items():
            self.assertIs(EVENTS[event.name], event)
            self.assertRegex(event.name, r"\A[a-z]+(-[a-z]+)*\Z")
            self.assertEqual(constant.removeprefix("CLIENT_").lower().replace("_", "-"), event.name)

    def test_meanings(self) -> None:
        """Each event and each field has a meaning, one line without a full stop; and its name is nobody's secret."""
        for event in EVENTS.values():
            for text in (event.meaning, *event.fields.values()):
                self.assertRegex(text, r"\A\S[^\n|]*[^.\s]\Z", event.name)
            for field in event.fields:
                self.assertRegex(field, r"\A[a-z]+(_[a-z]+)*\Z")
                self.assertIsNone(FORBIDDEN.fullmatch(field), field)

    def test_units(self) -> None:
        """A number's meaning begins with its unit."""
        numbers = 0
        for event in EVENTS.values():
            for field, meaning in event.fields.items():
                for unit in {UNITS[word] for word in field.split("_") if word in UNITS}:
                    self.assertEqual(re.split(r"\W", meaning)[0], unit, f"{event.name}.{field}")
                    numbers += 1
        self.assertGreater(numbers, 15)

    def test_texts(self) -> None:
        """A line of the log says nothing that is not a field, at a level that there is; the audit log has its own."""
        for event in EVENTS.values():
            self.assertIn(event.level, LEVELS)
            named = {name for _, name, _, _ in string.Formatter().parse(event.text) if name is not None}
            self.assertLessEqual(named, set(event.fields), event.name)
            self.assertEqual(bool(event.text), not event.audit, event.name)


class Telling(SynchronousTestCase):
    def setUp(self) -> None:
        self.event = Event("tried", "a test has told it", {"number": "any"})
        self.heard: list[Any] = []

    def hear(self, event: Event, fields: Mapping[str, Any]) -> None:
        self.heard.append((event, dict(fields)))

    def test_nobody(self) -> None:
        """Without a subscriber an event is false, and to tell it does nothing."""
        self.assertFalse(self.event)
        self.event(number=1)

    def test_subscription(self) -> None:
        """A subscriber is told of its events, with their fields, until it ends that, however often."""
        end = subscribe(self.hear, self.event)
        self.assertTrue(self.event)
        self.event(number=1)
        end()
        end()
        self.assertFalse(self.event)
        self.event(number=2)
        self.assertEqual(self.heard, [(self.event, {"number": 1})])

    def test_only_its_own(self) -> None:
        """A subscriber is told of no other."""
        other = Event("other", "a test has told it", {})
        self.addCleanup(subscribe(self.hear, other))
        self.event()
        self.assertEqual(self.heard, [])
        self.assertFalse(self.event)

    def test_order(self) -> None:
        """Subscribers are told in the order in which they came."""

        def numbered(number: int) -> Subscriber:
            return lambda _event, _fields: self.heard.append(number)

        for number in range(3):
            self.addCleanup(subscribe(numbered(number), self.event))
        self.event()
        self.assertEqual(self.heard, [0, 1, 2])

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 4), max_size=30))
    def test_twice(self, steps: list[int]) -> None:
        """A subscriber who has subscribed several times is told once, and until the last of them has ended."""
        event = Event("tried", "a test has told it", {})
        ends: list[Any] = []
        for step in steps:
            if step < 2 or not ends:
                ends.append(subscribe(self.hear, event))
            else:
                ends.pop(step % len(ends))()
            self.heard.clear()
            event()
            self.assertEqual(len(self.heard), 1 if ends else 0)
            self.assertEqual(bool(event), bool(ends))

    def test_ends_while_told(self) -> None:
        """A subscriber that ends its own subscription when told takes nothing from those behind it."""
        ends: list[Any] = []

        def once(event: Event, fields: Mapping[str, Any]) -> None:
            self.hear(event, fields)
            ends[0]()

        ends.append(subscribe(once, self.event))
        self.addCleanup(subscribe(self.hear, self.event))
        self.event(number=1)
        self.event(number=2)
        self.assertEqual([fields["number"] for _, fields in self.heard], [1, 1, 2])

    def test_raises(self) -> None:
        """A subscriber that raises costs a line of the log; neither the others nor the caller hear of it."""

        def fail(event: Event, fields: Mapping[str, Any]) -> None:
            raise ZeroDivisionError

        self.addCleanup(subscribe(fail, self.event))
        self.addCleanup(subscribe(self.hear, self.event))
        logger = logging.getLogger("mtserver.telemetry")
        handler = BufferingHandler(10)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        logger.propagate = False
        self.addCleanup(setattr, logger, "propagate", True)
        self.event(number=1)
        self.assertEqual(self.heard, [(self.event, {"number": 1})])
        self.assertEqual([line.getMessage() for line in handler.buffer], ["a subscriber of the event tried failed"])
        self.assertIsNotNone(handler.buffer[0].exc_info)
