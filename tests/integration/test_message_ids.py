"""One id, a hundred times: over reconnects, restarts and two processes on one file. One row, one effect."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from tests.authcase import plain

from .peer import Crowd, Peer
from .server import Server, rows

#: Raises a counter, which is its own, with the message.
COUNTER = """
    from contextlib import asynccontextmanager
    from mtserver import App

    async def raise_counter(client, message: bytes) -> bytes:
        async with client.transaction() as db:
            await db.execute("UPDATE counter SET value = value + 1")
        return b"OK %d" % db.sequence

    @asynccontextmanager
    async def lifespan(app):
        async with app.journal.transaction(None) as db:
            await db.execute("CREATE TABLE IF NOT EXISTS counter (value)")
            await db.execute("INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter)")
        yield

    app = App(raise_counter, lifespan=lifespan, uses_journal=True)
"""
APPS = {"collect": ("--app", "collect"), "counter": ("--app", "counter:app")}


class IdsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.journal = self.folder / "journal.db"

    def server(self, place: int, *options: str) -> Server:
        """One of several on one file, each in a folder of its own."""
        folder = self.folder / str(place)
        folder.mkdir(exist_ok=True)
        wanted = ("--message-ids", "--journal", f"sqlite:{self.journal}", *options)
        return Server(*wanted, folder=folder, modules={"counter": COUNTER})

    @contextlib.contextmanager
    def two(self, *options: str) -> Iterator[tuple[Server, Server]]:
        with self.server(1, *options) as first, self.server(2, *options) as second:
            yield first, second

    def counter(self) -> int:
        connection = apsw.Connection(str(self.journal), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return int(connection.execute("SELECT value FROM counter").get)
        finally:
            connection.close()


class TestHundredTimes(IdsCase):
    def answers(self, server: Server, times: int) -> list[bytes]:
        """Of a client that comes for this, and resends without a pause."""
        with server.connect() as peer:
            peer.exchange(b"RESUME till-7")
            return peer.exchange(*[b"@4711 ten pounds"] * times)

    def hundred(self, *options: str) -> list[bytes]:
        """Both processes, killed and started again, each asked by several connections in turn."""
        answers: list[bytes] = []
        for _ in range(2):
            with self.two(*options) as servers:
                for times in (1, 2, 10, 12):
                    for server in servers:
                        answers += self.answers(server, times)
                for server in servers:
                    # With something on its way to be stored, whose answer nobody waits for.
                    with server.connect() as peer:
                        peer.send(b"RESUME till-7\n@4711 ten pounds\n")
                        server.stop(signal.SIGKILL)
                        self.assertEqual(server.wait(), -signal.SIGKILL)
        return answers

    def test_one_row(self) -> None:
        """With `collect`: all but the first answer are duplicates with its number, and there is one row."""
        answers = self.hundred(*APPS["collect"])
        self.assertEqual(answers, [b"OK 1", *[b"OK 1 dup"] * 99])
        self.assertEqual([message for *_, message in rows(self.journal)], [b"ten pounds"])

    def test_one_effect(self) -> None:
        """With a handler that raises a counter in the journal's transaction: it is raised once."""
        answers = self.hundred(*APPS["counter"])
        self.assertEqual(answers, [b"OK 1", *[b"OK 1 dup"] * 99])
        self.assertEqual([message for *_, message in rows(self.journal)], [b"ten pounds"])
        self.assertEqual(self.counter(), 1)


class TestAtOnce(IdsCase):
    def check(self, *options: str) -> None:
        """Twenty connections to two processes send ten ids at the same moment, each of them five times."""
        with self.two(*options) as servers, contextlib.ExitStack() as stack:
            crowds = [stack.enter_context(Crowd(server.port, 10)) for server in servers]
            lines = b"".join(b"@%d message %d\n" % (number // 5, number // 5) for number in range(50))
            for index in range(10):
                for crowd in crowds:
                    crowd.send(index, b"RESUME till-7\n" + lines)
            for crowd in crowds:
                crowd.read_until(partial(self.has_all, crowd))
            answers = [crowd.lines(index)[1:] for crowd in crowds for index in range(10)]
        numbers = [[answer.split()[1] for answer in each] for each in answers]
        # All are told the same numbers, and each of them is new to one of them only.
        self.assertEqual(numbers, [[b"%d" % (number // 5 + 1) for number in range(50)]] * 20)
        new = Counter(answer for each in answers for answer in each if not answer.endswith(b" dup"))
        self.assertEqual(new, {b"OK %d" % number: 1 for number in range(1, 11)})
        self.assertEqual([message for *_, message in rows(self.journal)], [b"message %d" % n for n in range(10)])

    @staticmethod
    def has_all(crowd: Crowd) -> bool:
        return all(received.count(b"\n") == 51 for received in crowd.received)

    def test_one_row(self) -> None:
        """With `collect`: each id is stored by one of them."""
        self.check(*APPS["collect"])

    def test_one_effect(self) -> None:
        """With a counter in the journal's transaction: it is raised once for each id."""
        self.check(*APPS["counter"])
        self.assertEqual(self.counter(), 10)


class TestIdentities(IdsCase):
    def test_of_their_own(self) -> None:
        """An identity does not see the ids of another, nor of anonymous clients that call themselves the same."""

        def say(peer: Peer) -> list[bytes]:
            return peer.exchange(b"RESUME till-7", b"@1 mine", b"@1 mine")

        with self.server(1) as anybody, anybody.connect() as peer:
            self.assertEqual(say(peer), [b"OK 0", b"OK 1", b"OK 1 dup"])
            with self.server(2, "--auth", "memory:alice:secret:bob:secret") as members:
                for number, name in enumerate(("alice", "bob"), 2):
                    with members.connect() as member:
                        self.assertEqual(member.exchange(plain(name, "secret")), [b"OK"])
                        self.assertEqual(say(member), [b"OK 0", b"OK %d" % number, b"OK %d dup" % number])
            self.assertEqual(say(peer), [b"OK 1 @1", b"OK 1 dup", b"OK 1 dup"])
