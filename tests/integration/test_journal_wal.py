"""A reader that keeps the write-ahead log from starting anew, a million messages, ``kill -9``: and a quick start."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mtserver.journal.sqlite.checkpoints import LIMIT, LONG

from .peer import DEADLINE, Peer
from .server import Server, wait_until
from .test_collect import numbers

MESSAGES = 1_000_000
#: Seconds that a start may take.
START = 10
#: Messages in one write.
BLOCK = 10_000
#: A server whose limits are in reach.
SMALL = """
from mtserver.apps.collect import Collect
from mtserver.journal.sqlite import checkpoints

checkpoints.LONG = 6 << 20
checkpoints.LIMIT = 8 << 20
"""
#: Opens a snapshot, says so, and keeps it for as long as its standard input is open.
READER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM messages").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reader(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a read transaction that does not end before the block does."""
    process = subprocess.Popen([sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        yield process
    finally:
        process.communicate(timeout=DEADLINE)


class TestLog(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.log = self.folder / "mtserver.db-wal"
        #: The size that it has had, at most.
        self.longest = 0

    def _pour(self, peer: Peer, messages: int) -> int:
        """Send them as fast as it goes, until the last is acknowledged; its number."""
        block = b"".join(b"message %d of a block, as long as that\n" % number for number in range(BLOCK))
        (begun,) = numbers(peer.exchange(b"begun"))
        end = b"OK %d\n" % (begun + messages)

        def enough(received: bytearray) -> bool:
            self.longest = max(self.longest, self.log.stat().st_size)
            return received.endswith(end)

        # Some seconds on a quiet machine.
        sent, received = peer.pour(block, messages // BLOCK, enough=enough, deadline=8 * DEADLINE)
        self.assertEqual(sent, messages // BLOCK * len(block))
        self.assertEqual(numbers(received.split(b"\n")[:-1]), list(range(begun + 1, begun + messages + 1)))
        return begun + messages

    def _kept(self) -> int:
        """How many messages there are, in a file that is sound."""
        with contextlib.closing(apsw.Connection(str(self.folder / "mtserver.db"))) as connection:
            self.assertEqual(connection.execute("PRAGMA quick_check").get, "ok")
            return int(connection.execute("SELECT count(*) FROM messages").get)

    def test_pinned_and_killed(self) -> None:
        """A million messages behind a reader, which is named; after kill -9 it starts in time, and has them all."""
        with Server(folder=self.folder) as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"first"), [b"OK 1"])
            with reader(server.journal) as process:
                last = self._pour(peer, MESSAGES)
                server.wait_for_log(rf"the write-ahead log of \S+ has grown to \d+ MiB .*process {process.pid} \(\S+\)")
                self.assertEqual(server.log.count("cannot start anew"), 1)
                server.stop(signal.SIGKILL)
                server.wait()
                self.assertTrue(LONG < self.longest < LIMIT, self.longest)
                # Once with the reader still there, once without, so that the whole log has to be read.
                last = self._starts(last)
            last = self._starts(last)
        self.assertEqual(self._kept(), last)

    def _starts(self, last: int) -> int:
        """Start on what was left, in time, and store one more message; its number. Killed again."""
        begun = time.monotonic()
        with Server(folder=self.folder) as server, server.connect() as peer:
            self.assertEqual(numbers(peer.exchange(b"next")), [last + 1])
            # Only now: the log is read when the file is opened, which a server that listens may still have before it.
            self.assertLess(time.monotonic() - begun, START)
            server.stop(signal.SIGKILL)
            server.wait()
        return last + 1

    def test_under_load(self) -> None:
        """However fast messages come, the log stays short."""
        with Server(folder=self.folder) as server, server.connect() as peer:
            last = self._pour(peer, MESSAGES // 2)
            server.stop()
            peer.rest()
            peer.finish()
            self.assertEqual(server.wait(), 0)
            self.assertNotIn("write-ahead log", server.log)
        self.assertLess(self.longest, LONG)
        self.assertFalse(self.log.exists())
        self.assertEqual(self._kept(), last)

    def test_limit(self) -> None:
        """The answer at the limit is ``ERR unavailable``; when the reader is gone all is well again by itself."""
        options = ("--app", "small:Collect")
        with Server(*options, folder=self.folder, modules={"small": SMALL}) as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"first"), [b"OK 1"])
            with reader(server.journal):
                while (answer := peer.exchange(bytes(60_000).replace(b"\0", b"x"))[0]).startswith(b"OK "):
                    self.assertLess(self.log.stat().st_size, 16 << 20)
                self.assertRegex(answer, rb"\AERR unavailable retry-after=[1-9]\d* ")
                server.wait_for_log(r"cannot store: LogFullError: .* process \d+ \(\S+\) has been reading")

            def answered() -> bool:
                return peer.exchange(b"again")[0].startswith(b"OK ")

            wait_until(answered, "recovery")
            server.wait_for_log(r"the journal \S+ is back")
            server.wait_for_log(r"the write-ahead log of \S+ has started anew")
