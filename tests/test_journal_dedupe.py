"""Ids in the journal: a message that comes again under the same identity and name is stored once, within the window."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import LogLevel

from mtserver.concurrency.threads import InPlace
from mtserver.journal import Batch, Last, Record, Stored
from mtserver.journal.sqlite import dedupe as module
from mtserver.journal.sqlite import writer
from mtserver.journal.sqlite.insertion import Insertion
from mtserver.journal.sqlite.writer import Writer
from tests.controls import ControlCase
from tests.journalcase import JournalCase, Later, opened, started
from tests.logcase import LogCase


def batch(*ids: str, name: str = "bob", identity: str = "", at: float = 1000.0, text: str = "message") -> Batch:
    return Batch(at, 7, "192.0.2.2:1", [f"{text} {each}".encode() for each in ids], identity, name, ids)


class IdsCase(JournalCase):
    def store(self, *ids: str, **more: Any) -> tuple[list[int], list[int]]:
        """The numbers, and the places of duplicates."""
        stored: Stored = self.result(self.journal.append(batch(*ids, **more)))
        return list(stored.sequences), sorted(stored.duplicates)

    def reopen(self, **settings: Any) -> None:
        self.close()
        self.journal = opened(self.path, **settings)

    def looked(self, sql: str) -> list[Any]:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        self.addCleanup(connection.close)
        return list(connection.execute(sql))

    def assert_sound(self) -> None:
        """No id of a source stands twice, and each of those known has a message."""
        self.assertEqual(self.looked("SELECT source, id FROM messages GROUP BY source, id HAVING count(*) > 1"), [])
        self.assertEqual(self.looked("SELECT * FROM ids WHERE seq NOT IN (SELECT seq FROM messages)"), [])


class Once(IdsCase):
    def test_again(self) -> None:
        """The same id gets the same number, whatever comes with it, and nothing is stored."""
        self.assertEqual(self.store("1", "2"), ([1, 2], []))
        self.assertEqual(self.store("2", "3", text="other"), ([2, 3], [0]))
        self.assertEqual(self.store("1", "2", "3"), ([1, 2, 3], [0, 1, 2]))
        self.assertEqual([row[4] for row in self.rows()], [b"message 1", b"message 2", b"other 3"])
        self.assert_sound()

    def test_twice_in_one_batch(self) -> None:
        """Equal ids in one batch are stored once."""
        self.assertEqual(self.store("1", "1", "2", "1", "2"), ([1, 1, 2, 1, 2], [1, 3, 4]))
        self.assert_sound()

    def test_twice_in_one_commit(self) -> None:
        """Equal ids of several batches in one commit are stored once."""
        jobs: list[Any] = []
        self.journal._writer_thread = Later(jobs)
        first = started(self.journal.append(Batch(0, 1, "", [b"x"])))
        others = [started(self.journal.append(batch(*ids))) for ids in (("1", "2"), ("2", "3"), ("1",))]
        for _ in range(2):
            jobs.pop()()
            self.clock.advance(0)
        self.journal._writer_thread = InPlace()
        self.successResultOf(first)
        stored = [self.successResultOf(each) for each in others]
        self.assertEqual([list(each.sequences) for each in stored], [[2, 3], [3, 4], [2]])
        self.assertEqual([sorted(each.duplicates) for each in stored], [[], [0], [0]])
        self.assert_sound()

    def test_many(self) -> None:
        """More ids than go into one statement."""
        names = [str(number) for number in range(150)]
        self.assertEqual(self.store(*names), (list(range(1, 151)), []))
        self.assertEqual(self.store(*names, "new"), (list(range(1, 152)), list(range(150))))
        self.assert_sound()

    def test_after_a_restart(self) -> None:
        """An id is known after the journal has been closed and opened."""
        self.store("1", "2")
        self.reopen()
        self.assertEqual(self.store("2", "3"), ([2, 3], [0]))

    def test_through_another_process(self) -> None:
        """An id is known through another journal on the same file."""
        other: Any = opened(self.path)
        self.addCleanup(lambda: self.result(other.close()))
        self.store("1")
        stored = self.result(other.append(batch("1", "2")))
        self.assertEqual((list(stored.sequences), stored.duplicates), ([1, 2], {0}))
        self.assertEqual(self.store("2", "3"), ([2, 3], [0]))
        self.assert_sound()

    def test_whose(self) -> None:
        """An id is known by identity and name together: nobody takes another's."""
        who = [("", "bob"), ("", "eve"), ("bob", ""), ("bob", "bob"), ("bob/bob", ""), ("eve", "bob")]
        for number, (identity, name) in enumerate(who, 1):
            self.assertEqual(self.store("1", identity=identity, name=name), ([number], []))
        for number, (identity, name) in enumerate(who, 1):
            self.assertEqual(self.store("1", identity=identity, name=name), ([number], [0]))

    def test_nobodys(self) -> None:
        """Ids need somebody whose they are, and one for each message."""
        for wrong in (batch("1", name=""), batch("1", "2")._replace(ids=["1"])):
            self.failureResultOf(self.tried(wrong))
        self.assertEqual(self.append(b"x"), [1])

    def tried(self, batch: Batch) -> Any:
        deferred = started(self.journal.append(batch))
        self.clock.advance(0)
        return deferred

    def test_nothing_of_what_was_rolled_back_is_known(self) -> None:
        """A message that could not be stored is no duplicate when it comes again, nor is its source remembered."""
        self.store("1", name="eve")
        connection = self.journal._writer._connection
        connection.pragma("max_page_count", connection.pragma("page_count") + 1)
        large = batch("1")._replace(messages=[b"x" * 100_000])
        self.failureResultOf(self.tried(large))
        connection.pragma("max_page_count", 1_000_000)
        self.assertEqual(self.store("1", name="carol"), ([2], []))
        self.assertEqual(self.store("1"), ([3], []))
        self.assertEqual(
            self.looked("SELECT name, seq FROM messages JOIN sources USING (source) ORDER BY seq"),
            [("eve", 1), ("carol", 2), ("bob", 3)],
        )

    def test_sources_removed_by_somebody_else(self) -> None:
        """Where another process has removed a source, it is made again, and no other's number is used for it."""
        self.store("1")
        other = apsw.Connection(str(self.path))
        other.execute("DELETE FROM ids; DELETE FROM messages; DELETE FROM sources")
        other.execute("INSERT INTO sources (identity, name) VALUES ('', 'eve')")
        other.close()
        self.assertEqual(self.store("1"), ([2], []))
        self.assertEqual(self.looked("SELECT name FROM messages JOIN sources USING (source)"), [("bob",)])

    def test_duplicates_are_on_disk(self) -> None:
        """A duplicate is only called stored when what it is a duplicate of is on disk, whoever has stored it."""
        synced: list[Path] = []
        self.store("1")
        self.patch(writer, "sync_log", synced.append)
        self.store("2")
        self.assertEqual(synced, [])  # its own commit has waited
        self.store("1", "2")
        self.assertEqual(synced, [self.path.absolute()])


class Windows(IdsCase, LogCase):
    def test_time(self) -> None:
        """Out of the window, an id is as good as new; and then known again."""
        self.reopen(dedupe_window=100)
        self.store("1", "2", at=1000)
        self.assertEqual(self.store("1", at=1099), ([1], [0]))
        self.assertEqual(self.store("1", at=1100), ([3], []))
        self.assertEqual(self.store("1", at=1199), ([3], [0]))

    def test_forgotten(self) -> None:
        """Ids out of the window are removed, in steps; messages stay."""
        self.patch(module, "PRUNED", 3)
        self.reopen(dedupe_window=100)
        now = time.time()
        self.store("1", "2", "3", "4", at=now - 200)
        self.store("5", at=now)
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(self.looked("SELECT id FROM ids ORDER BY seq"), [("4",), ("5",)])
        self.journal.tick()
        self.clock.advance(0)
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(self.looked("SELECT id FROM ids ORDER BY seq"), [("5",)])
        self.assertEqual(len(self.rows()), 5)
        self.assertEqual(self.logged(LogLevel.warn, namespace="mtserver.journal"), [])

    def test_too_many(self) -> None:
        """Ids of more messages than --dedupe-messages are forgotten early, which is said once."""
        self.reopen(dedupe_messages=3)
        for number in range(6):
            self.store(str(number), at=time.time())
            self.journal.tick()
            self.clock.advance(0)
        self.assertEqual(self.looked("SELECT id FROM ids ORDER BY seq"), [("3",), ("4",), ("5",)])
        (line,) = self.logged(LogLevel.warn, namespace="mtserver.journal")
        self.assertRegex(line, "ids are forgotten after 0 s already, since there are more than --dedupe-messages 3")

    def test_nothing_to_forget(self) -> None:
        """A journal without ids is not written to by the look at them."""
        self.append(b"x")
        size = Path(f"{self.path}-wal").stat().st_size
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(Path(f"{self.path}-wal").stat().st_size, size)


class Resuming(IdsCase):
    def last(self, identity: str, name: str) -> Any:
        return self.result(self.journal.last(identity, name))

    def test_last(self) -> None:
        """The last id that was stored under a name, also when it is known no more."""
        self.assertIsNone(self.last("", "bob"))
        self.store("1", "2", "1")
        self.store("7", name="eve")
        self.assertEqual(self.last("", "bob"), Last(2, "2"))
        self.assertEqual(self.last("", "eve"), Last(3, "7"))
        self.assertIsNone(self.last("bob", "bob"))
        self.reopen(dedupe_messages=1)
        self.store("8", name="eve")
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(self.last("", "bob"), Last(2, "2"))

    def test_duplicates_do_not_count(self) -> None:
        """A duplicate does not become the last message."""
        self.store("1", "2", "3")
        self.store("1")
        self.assertEqual(self.last("", "bob"), Last(3, "3"))

    def test_a_source_without_ids(self) -> None:
        """Messages of a known source may have no ids."""
        self.result(self.journal.append(Batch(0, 1, "", [b"x"], "alice")))
        self.assertIsNone(self.last("alice", ""))

    def test_unavailable(self) -> None:
        """Where the journal cannot be opened, nobody is told anything."""
        self.close()
        (self.folder / "journal.db-wal").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(b"no database, but a text" * 1000)
        self.journal = type(opened(self.folder / "other.db"))(self.path)
        deferred = started(self.journal.last("", "bob"))
        self.clock.advance(0)
        self.failureResultOf(deferred)


class Reading(IdsCase):
    def test_read(self) -> None:
        """Messages are read back with all that is known of them, in pages."""
        self.append(b"a")
        self.store("1", "2", identity="alice", at=5)
        records = self.result(self.journal.read())
        address = "192.0.2.2:1"
        self.assertEqual(
            records,
            [
                Record(1, 1.5, 7, address, "", "", "", b"a"),
                Record(2, 5, 7, address, "alice", "bob", "1", b"message 1"),
                Record(3, 5, 7, address, "alice", "bob", "2", b"message 2"),
            ],
        )
        self.assertEqual(self.result(self.journal.read(after=1, limit=1)), records[1:2])
        self.assertEqual(self.result(self.journal.read(after=3)), [])
        self.assertEqual(self.result(self.journal.position()), 3)

    def test_new(self) -> None:
        """A journal that has not been made yet is an empty one, whatever it is asked first."""
        self.assertEqual(self.result(self.journal.position()), 0)
        self.reopen()
        self.assertEqual(self.result(self.journal.read()), [])
        self.assertIsNone(self.result(self.journal.last("", "bob")))

    def test_only_to_be_read(self) -> None:
        """A file that cannot be written to now can still be read."""
        self.append(b"a")
        self.reopen()

        def fail(*_args: Any) -> None:
            raise apsw.ReadOnlyError("read only")

        self.patch(self.journal._writer, "_connected", fail)
        self.assertEqual([record.message for record in self.result(self.journal.read())], [b"a"])


class Controls(ControlCase):
    def test_stored_twice(self) -> None:
        """P2: no id is ever known."""
        with self.noticed_by(Once, "test_again"):
            self.patch(module, "known", lambda *_: {})

    def test_known_though_rolled_back(self) -> None:
        """P2: what could not be stored is remembered as if it had been."""
        with self.noticed_by(Once, "test_nothing_of_what_was_rolled_back_is_known"):
            self.patch(Insertion, "forget", lambda _insertion: None)

    def test_a_duplicate_that_is_not_on_disk(self) -> None:
        """P1: a duplicate is called stored, whatever became of what it is a duplicate of."""
        with self.noticed_by(Once, "test_duplicates_are_on_disk"):
            self.patch(Writer, "_end", lambda _writer, connection, _stored: connection.execute("COMMIT"))

    def test_ids_without_end(self) -> None:
        """P8: ids are kept for ever."""
        with self.noticed_by(Windows, "test_too_many"):
            self.patch(module, "prune", lambda *_: None)
