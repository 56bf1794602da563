"""Retention: what is to go goes, the oldest first and in small steps; nothing else does, and no number comes again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel

from mtserver.concurrency.threads import InPlace
from mtserver.journal import Keep
from mtserver.journal.sqlite import dedupe, retention
from mtserver.journal.sqlite.retention import Retention, Step
from mtserver.journal.sqlite.writer import Writer
from tests.journalcase import JournalCase, Later, started
from tests.journalfile import WINDOW, batch, sequences, writer
from tests.logcase import LogCase

DAY = 86400.0


class RetentionCase(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp()).absolute()
        self.journal = self.begun()

    def begun(self, **settings: Any) -> Writer:
        journal = writer(self.path, **settings)
        self.addCleanup(journal.close)
        return journal

    def step(self, keep: Retention, now: float | None = None) -> Step:
        connection = self.journal._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        taken = keep.step(connection, time.time() if now is None else now)
        connection.execute("COMMIT")
        keep.committed(taken)
        return taken

    def steps(self, keep: Retention, now: float | None = None) -> list[Step]:
        """Until there is nothing more to be done."""
        taken = [self.step(keep, now)]
        while taken[-1].more or keep.is_sweeping:
            taken.append(self.step(keep, now))
        return taken

    def sources(self) -> set[tuple[str, str]]:
        connection = self.journal._connection
        assert connection is not None
        return {(identity, name) for identity, name in connection.execute("SELECT identity, name FROM sources")}


class Age(RetentionCase):
    def test_older_ones_go(self) -> None:
        """Messages older than the age go, and none that is younger; numbers go on."""
        self.journal.commit([batch(5, at=-3 * DAY), batch(5, at=-2 * DAY), batch(5, at=-DAY / 2)])
        taken = self.steps(Retention(Keep(age=DAY)))
        self.assertEqual((taken[0].messages, taken[0].last), (10, 10))
        self.assertEqual(sequences(self.path), [*range(11, 16)])
        self.steps(Retention(Keep(age=DAY)), time.time() + 2 * DAY)
        self.assertEqual(sequences(self.path), [])
        self.assertEqual(self.journal.commit([batch()])[0].sequences, range(16, 17))  # type: ignore[index]

    def test_steps_are_bounded(self) -> None:
        """A step removes so many messages, or so many bytes, at most; and says that there is more."""
        self.patch(retention, "ROWS", 10)
        self.journal.commit([batch(25, at=-2 * DAY)])
        taken = self.steps(Retention(Keep(age=DAY)))
        self.assertEqual([step.messages for step in taken if step.messages], [10, 10, 5])
        self.patch(retention, "BYTES", 2500)
        self.journal.commit([batch(6, at=-2 * DAY, size=1000)])
        taken = self.steps(Retention(Keep(age=DAY)))
        self.assertEqual([step.messages for step in taken if step.messages], [3, 3])

    def test_clock_was_wrong(self) -> None:
        """Messages from the future stay until they are old, and old ones behind them go all the same."""
        self.journal.commit([batch(3, at=time.time() + 99 * DAY), batch(3, at=-2 * DAY), batch(3)])
        self.steps(Retention(Keep(age=DAY)))
        self.assertEqual(sequences(self.path), [1, 2, 3, 7, 8, 9])

    def test_nothing_to_do(self) -> None:
        """Where everything is young, or everything is kept, nothing happens."""
        self.journal.commit([batch(3)])
        self.assertEqual(self.step(Retention(Keep(age=DAY))), Step())
        self.assertEqual(self.step(Retention(Keep(size=10**9))), Step())
        self.assertFalse(Retention(Keep()).is_enabled)


class Size(RetentionCase):
    def kept(self) -> int:
        assert self.journal._connection is not None
        sql = f"SELECT total(length(message) + length(address) + {retention.OVERHEAD}) FROM messages"
        return int(self.journal._connection.execute(sql).get or 0)

    def test_oldest_go(self) -> None:
        """The oldest messages go until the rest are within the size, and no more."""
        for size in (20, 700, 9000):
            self.journal.commit([batch(500, size=size)])
        for limit in (1_000_000, 200_000, 100_000):
            self.steps(Retention(Keep(size=limit)))
            self.assertLessEqual(self.kept(), limit)
            self.assertGreater(self.kept(), limit - 9100)
            left = sequences(self.path)
            self.assertEqual(left, [*range(left[0], 1501)])

    def test_what_else_is_there(self) -> None:
        """Ids and a handler's tables do not cost messages their place: none of those would be smaller for it."""
        for number in range(20):
            names = [f"{number}-{each}-" + "x" * 50 for each in range(100)]
            self.journal.commit([batch(100, name="a", ids=names, size=10)])
        connection = self.journal._connection
        assert connection is not None
        connection.execute("CREATE TABLE theirs AS SELECT zeroblob(1000000) AS x")
        self.steps(Retention(Keep(size=50_000)))
        self.assertLessEqual(self.kept(), 50_000)
        self.assertGreater(self.kept(), 49_900)
        self.assertEqual(connection.execute("SELECT count(*) FROM ids").get, 2000)

    def test_measured_in_steps(self) -> None:
        """Messages that are there are counted step by step; those that come meanwhile count once."""
        self.patch(retention, "MEASURED", 10)
        self.journal.commit([batch(25)])
        other = self.begun()
        keep = Retention(Keep(size=10**9))
        size = self.kept() // 25
        for more in (True, True, False):
            self.assertEqual(self.step(keep), Step(more=more))
        self.assertEqual(keep._total.bytes, 25 * size)
        batches = [batch(3), batch(4)]
        keep.added(batches, self.journal.commit(batches))  # type: ignore[arg-type]
        self.assertEqual(keep._total.bytes, 32 * size)
        other.commit([batch(5)])
        batches = [batch(1)]
        keep.added(batches, self.journal.commit(batches))  # type: ignore[arg-type]
        self.assertEqual(self.step(keep), Step())
        self.assertEqual(keep._total.bytes, self.kept())
        assert other._connection is not None
        other._connection.execute("DELETE FROM messages WHERE seq < 30")
        self.assertEqual(self.step(keep), Step())
        self.assertEqual(keep._total.bytes, self.kept())
        other._connection.execute("DELETE FROM messages")
        self.assertEqual((self.step(keep), keep._total.bytes), (Step(), 0))

    def test_measured_anew(self) -> None:
        """A step that was undone has removed nothing; and another file has other messages."""
        self.journal.close()
        self.journal = self.begun(keep=Keep(size=3000))
        self.journal.commit([batch(40, size=1000)])
        connection = self.journal._connection
        assert connection is not None
        connection.set_commit_hook(lambda: True)
        self.assertFalse(self.journal.chores())
        self.assertEqual(len(sequences(self.path)), 40)
        for _ in range(2):
            while self.journal.chores():
                pass
            self.assertEqual(len(sequences(self.path)), 2)
            self.assertEqual(self.journal._retention._total.bytes, self.kept())
            self.path.rename(f"{self.path}.old")
            self.journal.commit([batch(30, size=1000)])

    def test_measured_as_it_goes(self) -> None:
        """The writer's own messages are counted as they are stored: duplicates are not, and what goes is taken off."""
        self.journal.close()
        self.journal = self.begun(keep=Keep(size=10**9, age=DAY))
        for _ in range(2):
            self.journal.commit([batch(3, at=-2 * DAY, name="a", ids=["1", "2", "3"]), batch(5), batch(2, at=-2 * DAY)])
            while self.journal.chores():
                pass
            self.assertEqual(self.journal._retention._total.bytes, self.kept())

    def test_too_small(self) -> None:
        """A size that cannot be kept, whatever goes, is an end all the same."""
        self.journal.commit([batch(500)])
        taken = self.steps(Retention(Keep(size=1)))
        self.assertEqual(sum(step.messages for step in taken), 500)
        self.assertEqual(self.step(Retention(Keep(size=1))), Step())

    def test_both(self) -> None:
        """Messages beyond either the age or the size go."""
        self.journal.commit([batch(100, at=-2 * DAY, size=1000), batch(100, at=-DAY / 2, size=1000), batch(10)])
        keep = Retention(Keep(age=DAY, size=80_000))
        self.steps(keep)
        left = sequences(self.path)
        self.assertGreater(left[0], 101)
        self.assertEqual(left[-1], 210)
        self.steps(keep, time.time() + DAY * 3 / 4)
        self.assertEqual(sequences(self.path), [*range(201, 211)])

    def test_pages_are_used_again(self) -> None:
        """Removed messages make room: a journal with a size does not grow past it by more than a batch."""
        keep = Retention(Keep(size=500_000))
        for _ in range(30):
            self.journal.commit([batch(100, size=1000)])
            self.steps(keep)
        assert self.journal._connection is not None
        # Three of these fit into a page, with a quarter of it left over.
        self.assertLess(self.journal._connection.pragma("page_count") * 4096, 1_000_000)


class Sources(RetentionCase):
    def test_ids_stay(self) -> None:
        """An id is known as long as its window says, also when its message has gone; and so is its source."""
        self.journal.commit([batch(2, at=-2 * DAY, name="a", ids=["x", "y"])])
        self.journal.commit([batch(1, name="b", ids=["z"])])
        self.journal.close()
        self.journal = self.begun(window=dedupe.Window(9 * DAY, 1000))
        self.journal.open()
        self.steps(Retention(Keep(age=DAY)))
        self.assertEqual(sequences(self.path), [3])
        (stored,) = self.journal.commit([batch(1, name="a", ids=["x"])])  # type: ignore[misc]
        self.assertEqual((list(stored.sequences), stored.duplicates), ([1], {0}))
        self.assertEqual(self.sources(), {("", "a"), ("", "b")})

    def test_sources_go_by_age(self) -> None:
        """A source goes when it is old and nothing of it is left: no message, no id."""
        self.journal.commit([batch(1, at=-9 * DAY, name="nothing left", ids=["x"])])
        self.journal.commit([batch(1, at=-9 * DAY, name="an id", ids=["y"])])
        self.journal.commit([batch(1, at=-9 * DAY, identity="heard of again")])
        self.journal.commit([batch(1, identity="heard of again"), batch(1, identity="young")])
        assert self.journal._connection is not None
        self.journal._connection.execute("DELETE FROM ids WHERE id = 'x'")
        keep = Retention(Keep(age=DAY))
        taken = self.steps(keep)
        self.assertEqual(self.sources(), {("", "an id"), ("heard of again", ""), ("young", "")})
        self.assertEqual([step.sources for step in taken if step.sources], [2])

    def test_source_with_a_message_stays(self) -> None:
        """However old it is, a source of which a message is left stays, and its messages keep their name."""
        self.patch(retention, "ROWS", 4)
        future = time.time() + 99 * DAY
        self.journal.commit([batch(4, at=future), batch(4, at=-9 * DAY), batch(3, at=-9 * DAY, name="old")])
        keep = Retention(Keep(age=DAY))
        self.steps(keep)
        self.assertEqual(sequences(self.path), [*range(1, 12)])  # behind a step's worth of messages from the future
        self.assertEqual(self.sources(), {("", "old")})

    def test_not_by_size(self) -> None:
        """Where only the size is limited, sources stay, so that RESUME is answered."""
        self.journal.commit([batch(500, at=-99 * DAY, name="a", size=100)])
        self.steps(Retention(Keep(size=1)))
        self.assertEqual((sequences(self.path), self.sources()), ([], {("", "a")}))

    def test_heard_of_while_it_is_looked_for(self) -> None:
        """A source that sends while the messages are gone through is not taken for one of which nothing is left."""
        self.patch(retention, "ROWS", 2)
        self.journal.commit([batch(1, at=-9 * DAY, name="a"), batch(9)])
        keep = Retention(Keep(age=DAY))
        self.step(keep)
        self.step(keep)
        self.assertTrue(keep.is_sweeping)
        self.journal.commit([batch(1, name="a")])
        # Behind the page that is looked at next there is nothing from it, so only its time can tell.
        keep._after = 99
        self.steps(keep)
        self.assertEqual(self.sources(), {("", "a")})

    def test_written_under_its_new_number(self) -> None:
        """A source that has gone and comes again is made anew, though the writer remembers its old number."""
        journal = self.journal = self.begun(keep=Keep(age=DAY), window=dedupe.Window(60, 1000))
        journal.commit([batch(1, at=-9 * DAY, name="a", ids=["x"])])
        journal.commit([batch(1, name="b")])
        for _ in range(9):
            journal.chores()
        self.assertEqual(self.sources(), {("", "b")})
        journal.commit([batch(1, name="c"), batch(1, at=-9 * DAY, name="a")])
        assert journal._connection is not None
        found = journal._connection.execute("SELECT seq, name FROM messages JOIN sources USING (source)")
        self.assertEqual(list(found), [(2, "b"), (3, "c"), (4, "a")])

    def test_heard_of_is_written_now_and_then(self) -> None:
        """When a source was heard of is written once in an hour, and not with each message."""
        for at, seen in ((1000.0, 1000.0), (2000.0, 1000.0), (4601.0, 4601.0), (4000.0, 4601.0)):
            self.journal.commit([batch(1, at=at, name="a")])
            assert self.journal._connection is not None
            self.assertEqual(self.journal._connection.execute("SELECT seen FROM sources").get, seen)


class Server(JournalCase, LogCase):
    """Retention inside a server."""

    def keep(self, keep: Keep) -> None:
        self.journal._writer._retention = Retention(keep)
        self.patch(retention, "ROWS", 10)

    def test_at_once(self) -> None:
        """One tick is enough for as many steps as there are to be taken, when nothing else waits."""
        self.append(*[b"x"] * 95)
        self.keep(Keep(age=DAY))
        self.journal.tick()
        for _ in range(30):
            self.clock.advance(0)
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.append(b"y"), [96])

    def test_those_who_wait_come_first(self) -> None:
        """Between two steps whatever waits is stored; and between two commits of a busy journal a step is taken."""
        self.append(*[b"x"] * 95)
        self.keep(Keep(age=DAY))
        jobs: list[Any] = []
        self.journal._writer_thread = Later(jobs)
        self.journal.tick()
        counts: list[int] = []
        for _ in range(6):
            started(self.journal.append(batch(1, client=99)))
            (job,) = jobs
            jobs.clear()
            job()
            self.clock.advance(0)
            counts.append(sum(row[2] == 99 for row in self.rows()) * 1000 + len(self.rows()))
        # Messages that came meanwhile, in thousands, and all: ten go, one comes.
        self.assertEqual(counts, [85, 1086, 1076, 3078, 3068, 5070])
        jobs.clear()
        self.journal._writer_thread = InPlace()

    def test_closed_meanwhile(self) -> None:
        """A journal that is closed with steps still to be taken is closed."""
        self.append(*[b"x"] * 95)
        self.keep(Keep(age=DAY))
        journal = self.journal
        journal.tick()
        self.close()
        self.clock.advance(0)
        self.assertIsNone(journal._writer._connection)

    def test_log(self) -> None:
        """The log says when it begins to remove something, and once an hour how much; not each step."""
        account = retention.RemovalLog("x.db")
        account.add(Step(), 0)
        account.add(Step(2000, 100_000, more=True), 10)
        account.add(Step(2000, 100_000, more=True), 11)
        account.add(Step(1000, 50_000), 12)
        account.add(Step(), 3609)
        account.add(Step(7, 70), 3610)
        account.add(Step(), 9999)
        self.assertEqual(
            [text for text in self.logged(LogLevel.info, namespace="mtserver.journal") if "--keep" in text],
            [
                "--keep: the oldest messages are removed from the journal x.db from now on",
                "--keep: 3007 messages (150070 bytes) were removed from the journal x.db in 1.0 h",
            ],
        )

    def test_locked(self) -> None:
        """A file that is locked when there is something to remove is no trouble: nobody waits for it."""
        self.append(b"x")
        self.keep(Keep(age=DAY))
        other = writer(self.path, window=WINDOW)
        other.begin(batch())
        self.journal.tick()
        self.clock.advance(0)
        self.assertEqual(self.journal.trouble, "")
        other.roll_back()
        other.close()
