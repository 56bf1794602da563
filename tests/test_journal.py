"""The journal: what it has said is stored is stored, in order; what cannot be stored is never said to be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import InPlace
from mtserver.errors import ConfigurationError, Unavailable
from mtserver.journal import Batch, Keep, check_journal, parse_keep
from mtserver.journal.sqlite import file as file_module
from mtserver.journal.sqlite import journal as module
from mtserver.journal.sqlite import schema, writer
from mtserver.journal.sqlite.journal import SqliteJournal
from mtserver.journal.sqlite.writer import Writer
from mtserver.settings import Settings
from tests import DEADLINE
from tests.controls import ControlCase
from tests.journalcase import JournalCase, Later, opened, started


class Storing(JournalCase):
    def test_append(self) -> None:
        """append() gives sequence numbers that grow, and stores the records in their order."""
        self.assertEqual(self.append(b"a", b"b"), [1, 2])
        self.assertEqual(self.append(b"\x00\xff"), [3])
        address = "192.0.2.2:1"
        self.assertEqual(
            self.rows(), [(1, 1.5, 7, address, b"a"), (2, 1.5, 7, address, b"b"), (3, 1.5, 7, address, b"\x00\xff")]
        )

    def test_reopen(self) -> None:
        """Numbers go on where they were, also when the last rows have been deleted since."""
        self.append(b"a", b"b")
        self.close()
        connection = apsw.Connection(str(self.path))
        connection.execute("DELETE FROM messages WHERE seq = 2")
        connection.close()
        self.journal = opened(self.path)
        self.assertEqual(self.append(b"c"), [3])

    def test_durable(self) -> None:
        """The file is in WAL mode, and each commit waits for the disk."""
        self.append(b"a")
        connection = self.journal._writer._connection
        self.assertEqual(connection.pragma("journal_mode"), "wal")
        self.assertEqual(connection.pragma("synchronous"), 2)

    def test_group_commit(self) -> None:
        """Batches appended while a commit is under way go into the next one, together."""
        jobs: list[Any] = []
        self.append(b"first")
        commits: list[int] = []
        self.journal._writer_thread = Later(jobs)

        def count() -> bool:
            commits.append(1)
            return False  # that is, let it commit

        self.journal._writer._connection.set_commit_hook(count)
        outcomes = [started(self.journal.append(Batch(0, n, "", [b"x"]))) for n in range(80)]
        self.assertEqual(len(jobs), 1)  # with the first; all others wait until it is done
        for number in (1, 2):
            jobs.pop()()
            self.assertEqual(len(commits), number)
            self.clock.advance(0)
        self.assertEqual(jobs, [])
        self.assertEqual([list(self.successResultOf(each).sequences) for each in outcomes], [[n] for n in range(2, 82)])
        self.journal._writer_thread = InPlace()

    def test_large_groups(self) -> None:
        """A flood is committed in pieces."""
        self.patch(module, "COMMIT_SIZE", 10)
        self.assertEqual(self.append(*[b"x"] * 25), list(range(1, 26)))
        self.assertEqual(self.append(b"y"), [26])

    def test_sizes(self) -> None:
        """Batches of all sizes, in one commit, are stored whole and in order; each gets its own numbers."""
        jobs: list[Any] = []
        self.journal._writer_thread = Later(jobs)
        sizes = [1, 5, 6, 3, 64, 65, 1, 200, 2, 0, *[1] * 70, 7]
        batches = [Batch(n, n, f"peer {n}", [b"%d %d" % (n, m) for m in range(size)]) for n, size in enumerate(sizes)]
        outcomes = [started(self.journal.append(batch)) for batch in batches]
        for _ in range(2):
            jobs.pop()()
            self.clock.advance(0)
        self.journal._writer_thread = InPlace()
        seen = [number for each in outcomes for number in self.successResultOf(each).sequences]
        self.assertEqual(seen, list(range(1, sum(sizes) + 1)))
        wanted = [(n, n, f"peer {n}", b"%d %d" % (n, m)) for n, size in enumerate(sizes) for m in range(size)]
        self.assertEqual([row[1:] for row in self.rows()], wanted)

    def test_callers_list(self) -> None:
        """Changes that the caller makes to its list afterwards change nothing that is stored."""
        messages = [b"a", b"b"]
        jobs: list[Any] = []
        self.journal._writer_thread = Later(jobs)
        outcome = started(self.journal.append(Batch(0, 1, "", messages)))
        messages.clear()
        jobs.pop()()
        self.clock.advance(0)
        self.journal._writer_thread = InPlace()
        self.assertEqual((list(self.successResultOf(outcome).sequences), len(self.rows())), ([1, 2], 2))

    def test_another_process(self) -> None:
        """Two journals on one file never give one number twice."""
        other: Any = opened(self.path)
        self.addCleanup(lambda: self.result(other.close()))
        seen = self.append(b"a")
        seen += list(self.result(other.append(Batch(0, 1, "", [b"b"]))).sequences)
        seen += self.append(b"c")
        self.assertEqual(seen, [1, 2, 3])

    def test_real_thread(self) -> None:
        """Batches that come while the writer's thread commits are stored, each once and in order."""
        self.office.leave()
        office = Offload(LoopCalls(self.clock), InPlace())
        office.enter()
        journal: Any = opened(self.folder / "threaded.db")
        outcomes: list[Any] = []
        for number in range(100):
            outcomes.append(started(journal.append(Batch(0, number, "", [b"x"]))))
            self.clock.advance(0)
        end = time.monotonic() + DEADLINE
        while not outcomes[-1].called and time.monotonic() < end:
            self.clock.advance(0)
            time.sleep(0.001)
        self.assertEqual(
            [list(self.successResultOf(each).sequences) for each in outcomes], [[n] for n in range(1, 101)]
        )
        outcome = started(journal.append(Batch(0, 100, "", [b"x"])))
        closed = started(journal.close())  # at once, and yet it is stored and answered
        while not closed.called and time.monotonic() < end:
            self.clock.advance(0)
            time.sleep(0.001)
        self.assertEqual((list(self.successResultOf(outcome).sequences), self.successResultOf(closed)), ([101], None))
        office.leave()
        self.office.enter()
        connection = apsw.Connection(str(self.folder / "threaded.db"))
        self.addCleanup(connection.close)
        clients = [row[0] for row in connection.execute("SELECT client FROM messages ORDER BY seq")]
        self.assertEqual(clients, list(range(101)))

    def test_closed_at_once(self) -> None:
        """Batches appended right before the close are stored and answered."""
        outcomes = [started(self.journal.append(Batch(0, n, "", [b"x"]))) for n in range(3)]
        journal, self.journal = self.journal, None
        closed = started(journal.close())
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertIsNone(journal._writer._connection, "opened again")
        self.assertEqual([list(self.successResultOf(each).sequences) for each in outcomes], [[1], [2], [3]])


class Faults(JournalCase):
    def test_locked(self) -> None:
        """While another process has the file locked it is unavailable; afterwards it works again."""
        self.append(b"a")
        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assert_unavailable()
        self.assert_unavailable()
        other.execute("ROLLBACK")
        self.assertEqual(self.append(b"b"), [2])
        self.assertEqual([row[4] for row in self.rows()], [b"a", b"b"])

    def test_full(self) -> None:
        """When the disk is full nothing is stored in part, nothing is said to be, and it recovers by itself."""
        self.append(b"a")
        connection = self.journal._writer._connection
        connection.pragma("max_page_count", connection.pragma("page_count") + 1)
        deferred = started(self.journal.append(Batch(0, 1, "", [b"x" * 1000] * 100)))
        self.clock.advance(0)
        self.failureResultOf(deferred, Unavailable)
        connection.pragma("max_page_count", 1000000)
        self.assertEqual(self.append(b"b"), [2])
        self.assertEqual([row[4] for row in self.rows()], [b"a", b"b"])

    def test_folder_comes_later(self) -> None:
        """A place that cannot be opened yet is tried again with each append."""
        self.close()
        self.journal = module.SqliteJournal(self.folder / "later" / "journal.db")
        self.assert_unavailable()
        (self.folder / "later").mkdir()
        self.assertEqual(self.append(b"a"), [1])

    def test_replaced(self) -> None:
        """A file moved away under the server is not written to any more: a new one is begun in its place."""
        self.append(b"a", b"b")
        self.path.rename(self.folder / "moved.db")
        for extra in ("-wal", "-shm"):
            Path(f"{self.path}{extra}").unlink(missing_ok=True)
        self.assertEqual(self.append(b"c"), [1])
        self.assertEqual([row[4] for row in self.rows()], [b"c"])

    def test_foreign(self) -> None:
        """Another program's database, or a file that is no database, is left as it is."""
        foreign = self.folder / "foreign.db"
        connection = apsw.Connection(str(foreign))
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
        text = self.folder / "text.db"
        text.write_bytes(b"no database, but a text" * 1000)
        for path in (foreign, text):
            before = path.read_bytes()
            with self.assertRaisesRegex(ConfigurationError, "that is a (file|database), but not a"):
                opened(path)
            self.close()
            self.journal = module.SqliteJournal(path)
            self.assert_unavailable()
            self.assert_unavailable()
            self.assertEqual(path.read_bytes()[100:], before[100:])

    def test_looked_at(self) -> None:
        """A journal of ours, also an empty file and one that cannot be read now, passes the look before the start."""
        self.append(b"a")
        self.assertEqual(file_module.file_problem(self.path), "")
        empty = self.folder / "empty.db"
        empty.touch()
        self.assertEqual(file_module.file_problem(empty), "")
        self.assertEqual(file_module.file_problem(self.folder), "")

    def test_failed_fsync(self) -> None:
        """After a failed fsync nothing is acknowledged any more: the kernel may have dropped what it did not write."""
        self.append(b"a")

        class FsyncError(apsw.IOError):
            extendedresult = apsw.SQLITE_IOERR_FSYNC

        def fail(*_args: Any) -> None:
            raise FsyncError("disk I/O error")

        self.patch(self.journal._writer, "_connected", fail)
        self.assert_unavailable()
        del self.journal._writer._connected
        self.assert_unavailable()

    def test_made_by_another(self) -> None:
        """Two that begin a new journal at the same moment: the one that is late finds a journal, not a stranger."""
        late = apsw.Connection(str(self.path))
        self.addCleanup(late.close)
        late.execute("PRAGMA journal_mode = WAL").fetchall()
        self.assertFalse(late.table_exists(None, "messages"))
        self.append(b"a")
        self.assertEqual(schema.problem(late), "")

    def test_chores_come_second(self) -> None:
        """However long chores take, and however soon they are due again, those who wait have their turn in between."""
        self.append(b"a")
        jobs: list[Any] = []
        worker, self.journal._writer_thread = self.journal._writer_thread, Later(jobs)
        self.journal.tick()
        outcome = started(self.journal.append(Batch(0, 1, "", [b"b"])))
        for _ in range(2):
            self.journal.tick()  # a second has passed
            jobs.pop(0)()
            self.clock.advance(0)
        self.assertEqual(list(self.successResultOf(outcome).sequences), [2])
        while jobs:
            jobs.pop(0)()
            self.clock.advance(0)
        self.journal._writer_thread = worker

    def test_chores_do_not_wait(self) -> None:
        """Where the file is locked chores are left for later, at once and without a word: nobody asked for them."""
        self.result(self.journal.append(Batch(1, 1, "", [b"a"], "", "bob", ["1"])))
        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        seen: list[int] = []
        connection = self.journal._writer._connection
        connection.set_busy_handler(lambda count: bool(seen.append(count)))  # type: ignore[func-returns-value]
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual((seen, self.journal.trouble), ([], ""))
        other.execute("ROLLBACK")
        self.assertEqual(self.append(b"b"), [2])

    def test_damage_met_by_reading(self) -> None:
        """Damage that nobody meets but by asking where to go on stops the journal all the same, and is logged."""
        self.append(b"a")
        self.close()
        self.journal = opened(self.path)
        self.assertIsNone(self.result(self.journal.last("", "bob")))
        with self.path.open("r+b") as file:
            file.write(b"no database, but a text" * 100)
        deferred = started(self.journal.last("", "bob"))
        self.clock.advance(0)
        self.failureResultOf(deferred, Unavailable)
        self.assertRegex(self.journal.trouble, "damaged")
        self.assert_unavailable()

    def test_moved_before_it_is_asked(self) -> None:
        """Where to go on is asked of the file that has the name, be it a new one by now."""
        self.result(self.journal.append(Batch(1, 1, "", [b"a"], "", "bob", ["1"])))
        self.path.rename(self.folder / "moved.db")
        self.assertIsNone(self.result(self.journal.last("", "bob")))
        self.assertEqual(self.append(b"b"), [1])

    def test_closing_fails(self) -> None:
        """A connection that cannot be closed is let go."""
        self.append(b"a")
        connection = self.journal._writer._connection

        class Stubborn:
            def close(self) -> None:
                raise apsw.BusyError("statements left")

        self.journal._writer._connection = Stubborn()
        self.close()
        connection.close()


class Descriptions(SynchronousTestCase):
    def test_wrong(self) -> None:
        """A --journal that cannot be is named, with what is wrong."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for description, reason in (
            ("redis:x", "not of the form sqlite:PATH"),
            ("sqlite:?durability=fast", "not of the form sqlite:PATH"),
            ("sqlite:x?durability=slow", "behind the \\? may stand durability=fast or durability=full"),
            ("sqlite:x?", "behind the \\? may stand"),
            ("sqlite:", "not of the form sqlite:PATH"),
            ("sqlite", "not of the form sqlite:PATH"),
            (f"sqlite:{folder}", "that is a folder"),
            ("sqlite:/dev/null", "that is no file"),
            (f"sqlite:{folder}/no/where.db", "there is no folder"),
        ):
            with self.assertRaisesRegex(ConfigurationError, reason):
                check_journal(Settings(journal=description))

    def test_level(self) -> None:
        """More than the journal can promise is refused, and nothing is lowered in silence."""
        for ack, journal, reason in (
            ("durable", "sqlite:x?durability=fast", "accepted at most; say --ack accepted, or leave"),
            ("replicated", "sqlite:x", "durable at most; it is one file"),
            ("replicated", "sqlite:x?durability=fast", "accepted at most"),
        ):
            with self.assertRaisesRegex(ConfigurationError, reason):
                check_journal(Settings(journal=journal, ack=ack))
        check_journal(Settings(journal="sqlite:x?durability=full", ack="accepted"))
        check_journal(Settings(journal="sqlite:x?durability=fast", ack="accepted"))

    def test_keep(self) -> None:
        """How much is kept is an age, a size or both."""
        self.assertEqual(parse_keep(""), Keep())
        self.assertEqual(parse_keep("30d"), Keep(age=30 * 86400))
        self.assertEqual(parse_keep("1.5h, 10GB"), Keep(5400, 10**10))
        self.assertEqual(parse_keep("2GiB,90s"), Keep(90, 2 * 2**30))
        for wrong in ("30", "d", "30x", "0d", "-1d", "1d,2d", "1GB,2GB", "1 d d", "1d;2GB"):
            with self.assertRaisesRegex(ConfigurationError, "neither an age nor a size"):
                parse_keep(wrong)
        with self.assertRaisesRegex(ConfigurationError, "--keep: '30x' is neither"):
            check_journal(Settings(journal="sqlite:x", keep="30x"))


class Controls(ControlCase):
    def test_never_committed(self) -> None:
        """P1: what was never committed is called stored."""
        with self.noticed_by(Storing, "test_append"):
            self.patch(Writer, "_end", lambda _writer, connection, _stored: connection.execute("ROLLBACK"))

    def test_no_wait_for_the_disk(self) -> None:
        """P1: a commit does not wait for the disk."""
        with self.noticed_by(Storing, "test_durable"):
            self.patch(writer, "open_for_writing", lambda path, **_: file_module.open_for_writing(path, fast=True))

    def test_forgotten_at_the_close(self) -> None:
        """P1: what waits when the journal is closed is never stored."""
        right = SqliteJournal.close

        def wrong(journal: SqliteJournal) -> Any:
            journal._waiting.clear()
            return right(journal)

        with self.noticed_by(Storing, "test_closed_at_once"):
            self.patch(SqliteJournal, "close", wrong)

    def test_on_after_a_failed_fsync(self) -> None:
        """P1: a failed fsync is an error like any other, after which all is well."""
        with self.noticed_by(Faults, "test_failed_fsync"):
            self.patch(writer, "is_loss", lambda _error: False)

    def test_written_where_nobody_looks(self) -> None:
        """P1: a file that was moved away is written to for ever."""
        with self.noticed_by(Faults, "test_replaced"):
            self.patch(writer, "inode_of", lambda _path: (1, 1))
