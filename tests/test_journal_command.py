"""``python -m mtserver.journal``: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apsw
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.journal import Record, __main__
from mtserver.journal.command import arguments, progress
from mtserver.journal.command import format as format_module
from mtserver.journal.command.format import json_line, line, size_text
from mtserver.journal.command.summary import Tally
from mtserver.journal.sqlite import reading, retention
from tests.controls import ControlCase
from tests.journalfile import batch, sequences, write, write_version_1, writer

DAY = 86400.0


class CommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp()).absolute()
        self.patch(__main__, "PAUSE", 0)

    def run_command(self, *words: str, path: object = None) -> tuple[Any, list[str], str]:
        """Run the command; return its exit status, the lines of standard output, and standard error."""
        status: Any = 0
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as error,
        ):
            try:
                __main__.main([str(path or self.path), *words])
            except SystemExit as end:
                status = end.code
        if isinstance(status, str):  # which Python prints
            return 1, out.getvalue().splitlines(), status
        return status, out.getvalue().splitlines(), error.getvalue()

    def printed(self, *words: str) -> list[str]:
        status, lines, error = self.run_command(*words)
        self.assertEqual((status, error), (0, ""))
        return lines


class Printing(CommandCase):
    def fill(self) -> None:
        write(
            self.path,
            batch(1, at=1.5, client=7),
            batch(1, at=1764052271.123, identity="alice", name="sensor", ids=["i1"])._replace(
                messages=[b"a\nb\x1b[2J\xff"]
            ),
            batch(1, at=1764052272, name="n\t")._replace(messages=["häß \\".encode()]),
        )

    def test_lines(self) -> None:
        """One line for each message, with tabs between number, time, client, who, id and message; all else escaped."""
        self.fill()
        self.assertEqual(
            self.printed(),
            [
                "1\t1970-01-01T00:00:01.500Z\t7\t-\t-\t0:xxxxxxxx",
                "2\t2025-11-25T06:31:11.123Z\t1\talice/sensor\ti1\ta\\nb\\x1b[2J\\xff",
                "3\t2025-11-25T06:31:12.000Z\t1\t/n\\t\t-\thäß \\\\",
            ],
        )

    def test_json(self) -> None:
        """JSON Lines have all there is: the message as text where it is one, in base64 where not."""
        self.fill()
        first, second, third = map(json.loads, self.printed("--json"))
        self.assertEqual(
            first,
            {
                "seq": 1,
                "time": "1970-01-01T00:00:01.500Z",
                "client": 7,
                "address": "192.0.2.2:1",
                "message": "0:xxxxxxxx",
            },
        )
        self.assertEqual(
            (second["identity"], second["name"], second["id"], second["message_base64"]),
            ("alice", "sensor", "i1", "YQpiG1sySv8="),
        )
        self.assertNotIn("message", second)
        self.assertEqual(third["message"], "häß \\")

    @given(
        st.builds(
            Record,
            st.integers(1),
            st.floats(allow_nan=False),
            st.integers(1),
            st.text(),
            st.text(),
            st.text(),
            st.text(),
            st.binary(),
        )
    )
    def test_any(self, record: Record) -> None:
        """A message is one printable line, whatever is in it, and JSON returns it unchanged."""
        printed = line(record)
        self.assertTrue(printed.replace("\t", "").isprintable())
        self.assertEqual(printed.count("\t"), 5)
        text = json_line(record)
        self.assertTrue(text.isascii() and text.isprintable())
        fields = json.loads(text)
        if "message" in fields:
            self.assertEqual(fields["message"].encode(), record.message)
        self.assertEqual(fields.get("identity", ""), record.identity)

    def test_filters(self) -> None:
        """Words for what is wanted; the path may be written as --journal has it."""
        write(self.path, batch(3, at=-9000, client=1), batch(3, at=-10, client=2, identity="alice"))
        for words, wanted in (
            (["--client", "2"], [4, 5, 6]),
            (["--identity", "alice", "--after", "4"], [5, 6]),
            (["--identity", ""], [1, 2, 3]),
            (["--to", "2"], [1, 2]),
            (["--last", "2"], [5, 6]),
            (["--last", "0"], []),
            (["--last", "4", "--client", "1"], [3]),
            (["--since", "2h"], [4, 5, 6]),
            (["--until", "2h"], [1, 2, 3]),
            (["--since", str(time.time() - 60)], [4, 5, 6]),
            (["--since", "2020-01-01", "--until", "2021-01-01T12:00+02:00"], []),
        ):
            self.assertEqual([int(line.split("\t")[0]) for line in self.printed(*words)], wanted, words)
        _, lines, _ = self.run_command("--last", "1", path=f"sqlite:{self.path}?durability=fast")
        self.assertEqual(len(lines), 1)

    def test_ends(self) -> None:
        """Messages stored while it prints are left for the next time: otherwise a busy server's journal had no end."""
        self.patch(reading, "ROWS", 5)
        journal = writer(self.path)
        self.addCleanup(journal.close)
        journal.commit([batch(20)])
        say = __main__._write

        def slowly(text: str) -> None:
            (stored,) = journal.commit([batch(1)])  # type: ignore[misc]
            self.assertLess(stored.sequences[0], 100, "no end")
            say(text)

        self.patch(__main__, "_write", slowly)
        self.assertEqual(len(self.printed()), 20)

    def test_version_1(self) -> None:
        """An older version is printed, counted and verified as it is."""
        write_version_1(self.path, b"a", b"b").close()
        before = self.path.read_bytes()
        self.assertEqual(self.printed("--last", "1"), ["2\t1970-01-01T00:00:02.000Z\t2\t-\t-\tb"])
        self.assertEqual(self.printed("--stats")[0], "version   1")
        self.assertEqual(self.printed("--verify"), ["ok: version 1, the last number given is 2"])
        self.assertEqual(self.path.read_bytes(), before)


class Numbers(CommandCase):
    def fill(self) -> None:
        write(self.path, batch(3, at=100.0), batch(2, at=50.0, identity="alice", name="a", ids=["x", "y"]))
        write(self.path, batch(1, at=200.0, identity="alice", name="b", size=100))
        connection = apsw.Connection(str(self.path))
        connection.execute("DELETE FROM messages WHERE seq = 1")
        connection.close()

    def test_stats(self) -> None:
        """How many, how large, by whom, from when to when, and which numbers."""
        self.patch(reading, "ROWS", 2)
        self.fill()
        lines = self.printed("--stats")
        self.assertEqual(
            lines[:4],
            [
                "version   2",
                "messages  5 (140 bytes)",
                "numbers   2 to 6; the last one given is 6",
                "times     1970-01-01T00:00:50.000Z to 1970-01-01T00:03:20.000Z",
            ],
        )
        self.assertRegex("\n".join(lines[4:6]), r"\Afile      \d+\.\d KB, of which free: 0 bytes\nlog       0 bytes\Z")
        self.assertEqual(
            lines[6:],
            [
                "ids       2 known",
                "from      anonymous clients: 2 (20 bytes), last at 1970-01-01T00:01:40.000Z",
                "from      alice/a: 2 (20 bytes), last at 1970-01-01T00:00:50.000Z",
                "from      alice/b: 1 (100 bytes), last at 1970-01-01T00:03:20.000Z",
            ],
        )

    def test_json(self) -> None:
        """The same as an object."""
        self.fill()
        (line,) = self.printed("--stats", "--json")
        found = json.loads(line)
        self.assertEqual((found["messages"], found["first"], found["last"], found["ids"]), (5, 2, 6, 2))
        self.assertEqual([source["messages"] for source in found["sources"]], [2, 2, 1])
        self.assertEqual(found["file_bytes"], self.path.stat().st_size)

    def test_empty(self) -> None:
        """A journal without messages has numbers as well."""
        write(self.path, batch(2, at=-2 * DAY))
        self.printed("--keep", "1d")
        self.assertIn("numbers   the last one given is 2", self.printed("--stats"))
        self.assertIsNone(json.loads(self.printed("--stats", "--json")[0])["first_time"])

    def test_many_sources(self) -> None:
        """The sources with most messages are listed, if there are many."""
        write(self.path, *[batch(1, name=f"{number}") for number in range(30)], batch(2, name="most"))
        lines = self.printed("--stats")
        self.assertIn("/most: 2", lines[7])
        self.assertEqual(lines[-1], "from      11 more")

    def test_shares(self) -> None:
        """The tallies of two pages are joined."""
        self.assertEqual(Tally(1, 2, 3, 4).joined(Tally(1, 2, 2, 9)), Tally(2, 4, 2, 9))


class Pruning(CommandCase):
    def test_keep(self) -> None:
        """Removes what is older, in steps, and says how much; what is left is sound, and numbers go on."""
        self.patch(retention, "ROWS", 4)
        write(self.path, batch(10, at=-9 * DAY, name="old"), batch(5))
        self.assertEqual(
            self.printed("--keep", "1d"),
            ["10 messages removed (450 bytes), up to number 10", "1 sources removed, of which nothing was left"],
        )
        self.assertEqual(sequences(self.path), [*range(11, 16)])
        self.assertEqual(self.printed("--verify"), ["ok: version 2, the last number given is 15"])
        self.assertEqual(self.printed("--keep", "1d,1GB"), ["0 messages removed (0 bytes)"])

    def test_small_transactions(self) -> None:
        """Between two steps the file is free: a server that waits for it gets it."""
        self.patch(retention, "ROWS", 4)
        write(self.path, batch(20, at=-9 * DAY))
        other = writer(self.path)
        self.addCleanup(other.close)
        free: list[bool] = []
        step = retention.Retention.step

        def between(retained: retention.Retention, connection: apsw.Connection, now: float) -> retention.Step:
            taken = step(retained, connection, now)
            free.append(taken.messages <= 4)
            return taken

        class Pause:
            def wait(self, _seconds: float) -> None:
                stored = other.commit([batch(1)])
                free.append(isinstance(stored, list))

        self.patch(retention.Retention, "step", between)
        self.patch(threading, "Event", Pause)
        self.printed("--keep", "1d")
        self.assertEqual(set(free), {True})
        self.assertGreater(len(free), 10)
        self.assertEqual(len(sequences(self.path)), len(free) // 2)

    def test_interrupted(self) -> None:
        """Ctrl-C in the middle: status 130, what was removed is said, and the step that was begun is undone."""
        self.patch(retention, "ROWS", 4)
        write(self.path, batch(20, at=-9 * DAY))
        step, taken = retention.Retention.step, [0]

        def interrupted(retained: retention.Retention, connection: apsw.Connection, now: float) -> retention.Step:
            found = step(retained, connection, now)
            taken[0] += 1
            if taken[0] == 3:
                raise KeyboardInterrupt
            return found

        self.patch(retention.Retention, "step", interrupted)
        status, lines, error = self.run_command("--keep", "1d")
        self.assertEqual((status, lines, error), (130, ["8 messages removed (360 bytes), up to number 8"], ""))
        self.assertEqual(sequences(self.path), [*range(9, 21)])


class Ends(CommandCase):
    def test_errors(self) -> None:
        """A file that cannot be read is one line, and status 1; nothing is created."""
        folder = self.path
        folder.mkdir()
        text, newer, other, empty = (folder / name for name in ("text", "newer", "other", "empty"))
        text.write_text("a letter" * 999)
        write(newer, batch(1))
        for path, statement in ((newer, "PRAGMA user_version = 99"), (other, "CREATE TABLE theirs (x)")):
            connection = apsw.Connection(str(path))
            connection.execute(statement)
            connection.close()
        empty.touch()
        names = {each.name for each in folder.iterdir()}
        for path, reason in (
            (folder / "nothing", "there is no such file"),
            (folder, "that is a folder"),
            (Path(os.devnull), "that is no file"),
            (text, "that is a file, but not a database"),
            (other, "that is a database, but not a journal"),
            (newer, "that is a journal of version 99, from a newer mtserver; this one knows 2"),
            (empty, "there is nothing in it yet"),
        ):
            for words in ([], ["--follow"], ["--stats"], ["--verify"], ["--keep", "1d"]):
                status, lines, error = self.run_command(*words, path=path)
                self.assertEqual((status, lines, error), (1, [], f"mtserver.journal: {path}: {reason}"))
        self.assertEqual({each.name.partition("-")[0] for each in folder.iterdir()}, names)

    def test_great_numbers(self) -> None:
        """A number that is greater than any is one that no message has."""
        write(self.path, batch(2))
        great = "9" * 30
        for words, count in (
            (["--last", great], 2),
            (["--to", great], 2),
            (["--after", great], 0),
            (["--after", f"-{great}"], 2),
            (["--client", great], 0),
        ):
            status, lines, error = self.run_command(*words)
            self.assertEqual((status, len(lines), error), (0, count, ""))

    def test_nowhere_to_print(self) -> None:
        """Where standard output is closed, nothing is printed."""
        write(self.path, batch(2))
        self.patch(sys, "stdout", None)
        __main__.main([str(self.path), "--stats"])

    def test_usage(self) -> None:
        """A mistake in the words is status 2, and named."""
        write(self.path, batch(1))
        for words, reason in (
            (["--keep", "30"], "neither an age nor a size"),
            (["--keep", ""], "how much"),
            (["--since", "noon"], "'noon' is no time"),
            (["--since", "10GB"], "is no time"),
            (["--last", "-1"], "not a number of messages"),
            (["--stats", "--client", "1"], "are for all messages"),
            (["--verify", "--json"], "--json is for"),
            (["--follow", "--to", "1"], "--follow has no end"),
            (["--stats", "--verify"], "not allowed with"),
        ):
            status, _, error = self.run_command(*words)
            self.assertEqual(status, 2)
            self.assertIn(reason, error)
        status, _, error = self.run_command(path="sqlite:")
        self.assertEqual(status, 2)
        self.assertIn("not of the form sqlite:PATH", error)

    def test_damaged(self) -> None:
        """Damage is printed and status 1; so it is where a message cannot be read."""
        write(self.path, batch(3))
        connection = apsw.Connection(str(self.path))
        connection.execute("UPDATE messages SET client = 'x' WHERE seq = 2")
        connection.close()
        status, lines, error = self.run_command("--verify")
        self.assertEqual((status, lines), (1, ["message 2 has a value of the wrong kind"]))
        self.assertEqual(error, f"mtserver.journal: {self.path}: damaged: 1 findings")
        status, lines, error = self.run_command()
        self.assertEqual((status, lines), (1, []))
        self.assertIn("damaged: message 2 is none", error)
        content = self.path.read_bytes()
        self.path.write_bytes(content[:4096] + b"\xff" * 100 + content[4196:])
        for words in ([], ["--stats"], ["--verify"], ["--keep", "1d"]):
            status, lines, error = self.run_command(*words)
            self.assertEqual(status, 1)
            self.assertIn("damaged: ", error)

    def test_interrupted(self) -> None:
        """Ctrl-C ends it with status 130, and without a traceback."""
        write(self.path, batch(3))

        def interrupt(_text: str) -> None:
            raise KeyboardInterrupt

        self.patch(__main__, "_write", interrupt)
        for words in ([], ["--follow"], ["--stats"], ["--verify"]):
            self.assertEqual(self.run_command(*words), (130, [], ""))

    def test_moments(self) -> None:
        """Times as people and programs write them."""
        for text, seconds in (
            ("1970-01-02", DAY),
            ("1970-01-01T01:00:00", 3600),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T00:00:01.5Z", 1.5),
            ("12.5", 12.5),
        ):
            self.assertEqual(arguments._moment(text), seconds)

    def test_sizes(self) -> None:
        """Bytes as people read them."""
        for count, text in (
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 KB"),
            (12_345_678, "12.3 MB"),
            (5e15, "5000.0 TB"),
        ):
            self.assertEqual(size_text(count), text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Progressing(SynchronousTestCase):
    def shown(self, stream: io.StringIO, places: list[int], **bounds: int) -> str:
        self.patch(sys, "stderr", stream)
        self.patch(progress, "DELAY", 0)
        self.patch(progress, "INTERVAL", 0)
        with progress.Progress("looking", **bounds) as shown:
            for place in places:
                shown.at(place)
        return stream.getvalue()

    def test_terminal(self) -> None:
        """A terminal shows the progress, on one line, which is gone at the end."""
        text = self.shown(Terminal(), [150, 200, 999], begin=100, end=200)
        self.assertEqual(text, "\r\x1b[Klooking: 50%\r\x1b[Klooking: 100%\r\x1b[Klooking: 100%\r\x1b[K")
        self.assertIn("looking: 0 s", self.shown(Terminal(), [0]))

    def test_elsewhere(self) -> None:
        """A file or a pipe gets no progress; nor does a terminal while the work has only begun."""
        self.assertEqual(self.shown(io.StringIO(), [1, 2], end=2), "")
        terminal = Terminal()
        self.patch(sys, "stderr", terminal)
        with progress.Progress("looking") as shown:
            self.patch(progress, "DELAY", 1000)
        with progress.Progress("looking") as shown:
            shown.at(1)
        self.assertEqual(terminal.getvalue(), "")


class Controls(ControlCase):
    def test_a_peer_drives_the_terminal(self) -> None:
        """What a peer has sent is printed as it is."""

        def wrong(text: str | bytes) -> str:
            return text if isinstance(text, str) else text.decode(errors="replace")

        with self.noticed_by(Printing, "test_lines"):
            self.patch(format_module, "escape", wrong)
