"""Events by which a journal tells what it has stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apsw

from mtserver.journal import Batch
from mtserver.telemetry.events import JOURNAL_COMMITTED, Event, subscribe
from tests.test_journal_jetstream import Memory, plain, publish
from tests.test_journal_transaction import TransactionCase, message


class Stored(TransactionCase):
    def setUp(self) -> None:
        super().setUp()
        self.told: list[int] = []

        def hear(event: Event, fields: Mapping[str, Any]) -> None:
            self.assertGreaterEqual(fields["seconds"], 0)
            self.assertLess(fields["seconds"], 60)
            self.told.append(fields["messages"])

        self.addCleanup(subscribe(hear, JOURNAL_COMMITTED))

    def test_commit(self) -> None:
        """Each commit is told, with the messages in it."""
        self.append(b"a")
        self.append(b"b", b"c")
        self.assertEqual(self.told, [1, 2])

    def test_duplicates(self) -> None:
        """Messages that are known already are not counted."""
        for _ in range(2):
            self.result(self.journal.append(message(b"a", "id")))
        self.assertEqual(self.told, [1, 0])

    def test_transaction(self) -> None:
        """A transaction with a part of the handler's is one commit; one that was undone is none."""
        self.successResultOf(self.begin(self.insert(5), message(b"b")))

        async def fail(db: Any) -> None:
            raise ZeroDivisionError

        self.failureResultOf(self.begin(fail, message(b"c")), ZeroDivisionError)
        self.append(b"d")
        self.assertEqual(self.told, [1, 1])

    def test_not_stored(self) -> None:
        """Messages that could not be stored are not told."""
        self.append(b"a")
        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assert_unavailable()
        self.assertEqual(self.told, [1])

    def test_failing_subscriber(self) -> None:
        """A subscriber that raises undoes nothing."""

        def fail(event: Event, fields: Mapping[str, Any]) -> None:
            raise ZeroDivisionError

        self.addCleanup(subscribe(fail, JOURNAL_COMMITTED))
        self.assertEqual(self.append(b"a"), [1])
        self.assertEqual(len(self.rows()), 1)

    def test_stream(self) -> None:
        """A stream's acknowledgements are told likewise, one by one or for a batch of its own."""
        publish(Memory(), plain(b"a"), plain(b"b"))
        self.assertEqual(self.told, [1, 1])
        self.told.clear()
        publish(Memory(), Batch(1.5, 7, "192.0.2.2:1", [b"%d" % number for number in range(100)]))
        self.assertEqual(sum(self.told), 100)
        self.assertLess(len(self.told), 100)
