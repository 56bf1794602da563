"""More clients than there is room for: refused with a word, and nothing else fails for want of a descriptor."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .certificates import write_certificate
from .peer import Crowd
from .server import Server, rows, wait_until

BUSY = re.compile(rb"ERR busy retry-after=[1-9]\d* [^\n]*\n")
WITH_256_FILES = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")


class TestDescriptors(SynchronousTestCase):
    """1,000 connects against ``ulimit -n 256``. They stay open until every one has its answer."""

    def _serves_again(self, server: Server, already: int) -> None:
        def answered() -> bool:
            # The closing of those before may still be on its way.
            with server.connect() as peer:
                peer.send(b"after\n")
                return peer.line().startswith(b"OK ")

        wait_until(answered, "room for one")
        self.assertEqual([message for *_, message in rows(server.journal)], [b"first"] * already + [b"after"])
        self.assertEqual(len(re.findall(r"the limit of open files is too low for --max-clients 10000", server.log)), 1)
        for word in ("EMFILE", "Traceback", "cannot store", "Too many open files"):
            self.assertNotIn(word, server.log)

    def _room(self, server: Server) -> int:
        room = int(server.wait_for_log(r"serving at most (\d+) clients")[1])
        self.assertGreater(room, 150)
        self.assertLess(room, 256)
        return room

    def test_all_are_told(self) -> None:
        """Those without room read ``ERR busy``, each of them; the others are there, and served when they speak."""
        with Server(prefix=WITH_256_FILES) as server:
            room = self._room(server)
            with Crowd(server.port, 1000) as crowd:
                crowd.read_until(lambda: len(crowd.ended) >= 1000 - room)
                served = [index for index in range(1000) if index not in crowd.ended]
                self.assertEqual(len(served), room)
                unread = [bytes(crowd.received[n]) for n in crowd.ended if not BUSY.fullmatch(crowd.received[n])]
                self.assertEqual(unread, [])
                for index in served:
                    crowd.send(index, b"first\n")
                crowd.read_until(lambda: all(crowd.received[index].endswith(b"\n") for index in served))
                self.assertEqual({bytes(crowd.received[index][:3]) for index in served}, {b"OK "})
            self._serves_again(server, room)

    def test_all_are_told_who_speak_first(self) -> None:
        """The same for clients that send at once: the unread bytes do not cost them the word."""
        with Server(prefix=WITH_256_FILES) as server:
            room = self._room(server)
            with Crowd(server.port, 1000) as crowd:
                for index in range(1000):
                    crowd.send(index, b"first\n")
                crowd.read_until(
                    lambda: len(crowd.ended) + sum(r.startswith(b"OK ") for r in crowd.received) >= 1000,
                )
                unread = [bytes(crowd.received[n]) for n in crowd.ended if not BUSY.fullmatch(crowd.received[n])]
                self.assertEqual(unread, [])
                self.assertEqual(len(crowd.ended), 1000 - room)
            self._serves_again(server, room)

    def test_tls_newcomers_that_say_nothing(self) -> None:
        """Over TLS a newcomer can only be told after its handshake; those that never make one take no descriptors."""
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        ports = [write_certificate(folder), "tcp:0:interface=127.0.0.1"]
        with Server(ports=ports, folder=folder, prefix=WITH_256_FILES) as server:
            with Crowd(server.port, 1000) as crowd:
                # But for those still waited for: 24 at most.
                crowd.read_until(lambda: len(crowd.ended) >= 1000 - self._room(server) - 24)
                self.assertEqual({bytes(received) for received in crowd.received}, {b""})
                with server.connect(server.numbers[1]) as peer:
                    self.assertRegex(peer.line(), rb"ERR busy ")
            self.assertNotIn("EMFILE", server.log)


class TestMaxClients(SynchronousTestCase):
    def test_one_too_many(self) -> None:
        """The third of two reads ``ERR busy`` and the end; when one of the two has gone, there is room."""
        with (
            Server("--app", "echo", "--max-clients", "2") as server,
            server.connect() as one,
            server.connect() as two,
            server.connect() as three,
        ):
            self.assertEqual([one.exchange(b"a"), two.exchange(b"b")], [[b"a"], [b"b"]])
            self.assertRegex(three.rest(), rb"\AERR busy retry-after=[1-9]\d* [^\n]*\n\Z")
            two.finish()
            self.assertEqual(two.rest(), b"")
            server.wait_for_log("client 2 from .* closed")
            with server.connect() as four:
                self.assertEqual(four.exchange(b"d"), [b"d"])
            self.assertEqual(one.exchange(b"e"), [b"e"])

    def test_one_too_many_from_one_host(self) -> None:
        """--max-clients-per-host counts by address."""
        with Server("--app", "echo", "--max-clients-per-host", "1") as server, server.connect() as one:
            self.assertEqual(one.exchange(b"a"), [b"a"])
            with server.connect() as two:
                self.assertRegex(two.rest(), rb"\AERR busy retry-after=[1-9]\d* [^\n]*\n\Z")
