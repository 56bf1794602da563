"""The built-in apps, as their clients and operators see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Unavailable
from mtserver.apps.collect import app as collect
from mtserver.apps.echo import app as echo
from mtserver.apps.log import app as log
from mtserver.concurrency.threads import InPlace
from mtserver.journal import Stored
from mtserver.journal.sqlite import file as module
from mtserver.journal.sqlite import journal as sqlite
from mtserver.journal.sqlite.journal import SqliteJournal
from mtserver.journal.sqlite.writer import Writer
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.journalcase import Later
from tests.logcase import LogCase


class Echo(SynchronousTestCase):
    def test_echo(self) -> None:
        """Each message comes back as it was."""
        client = Harness(echo).connect()
        client.send(b"a", b"", b"\x00\xff")
        self.assertEqual(client.received, [b"a", b"", b"\x00\xff"])


class Log(LogCase):
    def test_log(self) -> None:
        """Each message is a log line, with nothing in it that a terminal would obey; nothing is answered."""
        client = Harness(log).connect()
        client.send(b"hello", b"\x1b[2J")
        lines = self.logged(LogLevel.info, namespace="mtserver.apps.log")
        self.assertEqual(lines, ["Received hello from client 1", "Received \\x1b[2J from client 1"])
        self.assertEqual(client.received, [])


class Collect(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "journal.db"
        self.patch(module, "BUSY_TIMEOUT", 10)
        self.harness = Harness(collect, journal=f"sqlite:{self.path}")
        self.addCleanup(self.harness.stop)

    def test_collect(self) -> None:
        """Each message is stored with its time, client and address, and answered with its number."""
        client = self.harness.connect()
        client.send(b"a", b"b")
        other = self.harness.connect()
        other.send(b"c")
        self.assertEqual((client.received, other.received), ([b"OK 1", b"OK 2"], [b"OK 3"]))
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        rows = list(connection.execute("SELECT seq, client, address, message FROM messages ORDER BY seq"))
        connection.close()
        self.assertEqual(
            json.dumps([[*row[:3], row[3].decode()] for row in rows]),
            json.dumps(
                [[1, 1, "192.0.2.2:50000", "a"], [2, 1, "192.0.2.2:50000", "b"], [3, 2, "192.0.2.2:50001", "c"]]
            ),
        )

    def test_unavailable(self) -> None:
        """When the journal cannot store, every message of the batch is told so, and the client stays."""
        client = self.harness.connect()
        client.send(b"a")
        other = apsw.Connection(str(self.path))
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        client.send(b"b", b"c")
        other.execute("ROLLBACK")
        client.send(b"d")
        refusal = b"ERR unavailable retry-after=1 the journal cannot store this now"
        self.assertEqual(client.received, [b"OK 1", refusal, refusal, b"OK 2"])

    def test_full(self) -> None:
        """While much waits for the disk, whoever stores more is read no further; once it is stored, all goes on."""
        self.patch(sqlite, "QUEUE_SIZE", 1000)
        journal: Any = collect.journal
        jobs: list[Any] = []
        journal._writer_thread = Later(jobs)
        clients = [self.harness.connect() for _ in range(4)]
        for client in clients:
            client.send(b"x" * 600)  # the first is being written, two more are too many, and so is the fourth
        before = [client.transport.consumed for client in clients]
        for client in clients:
            client.send(b"y" * 600)
        read = [client.transport.consumed - was for client, was in zip(clients, before, strict=True)]
        self.assertEqual(read, [601, 601, 601, 0])
        self.assertEqual([client.received for client in clients], [[]] * 4)
        while jobs:
            jobs.pop()()
            self.harness.advance(0)
        self.assertEqual([len(client.received) for client in clients], [2] * 4)
        journal._writer_thread = InPlace()


class Controls(ControlCase):
    def test_ok_for_what_was_not_stored(self) -> None:
        """P7: a message that the journal could not store is answered OK."""
        right = Writer.commit

        def wrong(writer: Writer, batches: Any) -> Any:
            outcome = right(writer, batches)
            return [Stored(range(9))] * len(batches) if isinstance(outcome, Unavailable) else outcome

        with self.noticed_by(Collect, "test_unavailable"):
            self.patch(Writer, "commit", wrong)

    def test_read_on_though_the_journal_is_full(self) -> None:
        """P8: clients are read on although what they have sent piles up in front of the disk."""
        with self.noticed_by(Collect, "test_full"):
            self.patch(SqliteJournal, "is_full", property(lambda _: False))
