"""Reading a journal: all of what is wanted, once and in order, and no snapshot held for longer than a page takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mtserver.journal.command.follow import Follower
from mtserver.journal.sqlite import reading
from mtserver.journal.sqlite.file import Damaged, NotAJournal
from mtserver.journal.sqlite.reading import Filter
from tests.journalfile import batch, write, write_version_1, writer


class ReadingCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp()).absolute() / "journal.db"
        self.path.parent.mkdir()

    def opened(self) -> apsw.Connection:
        connection = reading.open_existing(self.path)
        self.addCleanup(connection.close)
        return connection

    def found(self, connection: apsw.Connection, **wanted: Any) -> list[int]:
        after = wanted.pop("after", 0)
        pages = reading.pages(connection, after, Filter(**wanted))
        return [record.sequence for page in pages for record in page.records]


class Pages(ReadingCase):
    def test_all(self) -> None:
        """Pages together are all messages, in order, whatever numbers are missing."""
        self.patch(reading, "ROWS", 7)
        write(self.path, batch(40))
        other = apsw.Connection(str(self.path))
        other.execute("DELETE FROM messages WHERE seq < 5 OR seq BETWEEN 11 AND 30")
        other.close()
        connection = self.opened()
        self.assertEqual(self.found(connection), [*range(5, 11), *range(31, 41)])
        self.assertEqual(self.found(connection, after=8, to=33), [9, 10, 31, 32, 33])

    def test_filters(self) -> None:
        """Client, identity, name, id and time narrow it down, each alone and together."""
        write(
            self.path,
            batch(2, at=100, client=1),
            batch(2, at=200, client=2, identity="alice", name="a", ids=["x", "y"]),
            batch(2, at=300, client=3, identity="alice", name="b", ids=["x", "z"]),
            batch(1, at=400, client=3, name="a"),
        )
        connection = self.opened()
        for wanted, sequences in (
            ({"client": 3}, [5, 6, 7]),
            ({"identity": "alice"}, [3, 4, 5, 6]),
            ({"identity": ""}, [1, 2, 7]),
            ({"name": "a"}, [3, 4, 7]),
            ({"id": "x"}, [3, 5]),
            ({"id": ""}, [1, 2, 7]),
            ({"since": 200}, [3, 4, 5, 6, 7]),
            ({"since": 200, "until": 400}, [3, 4, 5, 6]),
            ({"identity": "alice", "name": "b", "id": "z", "client": 3, "since": 1, "until": 999, "to": 6}, [6]),
            ({"identity": "bob"}, []),
        ):
            self.assertEqual(self.found(connection, **wanted), sequences, wanted)

    def test_bounded(self) -> None:
        """A page looks at so many rows, also where none is wanted, and holds so many bytes and one message more."""
        self.patch(reading, "ROWS", 10)
        self.patch(reading, "BYTES", 1000)
        write(self.path, batch(30, size=10), batch(5, size=600, client=2))
        connection = self.opened()
        self.assertEqual(reading.read_page(connection, 0, Filter(client=2)), ([], 10, False))
        page = reading.read_page(connection, 30)
        self.assertEqual(([record.sequence for record in page.records], page.after), ([31, 32], 32))
        self.assertEqual(self.found(connection, client=2), [31, 32, 33, 34, 35])

    def test_no_snapshot_is_held(self) -> None:
        """Between two pages the write-ahead log can be emptied, whoever has read, and however little of a page."""
        self.patch(reading, "ROWS", 10)
        self.patch(reading, "BYTES", 20)
        journal = writer(self.path)
        self.addCleanup(journal.close)
        journal.commit([batch(50)])
        connection = self.opened()
        pages = reading.pages(connection)
        for _ in range(3):
            next(pages)
            journal.commit([batch(1)])
            assert journal._connection is not None
            busy = journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.assertEqual(busy, (0, 0, 0))

    def test_last(self) -> None:
        """Where the last so many begin."""
        connection = write_version_1(self.path, *[b"x"] * 9)
        self.addCleanup(connection.close)
        connection.execute("DELETE FROM messages WHERE seq IN (1, 8)")
        for count, after in ((0, 9), (1, 8), (2, 6), (3, 5), (100, 1)):
            self.assertEqual(reading.before_the_last(connection, count), after)

    def test_nothing_is_written(self) -> None:
        """A journal of version 1 is read as it is, and its bytes are what they were."""
        write_version_1(self.path, b"a", b"b").close()
        before = self.path.read_bytes()
        connection = self.opened()
        records = [record for page in reading.pages(connection) for record in page.records]
        self.assertEqual([tuple(record) for record in records][1], (2, 2.0, 2, "192.0.2.1:1", "", "", "", b"b"))
        self.assertEqual(self.found(connection, identity=""), [1, 2])
        self.assertEqual(self.found(connection, identity="alice"), [])
        self.assertRaises(apsw.ReadOnlyError, connection.execute, "DELETE FROM messages")
        self.assertEqual(self.path.read_bytes(), before)

    def test_copy_that_nobody_writes(self) -> None:
        """A file that lies where nothing can be made beside it is read, but not without its write-ahead log."""
        write(self.path, batch(3))
        connection = reading._open_unchanging(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(self.found(connection), [1, 2, 3])
        Path(f"{self.path}-wal").write_bytes(b"x" * 100)
        self.assertRaises(NotAJournal, reading._open_unchanging, self.path)

    def test_not_a_journal(self) -> None:
        """A file that is no journal is named with the reason."""
        text = self.path.with_name("text")
        text.write_text("a letter" * 1000)
        other = self.path.with_name("other")
        connection = apsw.Connection(str(other))
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
        for path, reason in (
            (self.path, "no such file"),
            (self.path.parent, "a folder"),
            (text, "not a database"),
            (other, "not a journal"),
        ):
            with self.assertRaisesRegex(NotAJournal, reason):
                reading.open_existing(path)

    def test_wrong_values(self) -> None:
        """A value that cannot be one of a message is damage, and not a message."""
        for value in ("client = 'x'", "message = 'text'", "time = 'noon'", "address = CAST(x'ff' AS TEXT)"):
            self.path.unlink(missing_ok=True)
            write(self.path, batch(3))
            other = apsw.Connection(str(self.path))
            other.execute(f"UPDATE messages SET {value} WHERE seq = 2")
            other.close()
            connection = self.opened()
            self.assertRaises(Damaged, reading.read_page, connection, 0)


class Following(ReadingCase):
    def setUp(self) -> None:
        super().setUp()
        self.moves = 0
        self.journal = writer(self.path)
        self.addCleanup(self.journal.close)
        self.journal.commit([batch(3)])

    def follow(self, after: int = 0, **wanted: Any) -> Follower:
        def moved() -> None:
            self.moves += 1

        follower = Follower(self.path, after, Filter(**wanted), moved)
        self.addCleanup(follower.close)
        return follower

    def polled(self, follower: Follower) -> list[int]:
        """All that it has for now."""
        sequences: list[int] = []
        while records := follower.poll():
            sequences += [record.sequence for record in records]
        return sequences

    def test_each_once(self) -> None:
        """Messages stored between two polls come with the next, once and in order, by pages."""
        self.patch(reading, "ROWS", 4)
        follower = self.follow()
        self.assertEqual(self.polled(follower), [1, 2, 3])
        self.assertEqual(self.polled(follower), [])
        self.journal.commit([batch(10)])
        self.assertEqual(self.polled(follower), [*range(4, 14)])
        self.journal.commit([batch(1)])
        self.journal.commit([batch(1)])
        self.assertEqual(self.polled(follower), [14, 15])

    def test_filtered(self) -> None:
        """Pages in which nothing is wanted are no end."""
        self.patch(reading, "ROWS", 2)
        follower = self.follow(2, client=2)
        self.assertEqual(self.polled(follower), [])
        self.journal.commit([batch(9), batch(1, client=2), batch(9), batch(1, client=2)])
        self.assertEqual(self.polled(follower), [13, 23])

    def test_nothing_new_is_cheap(self) -> None:
        """Where nothing has happened no row is looked at."""
        follower = self.follow()
        self.polled(follower)
        statements: list[str] = []

        def trace(_cursor: Any, sql: str, _bindings: Any) -> bool:
            statements.append(sql)
            return True

        follower._connection.exec_trace = trace
        for _ in range(5):
            self.assertEqual(follower.poll(), [])
        self.assertEqual([sql for sql in statements if "messages" in sql], [])

    def test_moved(self) -> None:
        """Moved away and begun anew: first what is still in the old file, then the new one; and that is said, once."""
        self._move([""])

    def test_moved_with_its_log(self) -> None:
        """The same if what belongs to the file is moved with it."""
        self._move(["", "-wal", "-shm"])

    def _move(self, endings: list[str]) -> None:
        follower = self.follow()
        self.assertEqual(self.polled(follower), [1, 2, 3])
        self.journal.commit([batch(3)])
        for ending in endings:
            Path(f"{self.path}{ending}").rename(self.path.with_name(f"old.db{ending}"))
        self.journal.commit([batch(4)])
        self.assertEqual(self.polled(follower), [4, 5, 6, 1, 2, 3, 4])
        self.assertEqual(self.moves, 1)
        self.journal.commit([batch(1)])
        self.assertEqual(self.polled(follower), [5])
        self.assertEqual(self.moves, 1)

    def test_moved_away_only(self) -> None:
        """While there is nothing in its place, or not yet a journal, it goes on with the file it has."""
        follower = self.follow()
        self.path.rename(self.path.with_name("old.db"))
        self.assertEqual(self.polled(follower), [1, 2, 3])
        self.path.touch()
        self.assertEqual(self.polled(follower), [])
        self.path.write_text("not a database" * 100)
        self.assertEqual(self.polled(follower), [])
        self.assertEqual(self.moves, 0)

    def test_reader_beside_a_new_file(self) -> None:
        """A reader of a file that was moved away shares nothing with the new one, nor disturbs it."""
        old = self.opened()
        self.assertEqual(self.found(old), [1, 2, 3])
        self.path.rename(self.path.with_name("old.db"))
        self.journal.commit([batch(9)])
        self.assertEqual(self.found(old), [1, 2, 3])
        self.journal.commit([batch(1)])
        self.assertEqual(self.found(self.opened()), [*range(1, 11)])
        self.assertEqual(old.execute("PRAGMA integrity_check").get, "ok")
