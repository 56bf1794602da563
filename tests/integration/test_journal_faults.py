"""Storage that fails: never a false OK, and all is well again when it is."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from .disk import small_disk
from .peer import Peer
from .server import TCP, Server, rows, run_to_end, wait_until

UNAVAILABLE = rb"\AERR unavailable retry-after=[1-9]\d* "


class TestJournal(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def _recovers(self, peer: Peer) -> bytes:
        """The first answer that is not ``ERR unavailable``; each attempt is a message ``again``."""

        def answer() -> bytes:
            (line,) = peer.exchange(b"again")
            return b"" if line.startswith(b"ERR unavailable ") else line

        line: bytes = wait_until(answer, "recovery")
        return line

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
        """A full disk: ``ERR unavailable``, no OK that is not in the journal, and on it goes when there is room."""
        disk = self.folder / "disk"
        disk.mkdir()
        with small_disk(disk):
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(300_000))
            journal = disk / "journal.db"
            with Server("--journal", f"sqlite:{journal}") as server, server.connect() as peer:
                acknowledged: dict[int, bytes] = {}
                refused = 0
                for count in range(100):
                    message = b"%d:" % count + b"x" * 20_000
                    (answer,) = peer.exchange(message)
                    if answer.startswith(b"OK "):
                        acknowledged[int(answer[3:])] = message
                    else:
                        self.assertRegex(answer, UNAVAILABLE)
                        refused += 1
                self.assertGreater(refused, 10)
                self.assertGreater(len(acknowledged), 5)
                self.assertEqual(server.log.count("cannot store"), server.log.count("is back") + 1)
                ballast.unlink()
                self.assertRegex(self._recovers(peer), rb"\AOK \d+\Z")
                server.stop()
                peer.rest()
                peer.finish()
                self.assertEqual(server.wait(), 0)
            stored = {seq: message for seq, _, message in rows(journal)}
            self.assertEqual({seq: stored.get(seq) for seq in acknowledged}, acknowledged)
            self.assertEqual([message for seq, message in stored.items() if seq not in acknowledged], [b"again"])

    def test_read_only(self) -> None:
        """A journal that can only be read: ``ERR unavailable``, and stored again when it can be written."""
        disk = self.folder / "disk"
        disk.mkdir()
        with small_disk(disk):
            journal = disk / "journal.db"
            options = ("--journal", f"sqlite:{journal}")
            with Server(*options, folder=self.folder) as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"before"), [b"OK 1"])
                server.stop()
                peer.rest()
                peer.finish()
                self.assertEqual(server.wait(), 0)
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
            server.stop()
            peer.rest()
            peer.finish()
            self.assertEqual(server.wait(), 0)
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
