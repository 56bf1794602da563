"""Damage: refused or noticed with one clear line, never emptied, never served from as if the file were whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError
from mtserver.journal import Batch
from mtserver.journal.sqlite import file, reading, schema, verify
from mtserver.journal.sqlite.file import Damaged, NotAJournal, file_problem
from mtserver.journal.sqlite.verify import Inspection, findings
from mtserver.journal.sqlite.writer import Writer
from tests.controls import ControlCase
from tests.journalcase import JournalCase, opened
from tests.journalfile import batch, sequences, write, write_version_1, writer
from tests.logcase import LogCase

PAGE = 4096


class DamageCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "journal.db"
        self.log = folder / "journal.db-wal"

    def damaged(self, content: bytes, at: int, by: bytes) -> bytes:
        return content[:at] + by + content[at + len(by) :]

    def found(self, path: Path | None = None) -> list[str]:
        """Return the findings of ``--verify``."""
        path = path or self.path
        connection = reading.open_existing(path)
        try:
            return list(findings(path, connection, lambda _: None))
        finally:
            connection.close()

    def inspected(self) -> str:
        """Return the findings of an inspection in pages."""
        inspection = Inspection(self.path)
        found = ""
        while not inspection.is_over:
            found = inspection.go_on(0.01)
        return found

    def killed(self, *batches: Batch) -> None:
        """A journal as a process leaves it that is killed: with a write-ahead log."""
        journal = writer(self.path)
        journal.commit(batches)
        files = {each: each.read_bytes() for each in (self.path, self.log)}
        journal.close()
        for each, content in files.items():
            each.write_bytes(content)


class BeforeTheStart(DamageCase):
    def setUp(self) -> None:
        super().setUp()
        write(self.path, batch(2000, name="a", ids=[f"{number}" for number in range(2000)]))
        self.whole = self.path.read_bytes()

    def assert_refused(self, content: bytes, reason: str) -> None:
        self.path.write_bytes(content)
        with self.assertRaisesRegex(ConfigurationError, reason):
            opened(self.path)
        self.assertEqual(self.path.read_bytes(), content, "touched")
        self.assertEqual([each.name for each in self.path.parent.iterdir()], ["journal.db"], "left a trace")

    def test_whole(self) -> None:
        """A whole one passes; an empty one becomes a journal; garbage behind the end does no harm, and stays unread."""
        self.assertEqual(file_problem(self.path), "")
        self.path.write_bytes(self.whole + b"garbage" * 1000)
        self.assertEqual(file_problem(self.path), "")
        write(self.path, batch(1))
        self.assertEqual(sequences(self.path), [*range(1, 2002)])
        self.path.write_bytes(b"")
        self.assertEqual(file_problem(self.path), "")
        write(self.path, batch(1))
        self.assertEqual(sequences(self.path), [1])

    def test_truncated(self) -> None:
        """A file whose end is missing, even a part of a page, is refused."""
        for size in (len(self.whole) - 1, len(self.whole) - PAGE, len(self.whole) // 2, PAGE, PAGE - 1, 600, 100, 50):
            self.assert_refused(
                self.whole[:size], r"damaged: .*; python -m mtserver.journal .*journal.db --verify says"
            )

    def test_header(self) -> None:
        """A byte of the beginning is another: it is no database, or a damaged one."""
        self.assert_refused(self.damaged(self.whole, 0, b"s"), "that is a file, but not a database")
        self.assert_refused(self.damaged(self.whole, 16, b"\xff"), "that is a file, but not a database")
        self.assert_refused(self.damaged(self.whole, 28, b"\xff"), "damaged: ")
        self.assert_refused(self.damaged(self.whole, 68, b"x"), "that is a database, but not a journal")
        self.assert_refused(b"\0" * len(self.whole), "that is a file, but not a database")
        self.assert_refused(b"a short letter", "that is a file, but not a database")

    def test_page_headers(self) -> None:
        """The header of any page of a tree, overwritten, is damage."""
        for number in range(len(self.whole) // PAGE):
            at = number * PAGE + (100 if number == 0 else 0)
            self.assert_refused(self.damaged(self.whole, at, b"\xff\xff\xff\xff"), "damaged: ")

    def test_pages_exchanged(self) -> None:
        """Two pages that have changed places are damage, though each is one by itself."""
        last, before = self.whole[-PAGE:], self.whole[-2 * PAGE : -PAGE]
        self.assert_refused(self.whole[: -2 * PAGE] + last + before, "damaged: ")

    def test_not_at_once(self) -> None:
        """A large file, and one with a write-ahead log, is not judged by the file alone."""
        broken = self.damaged(self.whole, len(self.whole) - PAGE, b"\xff\xff\xff\xff")
        self.path.write_bytes(broken)
        self.assertIn("damaged", file_problem(self.path))
        self.patch(file, "QUICK", 1000)
        self.assertEqual(file_problem(self.path), "")
        self.assertFalse(file.is_checked_at_start(self.path))

    def test_changed_meanwhile(self) -> None:
        """Damage that only seems to be there, since another process writes to the file, is none."""
        self.path.write_bytes(self.whole[:-100])

        def look(connection: apsw.Connection, path: Path) -> str:
            found = first(connection, path)
            self.path.write_bytes(self.whole)
            return found

        first = file.first_damage
        self.patch(file, "first_damage", look)
        self.assertEqual(file_problem(self.path), "")

    def test_newer(self) -> None:
        """A journal of a newer version is refused, and stays."""
        connection = apsw.Connection(str(self.path))
        connection.pragma("user_version", schema.VERSION + 1)
        connection.close()
        self.assert_refused(self.path.read_bytes(), "from a newer mtserver")

    def test_columns(self) -> None:
        """A file whose tables are not the journal's, even by one changed byte in their names, is refused."""
        at = self.whole.index(b"seq     INTEGER PRIMARY")
        damaged = self.damaged(self.whole, at, b"req")
        self.path.write_bytes(damaged)
        self.assert_refused(damaged, "its table messages lacks seq")

    def test_empty_message(self) -> None:
        """An empty message is no damage: neither before the start, nor after it, nor to --verify."""
        path = self.path.parent / "empty.db"
        empty = batch(1)._replace(messages=[b""])
        write(path, empty, empty._replace(name="bob", ids=["1"]))
        inspection = Inspection(path)
        found = []
        while not inspection.is_over:
            found.append(inspection.go_on(1))
        self.assertEqual((file_problem(path), self.found(path), set(found)), ("", [], {""}))

    def test_unseen(self) -> None:
        """A byte that has changed within a message is a message: that is not seen, and the documents say so."""
        at = self.whole.rindex(b"xxxxx")
        self.path.write_bytes(self.damaged(self.whole, at, b"y"))
        self.assertEqual((file_problem(self.path), self.found(), self.inspected()), ("", [], ""))


class Logs(DamageCase):
    def test_of_another_file(self) -> None:
        """A write-ahead log whose file is gone, or is empty, is not thrown away: its messages may be called stored."""
        self.killed(batch(100))
        log = self.log.read_bytes()
        for remains in (lambda: self.path.write_bytes(b""), self.path.unlink):
            remains()
            with self.assertRaisesRegex(ConfigurationError, "journal.db-wal has messages of a file that is gone"):
                opened(self.path)
            self.assertRaises(NotAJournal, file.open_for_writing, self.path, fast=False)
            self.assertEqual(self.log.read_bytes(), log)

    def test_garbage(self) -> None:
        """A write-ahead log of garbage, or that begins with some, is refused before SQLite ignores it for ever."""
        self.killed(batch(100))
        log = self.log.read_bytes()
        for broken in (b"garbage" * 1000, self.damaged(log, 0, b"x"), self.damaged(log, 17, b"xy")):
            self.log.write_bytes(broken)
            with self.assertRaisesRegex(ConfigurationError, "damaged: journal.db-wal is not a write-ahead log"):
                opened(self.path)
            self.assertRaises(NotAJournal, file.open_for_writing, self.path, fast=False)
            self.assertEqual(self.log.read_bytes(), broken)
        self.log.write_bytes(log)
        self.assertEqual(file_problem(self.path), "")
        write(self.path, batch(1))
        self.assertEqual(sequences(self.path), [*range(1, 102)])

    def test_begun(self) -> None:
        """One that was just begun when the power was cut, empty, short or all zero, holds nothing and is no damage."""
        write(self.path, batch(3))
        for begun in (b"", b"\x37\x7f", bytes(32), bytes(5000)):
            self.log.write_bytes(begun)
            self.assertEqual(file_problem(self.path), "")
            connection = file.open_for_writing(self.path, fast=False)
            connection.close()
            self.assertEqual(sequences(self.path), [1, 2, 3])

    def test_incomplete_without(self) -> None:
        """A file that is only whole together with its log is not called damaged."""
        journal = writer(self.path)
        self.addCleanup(journal.close)
        journal.commit([batch(5000)])
        self.assertEqual(file_problem(self.path), "")


class Later(DamageCase):
    def test_in_pages(self) -> None:
        """A file not checked before the start is inspected in pages, also bytes behind a message's first page."""
        self.patch(file, "QUICK", 1000)
        self.patch(verify, "QUICK", 1000)
        self.patch(reading, "ROWS", 10)
        write(self.path, batch(50), batch(5, size=30_000), batch(50))
        self.assertEqual(self.inspected(), "")
        whole = self.path.read_bytes()
        overflow = next(
            number for number in range(2, len(whole) // PAGE) if whole[number * PAGE + 4 :][:3000] == b"x" * 3000
        )
        for page, by in ((len(whole) // PAGE - 1, b"\xff\xff\xff\xff"), (overflow, b"\xff\xff\xff\xff")):
            self.path.write_bytes(self.damaged(whole, page * PAGE, by))
            self.assertNotEqual(self.inspected(), "")

    def test_with_a_log(self) -> None:
        """A small file with a write-ahead log is checked as a whole, once it is opened."""
        self.killed(batch(3000))
        self.assertFalse(file.is_checked_at_start(self.path))
        self.assertEqual(self.inspected(), "")
        write(self.path, batch(1))
        whole = self.path.read_bytes()
        self.killed(batch(1))
        log = self.log.read_bytes()
        self.path.write_bytes(self.damaged(whole, len(whole) // PAGE // 2 * PAGE, b"\x00"))
        self.log.write_bytes(log)
        self.assertIn("page", self.inspected())

    def test_away(self) -> None:
        """A file that is away when it is to be looked at is looked at when it is back."""
        inspection = Inspection(self.path)
        self.assertEqual((inspection.go_on(0.01), inspection.is_over), ("", False))
        write(self.path, batch(1))
        while not inspection.is_over:
            self.assertEqual(inspection.go_on(0.01), "")


class Served(JournalCase, LogCase):
    def test_stops(self) -> None:
        """Damage that is found while the server runs stops the journal: ERR unavailable, one line, nothing written."""
        self.append(*[b"x" * 100] * 1000)
        self.close()
        content = self.path.read_bytes()
        broken = content[:-PAGE] + b"\xff\xff\xff\xff" + content[-PAGE + 4 :]
        self.path.write_bytes(broken)
        self.patch(file, "QUICK", 1000)
        self.patch(verify, "QUICK", 1000)
        self.journal = opened(self.path)
        self.journal.tick()
        self.clock.advance(0)
        self.assertTrue(self.journal.trouble)
        self.assert_unavailable()
        self.journal.tick()
        self.clock.advance(0)
        self.assert_unavailable()
        self.assertEqual(self.path.read_bytes()[100:], broken[100:])
        (line,) = self.logged(LogLevel.error, namespace="mtserver.journal")
        self.assertRegex(line, r"the journal \S+ cannot store: Damaged: .")

    def test_whole(self) -> None:
        """A whole one is looked through to its end, and served meanwhile."""
        self.append(*[b"x" * 100] * 1000)
        self.close()
        self.patch(file, "QUICK", 1000)
        self.journal = opened(self.path)
        self.assertIsNotNone(self.journal._inspection)
        self.append(b"y")
        for _ in range(3):
            self.journal.tick()
            self.clock.advance(0)
        self.assertEqual((self.journal._inspection, self.journal.trouble), (None, ""))

    def test_while_it_stores(self) -> None:
        """A page that turns out to be damaged when it is needed stops the journal as well."""
        self.append(*[b"x" * 100] * 1000)
        self.close()
        self.journal = opened(self.path)
        content = self.path.read_bytes()
        self.path.write_bytes(content[:-PAGE] + b"\xff" * 8 + content[-PAGE + 8 :])
        self.assert_unavailable()
        self.assert_unavailable()
        self.assertIn("--verify says more", self.journal._writer._stopped)


class Invariants(DamageCase):
    def broken(self, *statements: str) -> list[str]:
        self.path.unlink(missing_ok=True)
        first = batch(3, name="a", ids=["x", "y", "z"])
        write(self.path, first, batch(2))
        self.assertEqual(self.found(), [])
        connection = apsw.Connection(str(self.path))
        for statement in statements:
            connection.execute(statement)
        connection.close()
        found = self.found()
        self.assertEqual(bool(found), bool(self.inspected()) or "number" in found[0], found)
        return found

    def test_each(self) -> None:
        """The rules for numbers, sources and ids are checked, and each breach is named."""
        for statement, reason in (
            ("UPDATE sqlite_sequence SET seq = 4", "a number 5, but the last one given is said to be 4"),
            ("DELETE FROM sqlite_sequence", "a number 5, but the last one given is said to be 0"),
            ("UPDATE sources SET last_seq = 9", "a number 9, but"),
            ("UPDATE messages SET source = 9 WHERE seq = 5", "message 5 is from source 9, which is not there"),
            ("UPDATE messages SET id = 'w' WHERE seq = 5", "message 5 has an id, and no source"),
            ("UPDATE sources SET last_seq = 2, last_id = 'y'", "message 3 is later than what its source says"),
            ("UPDATE sources SET last_id = 'w'", "message 3 has another id than its source says"),
            ("UPDATE ids SET source = 9 WHERE id = 'x'", "an id of message 1 is of source 9, which is not there"),
            ("UPDATE ids SET seq = 2 WHERE id = 'x'", "an id is said to be of message 2, which has another"),
            ("UPDATE messages SET message = 'text' WHERE seq = 5", "message 5 has a value of the wrong kind"),
        ):
            self.assertRegex(self.broken(statement)[0], reason)

    def test_indexes(self) -> None:
        """An index that does not have what its table has is damage."""
        found = self.broken(
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET sql = replace(sql, '(seq, time)', '(time, seq)') WHERE name = 'ids_by_seq'",
        )
        self.assertRegex(" ".join(found), "ids_by_seq")

    def test_sources_of_messages_that_have_gone(self) -> None:
        """Messages that were pruned, with or without their ids, are no damage."""
        write(self.path, batch(3, name="a", ids=["x", "y", "z"]), batch(2))
        connection = apsw.Connection(str(self.path))
        connection.execute("DELETE FROM messages WHERE seq < 4")
        connection.close()
        self.assertEqual((self.found(), self.inspected()), ([], ""))


class Migration(DamageCase):
    def test_version_1(self) -> None:
        """A journal of version 1 is verified as it is, keeps every row when it is opened by a server, and counts on."""
        write_version_1(self.path, b"a", b"b", b"c").close()
        before = self.path.read_bytes()
        self.assertEqual((file_problem(self.path), self.found(), self.inspected()), ("", [], ""))
        self.assertEqual(self.path.read_bytes(), before)
        self.assert_migrated()

    def test_version_1_killed(self) -> None:
        """The same if its process was killed, and everything is still in the write-ahead log."""
        connection = write_version_1(self.path, b"a", b"b", b"c")
        files = {each: each.read_bytes() for each in (self.path, self.log)}
        connection.close()
        for each, content in files.items():
            each.write_bytes(content)
        self.assertLess(self.path.stat().st_size, 2 * PAGE)
        self.assertEqual((file_problem(self.path), self.found(), self.inspected()), ("", [], ""))
        self.assert_migrated()

    def assert_migrated(self) -> None:
        (stored,) = write(self.path, batch(1, name="new", ids=["x"]))
        self.assertEqual(list(stored.sequences), [4])
        connection = reading.open_existing(self.path)
        self.addCleanup(connection.close)
        records = reading.read(connection, 0, 10)
        self.assertEqual(
            [tuple(record)[:7] for record in records[:3]],
            [(number, float(number), number, "192.0.2.1:1", "", "", "") for number in (1, 2, 3)],
        )
        self.assertEqual([record.message for record in records[:3]], [b"a", b"b", b"c"])
        self.assertEqual(connection.pragma("user_version"), schema.VERSION)
        self.assertEqual(self.found(), [])


class AnyDamage(DamageCase):
    """Changed bytes, wherever: acknowledged messages are stored, no file is emptied, and every error is one of ours."""

    def setUp(self) -> None:
        super().setUp()
        self.killed(batch(300, name="a", ids=[f"{number}" for number in range(300)]), batch(2, size=9000))
        with_log = self.path.read_bytes(), self.log.read_bytes()
        write(self.path, batch(1))
        self.states = [with_log, (self.path.read_bytes(), b"")]
        self.folder = self.path.parent

    @given(st.data())
    @settings(max_examples=150, deadline=None)
    def test_any(self, data: Any) -> None:
        """Bytes flipped, or the end cut off, of the file or its log."""
        content, log = self.states[data.draw(st.sampled_from([0, 1]), "state")]
        which = data.draw(st.sampled_from(["file", "log"] if log else ["file"]), "which")
        victim = bytearray(content if which == "file" else log)
        if data.draw(st.booleans(), "cut"):
            del victim[data.draw(st.integers(0, len(victim)), "at") :]
        for place in data.draw(st.lists(st.integers(0, max(len(victim) - 1, 0)), max_size=3), "flipped"):
            if victim:
                victim[place] ^= data.draw(st.integers(1, 255))
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.path.write_bytes(victim if which == "file" else content)
        if log:
            self.log.write_bytes(victim if which == "log" else log)
        self.look(bytes(victim) if which == "file" else content)

    def look(self, content: bytes) -> None:
        refused = file_problem(self.path)
        if refused:
            self.assertEqual(self.path.read_bytes(), content, "touched")
        try:
            self.found()
            connection = reading.open_existing(self.path)
            for page in reading.pages(connection):
                self.assertTrue(page.records)
            connection.close()
        except (apsw.Error, Damaged, NotAJournal, UnicodeDecodeError):
            pass  # each of which the command has a line for
        if refused:
            return
        journal = writer(self.path)
        try:
            journal.chores()
            stored = journal.commit([Batch(1.0, 1, "", [b"a new one"])])
            if isinstance(stored, list):
                connection = apsw.Connection(str(self.path))
                (number,) = stored[0].sequences
                found = connection.execute("SELECT message FROM messages WHERE seq = ?", (number,)).get
                connection.close()
                self.assertEqual(found, b"a new one")
            else:
                self.assertNotEqual(journal.trouble, "")
        finally:
            journal.close()
        if content:
            self.assertGreaterEqual(self.path.stat().st_size, min(len(content), PAGE), "emptied")


class Controls(ControlCase):
    def test_served_from_a_damaged_file(self) -> None:
        """P7: a file is served from, whatever its pages have become."""
        with self.noticed_by(BeforeTheStart, "test_page_headers", RuntimeError):
            self.patch(file, "quick_check", lambda _connection: "")

    def test_log_of_a_lost_file(self) -> None:
        """P1: a write-ahead log whose file is gone is thrown away, with what was called stored in it."""
        with self.noticed_by(Logs, "test_of_another_file", RuntimeError):
            self.patch(file, "log_problem", lambda _path: "")

    def test_damage_found_and_nothing_done(self) -> None:
        """P7: a file is served from although it was found to be damaged."""
        with self.noticed_by(Served, "test_stops"):
            self.patch(Writer, "stop", lambda _writer, _damage: None)
