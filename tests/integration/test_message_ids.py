"""The same message a hundred times, over connections, restarts and two processes: one row, one effect."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.authcase import plain

from .peer import Peer
from .server import Server, rows

COUNTING = """
from contextlib import asynccontextmanager
from mtserver import App, Client

async def count(client: Client, message: bytes) -> bytes:
    async with client.transaction() as db:
        await db.execute("UPDATE counts SET n = n + 1")
        ((n,),) = await db.execute("SELECT n FROM counts")
    return b"COUNTED %d" % n

@asynccontextmanager
async def lifespan(app):
    async with app.journal.transaction(None) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS counts (n)")
        await db.execute("INSERT INTO counts SELECT 0 WHERE NOT EXISTS (SELECT * FROM counts)")
    yield

app = App(count, lifespan=lifespan, uses_journal=True)
"""


class TestAHundredTimes(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.journal = self.folder / "shared.db"

    def _server(self, *options: str) -> Server:
        return Server("--message-ids", "--journal", f"sqlite:{self.journal}", *options, modules={"counting": COUNTING})

    def _named(self, server: Server) -> Peer:
        peer = server.connect()
        self.assertRegex(peer.exchange(b"RESUME bob")[0], rb"\AOK (0|1 @7)\Z")
        return peer

    def _a_hundred_times(self, *options: str) -> list[bytes]:
        """The answers: by turns through two processes, some with a connection of their own, killed in between."""
        answers: list[bytes] = []
        for _ in range(5):
            with self._server(*options) as one, self._server(*options) as two:
                for server in (one, two):
                    with self._named(server) as peer:
                        answers += peer.exchange(b"@7 x", b"@7 x", b"@7 x", b"@7 x")
                    for _ in range(6):
                        with self._named(server) as peer:
                            answers += peer.exchange(b"@7 x")
                for server in (one, two):
                    server.stop(signal.SIGKILL)
                    server.wait()
        return answers

    def test_stored_once(self) -> None:
        """Collect stores it once; each other answer has the same number."""
        answers = self._a_hundred_times()
        self.assertEqual(answers, [b"OK 1"] + [b"OK 1 dup"] * 99)
        self.assertEqual([message for *_, message in rows(self.journal)], [b"x"])

    def test_one_effect(self) -> None:
        """What a handler does in its transaction is done once."""
        answers = self._a_hundred_times("--app", "counting:app")
        self.assertEqual(answers, [b"COUNTED 1"] + [b"OK 1 dup"] * 99)
        self.assertEqual(len(rows(self.journal)), 1)

    def test_at_the_same_moment(self) -> None:
        """Twenty connections to two processes send it at once: one is the first, the others are told its number."""
        for number, options in enumerate(((), ("--app", "counting:app"))):
            self.journal = self.folder / f"{number}.db"
            with ExitStack() as stack:
                servers = [stack.enter_context(self._server(*options)) for _ in range(2)]
                peers = [stack.enter_context(self._named(server)) for server in servers for _ in range(10)]
                barrier = threading.Barrier(len(peers))
                answers: list[bytes] = []

                def send(peer: Peer, barrier: threading.Barrier = barrier, answers: list[bytes] = answers) -> None:
                    barrier.wait()
                    answers.extend(peer.exchange(b"@7 x"))

                threads = [threading.Thread(target=send, args=(peer,)) for peer in peers]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                first = b"COUNTED 1" if options else b"OK 1"
                self.assertEqual(sorted(answers), sorted([first] + [b"OK 1 dup"] * 19))
            self.assertEqual(len(rows(self.journal)), 1)

    def test_whose(self) -> None:
        """An id is known by identity and name: neither another identity nor a name that is the same has it."""
        auth = ("--auth", "memory:alice:secret:mallory:secret")
        with self._server(*auth) as known, self._server() as anonymous:
            with known.connect() as alice, known.connect() as mallory, anonymous.connect() as nobody:
                self.assertEqual(alice.exchange(plain("alice", "secret"), b"@7 x"), [b"OK", b"OK 1"])
                self.assertEqual(mallory.exchange(plain("mallory", "secret"), b"@7 x"), [b"OK", b"OK 2"])
                self.assertEqual(mallory.exchange(b"RESUME alice", b"@7 x"), [b"OK 0", b"OK 3"])
                self.assertEqual(nobody.exchange(b"@7 x")[0][:16], b"ERR bad-message ")
                self.assertEqual(nobody.exchange(b"RESUME alice", b"@7 x"), [b"OK 0", b"OK 4"])
                self.assertEqual(alice.exchange(b"@7 x"), [b"OK 1 dup"])
