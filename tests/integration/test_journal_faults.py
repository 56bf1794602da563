"""Storage that fails: never a false OK, and all is well again when it is."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from tests.controls import ControlCase

from .disk import Disk, fill, small_disk
from .peer import DEADLINE, Peer
from .server import TCP, Server, rows, run_to_end, wait_until

UNAVAILABLE = rb"\AERR unavailable retry-after=[1-9]\d* "
#: Some messages are stored, the others come back.
SOME = """
    from mtserver import App, Handler

    class Some(Handler):
        async def received(self, message: bytes):
            return await self.client.journal(message) if message.startswith(b"keep ") else message

    app = App(Some, uses_journal=True)
"""


class TestJournal(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def _recovers(self, peer: Peer, message: bytes = b"again", seconds: float = DEADLINE) -> bytes:
        """The first answer that is not ``ERR unavailable``; each attempt is a message ``again``."""

        def answer() -> bytes:
            (line,) = peer.exchange(message)
            return b"" if line.startswith(b"ERR unavailable ") else line

        line: bytes = wait_until(answer, "recovery", seconds)
        return line

    def _some(self, journal: Path) -> Server:
        return Server("--app", "some:app", "--journal", f"sqlite:{journal}", modules={"some": SOME}, folder=self.folder)

    def _stop(self, server: Server, *peers: Peer) -> None:
        server.stop()
        for peer in peers:
            peer.rest()
            peer.finish()
        self.assertEqual(server.wait(), 0)

    def test_locked(self) -> None:
        """Locked by another process: ``ERR unavailable``, and stored again as soon as the lock is gone."""
        with Server() as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"before"), [b"OK 1"])
            with contextlib.closing(apsw.Connection(str(server.journal))) as other:
                other.execute("BEGIN EXCLUSIVE")
                for answer in peer.exchange(b"lost", b"lost too"):
                    self.assertRegex(answer, UNAVAILABLE)
                other.execute("ROLLBACK")
            self.assertEqual(peer.exchange(b"after"), [b"OK 2"])
            self.assertEqual([message for *_, message in rows(server.journal)], [b"before", b"after"])
            self.assertRegex(server.log, r"the journal \S+ cannot store: BusyError")
            self.assertRegex(server.log, r"the journal \S+ is back")

    def test_full_disk(self) -> None:
        """
        A full disk: ``ERR unavailable``, no OK that is not in the journal, and back within 5 s of there being room.

        Clients who store nothing notice nothing.
        """
        disk = self.folder / "disk"
        disk.mkdir()
        with small_disk(disk, "8m"):
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(6_500_000))
            journal = disk / "journal.db"
            with self._some(journal) as server, server.connect() as peer, server.connect() as other:
                acknowledged: dict[int, bytes] = {}
                refused = 0
                for count in range(100):
                    message = b"keep %d:" % count + b"x" * 20_000
                    (answer,) = peer.exchange(message)
                    if answer.startswith(b"OK "):
                        acknowledged[int(answer[3:])] = message
                    else:
                        self.assertRegex(answer, UNAVAILABLE)
                        refused += 1
                    self.assertEqual(other.exchange(b"%d" % count), [b"%d" % count])
                self.assertGreater(refused, 10)
                self.assertGreater(len(acknowledged), 5)
                self.assertEqual(server.log.count("cannot store"), server.log.count("is back") + 1)
                ballast.unlink()
                self.assertRegex(self._recovers(peer, b"keep again", 5), rb"\AOK \d+\Z")
                self._stop(server, peer, other)
            stored = {seq: message for seq, _, message in rows(journal)}
            self.assertEqual({seq: stored.get(seq) for seq in acknowledged}, acknowledged)
            self.assertEqual([message for seq, message in stored.items() if seq not in acknowledged], [b"keep again"])

    def test_disk_gone(self) -> None:
        """A disk that goes and comes back: ``ERR unavailable`` for as long as that takes, and nobody else notices."""
        with Disk(self.folder) as disk:
            journal = disk.folder / "journal.db"
            with self._some(journal) as server, server.connect() as peer, server.connect() as other:
                self.assertEqual(peer.exchange(b"keep 1", b"keep 2"), [b"OK 1", b"OK 2"])
                disk.cut()
                for count in range(20):
                    for answer in peer.exchange(b"keep a", b"keep b"):
                        self.assertRegex(answer, UNAVAILABLE)
                    self.assertEqual(other.exchange(b"%d" % count), [b"%d" % count])
                self.assertEqual(server.log.count("mtserver.journal#"), 1)
                disk.remount()
                self.assertEqual(self._recovers(peer, b"keep 3"), b"OK 3")
                self._stop(server, peer, other)
            self.assertEqual([message for *_, message in rows(journal)], [b"keep 1", b"keep 2", b"keep 3"])

    def test_failed_fsync(self) -> None:
        """
        After an fsync that failed nothing is called stored, be the disk what it was, until the server is started anew.

        The disk's own storage is full (it was promised more than there is), so writes succeed, and what waits for them
        does not. The log says so in one line, with what is to be done.
        """
        store = self.folder / "store"
        store.mkdir()
        with small_disk(store, "24m"), Disk(store) as disk:
            journal = disk.folder / "journal.db"
            with self._some(journal) as server, server.connect() as peer, server.connect() as other:
                self.assertEqual(peer.exchange(b"keep 1", b"keep 2"), [b"OK 1", b"OK 2"])
                fill(store / "ballast")
                self.assertRegex(peer.exchange(b"keep " + b"x" * 60_000)[0], UNAVAILABLE)
                (store / "ballast").unlink()
                for _ in range(2):
                    for count in range(20):
                        self.assertRegex(peer.exchange(b"keep a")[0], UNAVAILABLE)
                        self.assertEqual(other.exchange(b"%d" % count), [b"%d" % count])
                    disk.remount()
                self.assertEqual(server.log.count("mtserver.journal#"), 1)
                self.assertRegex(
                    server.log, r"cannot store: IOError: \S.*; a write was lost .*; restart after checking"
                )
                self._stop(server, peer, other)
            with self._some(journal) as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"keep 3"), [b"OK 3"])
            self.assertEqual([message for *_, message in rows(journal)], [b"keep 1", b"keep 2", b"keep 3"])

    def test_restart_after_failed_fsync(self) -> None:
        """
        Messages that the next server on the same mount stores survive a power cut.

        Though the kernel has pages of the last server's that the disk never got, and calls them clean.
        """
        store = self.folder / "store"
        store.mkdir()
        with small_disk(store, "40m"), Disk(store, 32 * 1024 * 1024) as disk:
            journal = disk.folder / "journal.db"
            with self._some(journal) as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"keep 1", b"keep 2"), [b"OK 1", b"OK 2"])
                disk.give_back()
                fill(store / "ballast")
                self.assertRegex(peer.exchange(b"keep " + b"x" * 60_000)[0], UNAVAILABLE)
                self.assertRegex(server.log, "a write was lost on its way to the disk")
                server.stop(signal.SIGKILL)
                server.wait()
            (store / "ballast").unlink()
            with self._some(journal) as server, server.connect() as peer:
                answers = peer.exchange(b"keep 3", b"keep 4")
                disk.cut()
                server.stop(signal.SIGKILL)
                server.wait()
            disk.remount()
            stored = {b"OK %d" % seq: message for seq, _, message in rows(journal)}
            self.assertEqual([stored.get(answer) for answer in answers], [b"keep 3", b"keep 4"])

    def test_read_only(self) -> None:
        """A journal that can only be read: ``ERR unavailable``, and stored again when it can be written."""
        disk = self.folder / "disk"
        disk.mkdir()
        with small_disk(disk):
            journal = disk / "journal.db"
            options = ("--journal", f"sqlite:{journal}")
            with Server(*options, folder=self.folder) as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"before"), [b"OK 1"])
                self._stop(server, peer)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            with Server(*options, folder=self.folder) as server, server.connect() as peer:
                self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
                self.assertRegex(peer.exchange(b"lost too")[0], UNAVAILABLE)
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
                self.assertEqual(self._recovers(peer), b"OK 2")
            self.assertEqual([message for *_, message in rows(journal)], [b"before", b"again"])

    def test_no_folder(self) -> None:
        """A folder that goes away while nobody is served, and comes back."""
        place = self.folder / "place"
        place.mkdir()
        with Server("--journal", "sqlite:place/journal.db", folder=self.folder) as server, server.connect() as peer:
            place.rename(self.folder / "elsewhere")
            self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
            (self.folder / "elsewhere").rename(place)
            self.assertEqual(self._recovers(peer), b"OK 1")
            self.assertEqual([message for *_, message in rows(place / "journal.db")], [b"again"])

    def test_file_moved_away(self) -> None:
        """The journal's file is renamed under the server: a new one is begun, and the old one keeps what was in it."""
        with Server() as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"one", b"two"), [b"OK 1", b"OK 2"])
            old = server.folder / "old.db"
            server.journal.rename(old)
            self.assertEqual(peer.exchange(b"three"), [b"OK 1"])
            self.assertRegex(server.log, "the journal .* was moved or replaced")
            self.assertEqual([message for *_, message in rows(server.journal)], [b"three"])
            self.assertEqual([message for *_, message in rows(old)], [b"one", b"two"])

    def test_file_and_its_log_moved_away(self) -> None:
        """The same if what belongs to the file (``-wal``, ``-shm``) is moved with it."""
        with Server() as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"one", b"two"), [b"OK 1", b"OK 2"])
            for ending in ("", "-wal", "-shm"):
                (server.folder / f"mtserver.db{ending}").rename(server.folder / f"old.db{ending}")
            self.assertEqual(peer.exchange(b"three"), [b"OK 1"])
            self.assertEqual([message for *_, message in rows(server.journal)], [b"three"])
            self.assertEqual([message for *_, message in rows(server.folder / "old.db")], [b"one", b"two"])

    def test_file_replaced(self) -> None:
        """Another journal is put in its place: what follows goes there, with its numbers."""
        with Server(folder=self.folder) as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"a", b"b", b"c"), [b"OK 1", b"OK 2", b"OK 3"])
            self._stop(server, peer)
        saved = self.folder / "saved.db"
        (self.folder / "mtserver.db").rename(saved)
        with Server(folder=self.folder) as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"one"), [b"OK 1"])
            server.journal.rename(self.folder / "old.db")
            saved.rename(server.journal)
            self.assertEqual(peer.exchange(b"d"), [b"OK 4"])
            self.assertEqual([message for *_, message in rows(server.journal)], [b"a", b"b", b"c", b"d"])
            self.assertEqual([message for *_, message in rows(self.folder / "old.db")], [b"one"])

    def test_not_a_journal(self) -> None:
        """A file that is something else is refused before any port opens, and its bytes are what they were."""
        content = b"a letter to somebody, quite long" * 100
        (self.folder / "mtserver.db").write_bytes(content)
        ended = run_to_end(self.folder, "--port", TCP)
        self.assertEqual(ended.stderr, "mtserver: --journal sqlite:mtserver.db: that is a file, but not a database\n")
        self.assertEqual(ended.returncode, 1)
        self.assertEqual((self.folder / "mtserver.db").read_bytes(), content)


def sync_only() -> None:
    """What an earlier process has left in the log is synced, and not written anew."""
    from mtserver.journal.sqlite import file

    module: Any = file
    module.rewrite_log = lambda _connection, path: file.sync_log(path)


class Controls(ControlCase):
    def test_gone_on_behind_what_the_disk_never_got(self) -> None:
        """P1: after an fsync that failed the next server goes on in the same log."""
        with self.noticed_by(TestJournal, "test_restart_after_failed_fsync"):
            self.break_servers(sync_only)
