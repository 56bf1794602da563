"""A transaction in a handler's hands: its message, its id and its own tables are kept together, or not at all."""

from __future__ import annotations

import time
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import InPlace
from mtserver.errors import Duplicate, HandlerError, Unavailable
from mtserver.journal import Batch, Stored
from mtserver.journal.sqlite.transaction import TICKS, SqliteTransaction
from mtserver.journal.sqlite.writer import Writer
from tests import DEADLINE
from tests.controls import ControlCase
from tests.journalcase import JournalCase, Later, opened, started
from tests.logcase import LogCase

TABLE = "CREATE TABLE IF NOT EXISTS theirs (x PRIMARY KEY)"


def message(text: bytes, number: str = "") -> Batch:
    return Batch(1.5, 7, "192.0.2.2:1", [text], "", "bob", [number] if number else ())


class TransactionCase(JournalCase):
    def begin(self, work: Any, batch: Batch | None = None) -> Deferred[Any]:
        """Do this in a transaction; what comes of it."""

        async def whole() -> Any:
            async with self.journal.transaction(batch) as db:
                return await work(db)

        deferred = started(whole())
        self.clock.advance(0)
        return deferred

    def insert(self, value: Any) -> Any:
        async def work(db: Any) -> Any:
            await db.execute(TABLE)
            await db.execute("INSERT INTO theirs VALUES (?)", (value,))
            return db.sequence

        return work

    def theirs(self) -> list[Any]:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        self.addCleanup(connection.close)
        try:
            return [value for (value,) in connection.execute("SELECT x FROM theirs ORDER BY rowid")]
        except apsw.SQLError:
            return []


class Together(TransactionCase):
    def test_committed(self) -> None:
        """When the block is left, the message and what was done are kept; it knows the message's number."""
        self.append(b"a")
        self.assertEqual(self.successResultOf(self.begin(self.insert(5), message(b"b"))), 2)
        self.assertEqual(self.theirs(), [5])
        self.assertEqual([row[4] for row in self.rows()], [b"a", b"b"])

    def test_rows(self) -> None:
        """A transaction sees its own changes, as rows; a statement may be executed for many bindings."""

        async def work(db: Any) -> Any:
            await db.execute(TABLE)
            await db.executemany("INSERT INTO theirs VALUES (?)", [(n,) for n in range(3)])
            await db.execute("UPDATE theirs SET x = x + :more", {"more": 10})
            return await db.execute("SELECT x, seq FROM theirs, messages ORDER BY x")

        outcome = self.successResultOf(self.begin(work, message(b"b")))
        self.assertEqual(outcome, [(10, 1), (11, 1), (12, 1)])
        self.assertEqual(self.theirs(), [10, 11, 12])

    def test_raised(self) -> None:
        """Where the block raises, neither is kept."""

        async def work(db: Any) -> None:
            await self.insert(5)(db)
            raise ZeroDivisionError

        self.failureResultOf(self.begin(work, message(b"b", "1")), ZeroDivisionError)
        self.assertEqual((self.theirs(), self.rows()), ([], []))
        self.assertEqual(self.successResultOf(self.begin(self.insert(6), message(b"b", "1"))), 1)

    def test_duplicate(self) -> None:
        """A message that was stored before is not handled again: the block is not entered."""
        self.successResultOf(self.begin(self.insert(5), message(b"b", "1")))
        failure = self.failureResultOf(self.begin(self.insert(6), message(b"b", "1")), Duplicate)
        self.assertEqual(failure.value.sequence, 1)
        self.assertEqual((self.theirs(), len(self.rows())), ([5], 1))
        self.assertEqual(self.append(b"c"), [2])

    def test_no_message(self) -> None:
        """A transaction may have no message."""
        self.assertIsNone(self.successResultOf(self.begin(self.insert(5))))
        self.assertEqual((self.theirs(), self.rows()), ([5], []))

    def test_alone(self) -> None:
        """The file is locked from the beginning: values that a transaction reads are still so when it writes."""

        async def work(db: Any) -> None:
            other = apsw.Connection(str(self.path))
            self.addCleanup(other.close)
            with self.assertRaises(apsw.BusyError):
                other.execute("BEGIN IMMEDIATE")
            await db.execute(TABLE)

        self.append(b"a")
        self.successResultOf(self.begin(work))

    def test_mistake(self) -> None:
        """A statement that fails raises what SQLite says; one who catches that goes on."""

        async def work(db: Any) -> None:
            await db.execute(TABLE)
            await db.execute("INSERT INTO theirs VALUES (5)")
            for wrong in ("INSERT INTO theirs VALUES (5)", "INSERT INTO nowhere VALUES (1)", "no SQL", "SELECT ?"):
                try:
                    await db.execute(wrong)
                except apsw.Error:
                    continue
                raise AssertionError(wrong)

        self.successResultOf(self.begin(work, message(b"b")))
        self.assertEqual((self.theirs(), len(self.rows())), ([5], 1))

    def test_forbidden(self) -> None:
        """Neither the transaction, nor how the file is kept, nor the journal's own tables are a handler's."""
        seen: list[str] = []
        statements = [
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT x",
            "PRAGMA synchronous = OFF",
            f"ATTACH '{self.folder / 'x.db'}' AS x",
            "DELETE FROM messages",
            "DELETE FROM MESSAGES",
            "UPDATE sources SET last_seq = 0",
            "INSERT INTO ids VALUES (1, 'x', 1, 1)",
            "UPDATE sqlite_sequence SET seq = 0",
            "DROP TABLE ids",
            "DROP INDEX ids_by_seq",
            "DROP VIEW journal",
            "ALTER TABLE messages ADD COLUMN mine",
            "CREATE TRIGGER mine AFTER INSERT ON messages BEGIN DELETE FROM theirs; END",
            "CREATE TEMP TRIGGER mine AFTER INSERT ON messages BEGIN DELETE FROM theirs; END",
            "CREATE INDEX mine ON messages (message)",
            "CREATE TEMP TABLE mine (x)",
            "CREATE TEMP VIEW mine AS SELECT 1",
        ]

        async def work(db: Any) -> None:
            await db.execute(TABLE)
            for statement in statements:
                try:
                    await db.execute(statement)
                except (apsw.AuthError, apsw.SQLError):
                    seen.append(statement)
            await db.execute("INSERT INTO theirs SELECT message FROM messages")

        self.successResultOf(self.begin(work, message(b"b")))
        self.assertEqual(seen, statements)
        self.assertEqual((self.theirs(), len(self.rows())), ([b"b"], 1))
        self.assertEqual(self.append(b"c"), [2])


class Turns(TransactionCase, LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.gates: dict[str, Deferred[None]] = {}

    def hold(self, name: str, value: Any = None) -> Any:
        """Work that stays in its transaction until its gate fires."""
        self.gates[name] = Deferred()

        async def work(db: Any) -> Any:
            if value is not None:
                await self.insert(value)(db)
            await self.gates[name]
            return db.sequence

        return work

    def open(self, name: str) -> None:
        self.gates[name].callback(None)
        self.clock.advance(0)

    def test_one_at_a_time(self) -> None:
        """Transactions wait for the one under way; so do batches, which are committed with it."""
        self.append(b"a")
        commits: list[int] = []

        def count() -> bool:
            commits.append(1)
            return False  # that is, let it commit

        self.journal._writer._connection.set_commit_hook(count)
        first = self.begin(self.hold("first", 1), message(b"b"))
        batch = started(self.journal.append(Batch(0, 1, "", [b"c"])))
        second = self.begin(self.hold("second", 2), message(b"d"))
        late = started(self.journal.append(Batch(0, 1, "", [b"e"])))
        self.clock.advance(0)
        for deferred in (first, batch, second, late):
            self.assertNoResult(deferred)
        self.open("first")
        self.assertEqual(self.successResultOf(first), 2)
        self.assertEqual(list(self.successResultOf(batch).sequences), [3])
        self.assertEqual(commits, [1])
        self.assertNoResult(second)
        self.open("second")
        self.assertEqual(self.successResultOf(second), 4)
        self.assertEqual(list(self.successResultOf(late).sequences), [5])
        self.assertEqual(self.theirs(), [1, 2])
        self.assertEqual([row[4] for row in self.rows()], [b"a", b"b", b"c", b"d", b"e"])

    def test_abandoned(self) -> None:
        """A transaction whose handler was cancelled before its turn has none."""
        first = self.begin(self.hold("first", 1))
        second = self.begin(self.hold("second", 2), message(b"b"))
        third = self.begin(self.insert(3))
        second.cancel()
        self.failureResultOf(second)
        self.open("first")
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual((self.theirs(), self.rows()), ([1, 3], []))

    def test_abandoned_as_it_begins(self) -> None:
        """Nor one whose transaction has begun meanwhile."""
        self.append(b"a")
        jobs: list[Any] = []
        worker, self.journal._writer_thread = self.journal._writer_thread, Later(jobs)
        first = self.begin(self.hold("first"), message(b"b"))
        jobs.pop()()
        first.cancel()
        self.failureResultOf(first)
        self.journal._writer_thread = worker
        self.clock.advance(0)
        self.assertEqual(self.append(b"c"), [2])
        self.assertEqual([row[4] for row in self.rows()], [b"a", b"c"])

    def test_cancelled(self) -> None:
        """One that is cancelled in the middle is undone, and others go on."""
        first = self.begin(self.hold("first", 1), message(b"b"))
        batch = started(self.journal.append(Batch(0, 1, "", [b"c"])))
        first.cancel()
        self.failureResultOf(first)
        self.clock.advance(0)
        self.assertEqual(list(self.successResultOf(batch).sequences), [1])
        self.assertEqual(self.theirs(), [])

    def test_too_long(self) -> None:
        """One that takes too long is undone, so that others go on; its handler is told."""
        first = self.begin(self.hold("first", 1), message(b"b"))
        batch = started(self.journal.append(Batch(0, 1, "", [b"c"])))
        for _ in range(TICKS):
            self.journal.tick()
            self.clock.advance(0)
        self.assertNoResult(batch)
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(list(self.successResultOf(batch).sequences), [1])
        self.open("first")
        failure = self.failureResultOf(first, HandlerError)
        self.assertRegex(str(failure.value), "took longer than 5 seconds")
        (line,) = self.logged(LogLevel.warn, namespace="mtserver.journal")
        self.assertRegex(line, "the handler of client 7 has kept the journal's transaction for 5 s: it was undone")
        self.assertEqual(self.theirs(), [])

    def test_statement_without_end(self) -> None:
        """A statement that does not end is ended with its transaction, however soon it began, so that others go on."""
        self.office.leave()
        office = Offload(LoopCalls(self.clock), InPlace())
        office.enter()
        self.addCleanup(self.office.enter)
        self.addCleanup(office.leave)
        journal: Any = opened(self.folder / "threaded.db")
        endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

        async def whole() -> None:
            async with journal.transaction(message(b"b")) as db:
                await db.execute(endless)

        def until(condition: Any) -> None:
            end = time.monotonic() + DEADLINE
            while not condition() and time.monotonic() < end:
                self.clock.advance(0)
                time.sleep(0.001)

        interrupt, interrupts = journal._writer.interrupt, []

        def too_early() -> None:
            """The first time, nothing has begun yet."""
            interrupts.append(1)
            if len(interrupts) > 1:
                interrupt()

        journal._writer.interrupt = too_early
        first = started(whole())
        until(lambda: journal._writer._authorizer.is_restricted)
        batch = started(journal.append(Batch(0, 1, "", [b"c"])))
        for _ in range(TICKS):
            journal.tick()

        def is_stored() -> bool:
            journal.tick()
            return batch.called

        until(is_stored)
        seen = batch.called
        interrupt()  # or it would never end, should the test fail
        closed = started(journal.close())
        until(lambda: closed.called)
        self.failureResultOf(first, apsw.InterruptError)
        self.assertTrue(seen)
        self.assertEqual(list(self.successResultOf(batch).sequences), [1])

    def test_afterwards(self) -> None:
        """Outside its block it does nothing."""
        kept: list[Any] = []

        async def work(db: Any) -> None:
            kept.append(db)

        self.successResultOf(self.begin(work))
        with self.assertRaisesRegex(HandlerError, "not under way"):
            kept[0].execute("SELECT 1")
        with self.assertRaisesRegex(HandlerError, "not under way"):
            kept[0].executemany("SELECT ?", [(1,)])

    def test_closed(self) -> None:
        """A transaction under way at the close is rolled back; batches behind it are stored."""
        first = self.begin(self.hold("first", 1), message(b"b"))
        second = self.begin(self.insert(2))
        batch = started(self.journal.append(Batch(0, 1, "", [b"c"])))
        self.close()
        self.assertEqual(list(self.successResultOf(batch).sequences), [1])
        self.assertNoResult(second)
        self.open("first")
        self.failureResultOf(first, HandlerError)
        self.assertEqual(self.theirs(), [])


class Failures(TransactionCase):
    def test_locked(self) -> None:
        """Where it cannot begin, it is unavailable; afterwards it works again."""
        self.append(b"a")
        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.failureResultOf(self.begin(self.insert(1), message(b"b")), Unavailable)
        other.execute("ROLLBACK")
        self.assertEqual(self.successResultOf(self.begin(self.insert(1), message(b"b"))), 2)

    def test_full(self) -> None:
        """A full disk in the middle undoes it all, also where the handler catches the error."""
        for catches in (False, True):
            self.append(b"a")
            connection = self.journal._writer._connection

            async def work(db: Any, connection: Any = connection, catches: bool = catches) -> None:
                await db.execute(TABLE)
                connection.pragma("max_page_count", connection.pragma("page_count") + 1)
                try:
                    await db.execute("INSERT INTO theirs VALUES (zeroblob(1000000))")
                except Unavailable:
                    if not catches:
                        raise

            before = len(self.rows())
            self.failureResultOf(self.begin(work, message(b"b")), Unavailable)
            self.assertEqual(len(self.rows()), before)
            self.close()
            self.journal = opened(self.path)

    def test_commit_fails(self) -> None:
        """Where the commit fails nothing is kept, and its handler is told; batches with it as well."""
        self.append(b"a")
        connection = self.journal._writer._connection
        gate: Deferred[None] = Deferred()

        async def work(db: Any) -> None:
            await self.insert(1)(db)
            await gate

        deferred = self.begin(work, message(b"b", "1"))
        batch = started(self.journal.append(Batch(0, 1, "", [b"c"])))
        connection.set_commit_hook(lambda: True)
        gate.callback(None)
        self.clock.advance(0)
        self.failureResultOf(deferred, Unavailable)
        self.failureResultOf(batch, Unavailable)
        self.assertEqual((self.theirs(), len(self.rows())), ([], 1))
        self.assertEqual(self.successResultOf(self.begin(self.insert(1), message(b"b", "1"))), 2)


class Controls(ControlCase):
    def test_effect_without_its_message(self) -> None:
        """P1: what a handler did before it raised is kept."""
        right = SqliteTransaction.__aexit__

        async def wrong(transaction: SqliteTransaction, _kind: object, _error: object, _trace: object) -> None:
            await right(transaction, None, None, None)

        with self.noticed_by(Together, "test_raised"):
            self.patch(SqliteTransaction, "__aexit__", wrong)

    def test_commit_that_failed(self) -> None:
        """P7: a transaction whose commit fails is called stored."""
        right = Writer.commit_with

        def wrong(writer: Writer, batches: Any) -> Any:
            outcome = right(writer, batches)
            return [Stored(())] * len(batches) if isinstance(outcome, Unavailable) else outcome

        with self.noticed_by(Failures, "test_commit_fails"):
            self.patch(Writer, "commit_with", wrong)
