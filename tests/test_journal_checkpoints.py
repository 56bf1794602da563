"""Checkpoints: the log starts anew, commits do not wait for it, and a reader that stays is a trouble that is told."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver.journal import Batch
from mtserver.journal.sqlite import checkpoints, file, fsync, writer
from mtserver.journal.sqlite.file import SyncError
from mtserver.journal.sqlite.lock_holders import holders
from tests.controls import ControlCase
from tests.journalcase import JournalCase, opened, started
from tests.logcase import LogCase

#: Bytes of log from which on there is something to do.
ENOUGH = 64 * 1024
#: A message that makes the log longer by that, with two or three pages around it.
LARGE = b"x" * ENOUGH


class FaultyFile(apsw.VFSFile):
    """A file that is SQLite's own, but for syncs that fail."""

    def __init__(self, parent: str, name: Any, flags: list[int], faults: Faults) -> None:
        self._faults = faults
        self._is_database = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__(parent, name, flags)

    def xSync(self, flags: int) -> None:
        if self._is_database:
            self._faults.syncs += 1
            if self._faults.code:
                error: Any = apsw.IOError("the disk is gone")
                error.extendedresult = self._faults.code
                raise error
        super().xSync(flags)


class Faults(apsw.VFS):
    """Files that fail as the test likes: all that are opened while it is there."""

    def __init__(self) -> None:
        #: The error of each sync of a database; 0: none.
        self.code = 0
        #: Number of syncs of a database.
        self.syncs = 0
        (self._parent, *_) = apsw.vfs_names()
        super().__init__("faults", self._parent, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return FaultyFile(self._parent, name, flags, self)


class CheckpointCase(JournalCase, LogCase):
    def setUp(self) -> None:
        super().setUp()
        for name, value in (("ENOUGH", ENOUGH), ("SHORT", ENOUGH // 4), ("BEHIND", 4 * ENOUGH)):
            self.patch(checkpoints, name, value)
        self.log = Path(f"{self.path}-wal")

    def started(self) -> int:
        """How often the log has started anew, as its header counts."""
        return int(struct.unpack(">I", self.log.read_bytes()[12:16])[0])

    @contextlib.contextmanager
    def reader(self, path: Path | None = None) -> Iterator[apsw.Connection]:
        """Hold a reader's snapshot for the length of the block."""
        connection = apsw.Connection(str(path or self.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM messages").fetchall()
            yield connection
        finally:
            connection.close()

    def said(self, part: str) -> int:
        """How many lines of the log say that."""
        return sum(part in line for line in self.logged(*LogLevel.iterconstants(), namespace="mtserver.journal"))


class Anew(CheckpointCase):
    def test_log_starts_anew(self) -> None:
        """However much is stored, the log stays near what is enough for a checkpoint, and all is there."""
        for _ in range(20):
            self.append(LARGE)
        self.assertGreater(self.started(), 8)
        self.assertLess(self.log.stat().st_size, 4 * ENOUGH)
        self.assertEqual([row[4] for row in self.rows()], [LARGE] * 20)

    def test_not_in_a_commit(self) -> None:
        """No commit writes into the database: all of that is the other thread's, when it comes to it."""
        jobs: list[Any] = []
        self.append(b"first")
        self.journal._checkpoint_thread.submit = jobs.append
        before = self.path.stat().st_size
        self.append(LARGE)
        self.append(LARGE)
        self.assertEqual((self.path.stat().st_size, len(jobs)), (before, 1))
        jobs.pop()()
        self.assertGreater(self.path.stat().st_size, before + 2 * ENOUGH)
        self.append(b"last")
        self.assertEqual(self.started(), 1)

    def _behind(self, message: bytes) -> list[Any]:
        """A message comes while a checkpoint runs; the jobs that there are for the other thread afterwards."""
        jobs: list[Any] = []
        self.journal._checkpoint_thread.submit = jobs.append
        self.append(LARGE)
        flush = fsync.flush
        with self.reader() as reader:

            def meanwhile(connection: apsw.Connection) -> None:
                flush(connection)
                self.append(message)
                reader.close()

            self.patch(checkpoints, "flush", meanwhile)
            jobs.pop()()
        self.patch(checkpoints, "flush", flush)
        self.journal._writer.between_commits()
        return jobs

    def test_writers_part(self) -> None:
        """The writer copies the little that came while the other thread was at work, and the log restarts."""
        self.assertEqual(self._behind(b"a little"), [])
        before = self.started()
        self.append(b"next")
        self.assertEqual(self.started(), before + 1)

    def test_writers_part_is_short(self) -> None:
        """If it is more than a little, that is for the other thread once more."""
        self.append(b"first")
        before = self.path.stat().st_size
        jobs = self._behind(LARGE)
        self.assertEqual(len(jobs), 1)
        self.assertLess(self.path.stat().st_size, before + 2 * ENOUGH)
        jobs.pop()()
        self.assertGreater(self.path.stat().st_size, before + 2 * ENOUGH)

    def test_thread_cannot_keep_up(self) -> None:
        """A log that grows far beyond what it should, since the other thread does not come to it, is the writer's."""
        self.append(b"first")
        self.journal._checkpoint_thread.submit = lambda job: None
        for _ in range(20):
            self.append(LARGE)
        self.assertLess(self.log.stat().st_size, 9 * ENOUGH)
        self.assertGreater(self.started(), 1)

    def test_what_was_long_is_cut(self) -> None:
        """After one commit that made the log very long its file is cut again."""
        self.append(*[LARGE] * 10)
        self.assertGreater(self.log.stat().st_size, 10 * ENOUGH)
        self.append(b"next")
        self.assertEqual(self.log.stat().st_size, 4 * ENOUGH)

    def test_all_is_in_the_database(self) -> None:
        """When the journal is closed there is no log any more, and nothing is missing."""
        self.append(LARGE, b"last")
        self.close()
        self.assertFalse(self.log.exists())
        self.assertEqual([row[4] for row in self.rows()], [LARGE, b"last"])

    def test_closed_while_one_waits(self) -> None:
        """A checkpoint that comes too late, after the journal was closed, does nothing."""
        jobs: list[Any] = []
        self.append(b"first")
        self.journal._checkpoint_thread.submit = jobs.append
        self.append(LARGE)
        self.close()
        before = self.path.read_bytes()
        jobs.pop()()
        self.assertEqual(self.path.read_bytes(), before)

    def test_interrupted(self) -> None:
        """One that is cut short by the end has not failed."""
        jobs: list[Any] = []
        self.append(b"first")
        self.journal._checkpoint_thread.submit = jobs.append
        self.append(LARGE)
        self.journal._writer._checkpoints._connection.interrupt()
        jobs.pop()()
        self.assertEqual((self.append(b"next"), self.said("cannot be written")), ([3], 0))

    def test_transactions(self) -> None:
        """Commits of handlers' transactions count as well."""

        async def handle() -> None:
            async with self.journal.transaction(Batch(0, 1, "", [LARGE])):
                pass

        for _ in range(4):
            deferred = started(handle())
            for _ in range(4):
                self.clock.advance(0)
            self.successResultOf(deferred)
        self.assertGreater(self.started(), 1)


class Pinned(CheckpointCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(checkpoints, "LONG", 4 * ENOUGH)
        self.patch(checkpoints, "LIMIT", 20 * ENOUGH)
        self.append(b"first")

    def test_warned_once(self) -> None:
        """A reader that stays is told of once, when the log is long, and its end too."""
        with self.reader():
            for _ in range(2):
                self.append(LARGE)
            self.assertEqual(self.said("cannot start anew"), 0)
            for _ in range(8):
                self.append(LARGE)
            self.assertEqual(self.said("cannot start anew"), 1)
            self.assertEqual(self.said("has started anew"), 0)
        self.append(LARGE)
        self.append(b"next")
        self.assertEqual((self.said("cannot start anew"), self.said("has started anew")), (1, 1))
        self.assertLessEqual(self.log.stat().st_size, 4 * ENOUGH)

    def test_tried_again(self) -> None:
        """When the reader has gone a tick is enough, nothing need be stored for it."""
        with self.reader():
            self.append(LARGE)
        self.journal.tick()
        self.clock.advance(0)
        before = self.started()
        self.append(b"next")
        self.assertEqual(self.started(), before + 1)

    def test_not_with_each_commit(self) -> None:
        """Behind a reader it is not tried again before the log has grown by as much again."""
        tried: list[Any] = []
        with self.reader():
            self.append(LARGE)
            self.journal._checkpoint_thread.submit = tried.append
            for _ in range(3):
                self.append(b"little")
            self.assertEqual(tried, [])
            self.append(LARGE)
            self.assertEqual(len(tried), 1)

    def test_limit(self) -> None:
        """No message is stored at the limit, and the log says why; it goes on as soon as the reader is gone."""
        with self.reader():
            stored = 0
            while not self.journal.trouble and stored < 100:
                deferred = started(self.journal.append(Batch(0, 1, "", [LARGE])))
                self.clock.advance(0)
                self.failureResultOf(deferred) if self.journal.trouble else self.successResultOf(deferred)
                stored += not self.journal.trouble
            self.assertLess(stored, 21)
            self.assertRegex(self.journal.trouble, "LogFullError: .* somebody has been reading for long")
            for _ in range(5):
                self.assert_unavailable()
            self.assertLess(self.log.stat().st_size, 22 * ENOUGH)
            self.assertEqual(self.said("cannot store"), 1)
        self.assertEqual(self.append(b"next"), [stored + 2])
        self.assertEqual((self.journal.trouble, self.said("is back")), ("", 1))
        self.assertEqual(len(self.rows()), stored + 2)
        self.assertLessEqual(self.log.stat().st_size, 4 * ENOUGH)

    def test_our_own_readers(self) -> None:
        """A reader of pages, through the server, does not keep the log from restarting between them."""
        for _ in range(10):
            self.append(LARGE)
        before, after = self.started(), 0
        for _ in range(10):
            after = self.result(self.journal.read(after, 1))[0].sequence
            self.append(LARGE)
        self.assertGreater(self.started(), before + 3)
        self.assertEqual((after, self.said("cannot start anew")), (10, 0))

    def test_another_checkpoint(self) -> None:
        """While another process is at a checkpoint ours has nothing to do, and nothing to complain of."""
        jobs: list[Any] = []
        self.journal._checkpoint_thread.submit = jobs.append

        def meanwhile(_times: int) -> bool:
            jobs.pop()()
            return False

        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        with self.reader():
            self.append(LARGE)
            other.execute("SELECT * FROM messages").fetchall()  # it is open only now
            other.set_busy_handler(meanwhile)
            with self.assertRaises(apsw.BusyError):
                other.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)
        self.assertEqual((jobs, self.said("cannot be written")), ([], 0))
        self.assertEqual(self.append(b"next"), [3])


class Replaced(CheckpointCase):
    def test_replaced(self) -> None:
        """A file put in the journal's place gets nothing of a checkpoint that is due, and the old one has all."""
        jobs: list[Any] = []
        other = self.folder / "other.db"
        new: Any = opened(other)
        self.result(new.append(Batch(0, 1, "", [b"new"])))
        self.result(new.close())
        content = other.read_bytes()
        self.append(b"first")
        self.journal._checkpoint_thread.submit = jobs.append
        self.append(LARGE)
        old = self.folder / "old.db"
        self.path.rename(old)
        other.rename(self.path)
        jobs.pop()()
        self.assertEqual(self.path.read_bytes(), content)
        self.journal._checkpoint_thread.submit = lambda job: job()
        for number in range(2, 6):
            self.assertEqual(self.append(LARGE), [number])
        self.assertGreater(self.started(), 1)
        self.assertEqual([row[4] for row in self.rows()], [b"new", *[LARGE] * 4])
        self.path = old
        self.assertEqual([row[4] for row in self.rows()], [b"first", LARGE])


class Failures(CheckpointCase):
    def setUp(self) -> None:
        super().setUp()
        self.close()
        self.faults = Faults()
        self.addCleanup(self.faults.unregister)
        self.journal = opened(self.path)
        self.append(b"first")

    def test_sync_of_the_database_fails(self) -> None:
        """Loss on the way into the database ends the journal; the log, which still has it, is neither used nor cut."""
        self.faults.code = apsw.SQLITE_IOERR_FSYNC
        self.append(LARGE)
        self.faults.code = 0
        self.assert_unavailable()
        self.assertRegex(self.journal.trouble, "FSYNC|sync|flush|disk is gone")
        self.assert_unavailable()
        self.assertEqual(self.said("cannot store"), 1)
        syncs, content = self.faults.syncs, self.log.read_bytes()
        self.journal.tick()
        self.close()
        self.assertEqual((self.faults.syncs, self.log.read_bytes()), (syncs, content))
        self.journal = opened(self.path)
        self.assertEqual(self.append(b"next"), [3])
        self.assertEqual([row[4] for row in self.rows()], [b"first", LARGE, b"next"])

    def test_flush_fails(self) -> None:
        """The same where the log is ahead, and it is we who sync."""

        def fail(_connection: apsw.Connection) -> None:
            raise SyncError(apsw.SQLITE_IOERR_FSYNC, "the database could not be flushed")

        self.patch(checkpoints, "flush", fail)
        self.append(LARGE)
        self.assert_unavailable()
        self.assertRegex(self.journal._writer._stopped, "lost on its way to the disk")

    def test_what_a_sync_says(self) -> None:
        """A flush that SQLite calls a failure is an error."""
        answers = [apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_OK]
        sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lambda _file, _flags: answers.pop(0))
        methods = fsync._Methods(xSync=sync)
        file = fsync._File(ctypes.pointer(methods))

        class Connection:
            def file_control(self, _database: str, _operation: int, pointer: int) -> bool:
                ctypes.c_void_p.from_address(pointer).value = ctypes.addressof(file)
                return True

        connection: Any = Connection()
        with self.assertRaises(SyncError):
            fsync.flush(connection)
        fsync.flush(connection)
        self.assertEqual(answers, [])

    def test_flush_is_a_sync(self) -> None:
        """A flush is a sync of the database, through SQLite's own descriptor."""
        before = self.faults.syncs
        fsync.flush(self.journal._writer._checkpoints._connection)
        self.assertEqual(self.faults.syncs, before + 1)

    def test_others(self) -> None:
        """Another error of a checkpoint is told once, and it is tried again."""
        self.faults.code = apsw.SQLITE_IOERR_WRITE
        for _ in range(4):
            self.append(LARGE)
        self.assertEqual((self.said("cannot be written into it"), self.started()), (1, 0))
        self.faults.code = 0
        self.append(LARGE)
        self.append(LARGE)
        self.assertEqual((self.journal.trouble, self.started()), ("", 1))


class Readers(SynchronousTestCase):
    def test_holders(self) -> None:
        """Locks count that stand for a snapshot of this file, once for each process."""
        locks = (
            "1: POSIX  ADVISORY  READ 11 fe:00:77 123 123\n"
            "2: POSIX  ADVISORY  READ 11 fe:00:77 128 128\n"
            "3: POSIX  ADVISORY  READ 12 fe:00:77 127 127\n"
            "4: POSIX  ADVISORY  READ 12 fe:00:77 124 124\n"
            "5: POSIX  ADVISORY  WRITE 13 fe:00:77 120 120\n"
            "5: POSIX  ADVISORY  WRITE 13 fe:00:77 124 124\n"
            "6: POSIX  ADVISORY  READ 14 fe:00:78 124 124\n"
            "7: FLOCK  ADVISORY  WRITE 15 fe:00:77 0 EOF\n"
            "8: POSIX  ADVISORY  READ 16 fe:00:77 1073741826 1073742335\n"
            "8: -> POSIX  ADVISORY  WRITE 17 fe:00:77 124 124\n"
            "9: POSIX  ADVISORY  READ 0 fe:00:77 124 124\n"
            "10: POSIX  ADVISORY  READ 18 fe:00:77 0 EOF\n"
        )
        self.assertEqual(holders(locks, 77), {11, 12})
        self.assertEqual(holders("", 77), set())


class Controls(ControlCase):
    def test_failed_sync_of_the_database(self) -> None:
        """P1: what was lost on its way into the database is an error like any other."""
        with self.noticed_by(Failures, "test_sync_of_the_database_fails"):
            self.patch(file, "is_loss", lambda _error: False)
            self.patch(writer, "is_loss", lambda _error: False)
