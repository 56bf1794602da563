"""The main job out of the box: a thousand clients' messages, acknowledged when they are safe."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.controls import ControlCase

from .peer import Crowd
from .server import Server, rows

CLIENTS = 1000
MESSAGES = 20


def numbers(lines: list[bytes]) -> list[int]:
    """Parse ``OK <seq>`` lines; anything else is a failure."""
    assert all(re.fullmatch(rb"OK [1-9]\d*", line) for line in lines), lines
    return [int(line[3:]) for line in lines]


class TestThousand(SynchronousTestCase):
    def test_thousand_clients_at_once(self) -> None:
        """1,000 clients at once, 20 messages each: 20,000 distinct OK, each for its row, in each client's order."""
        with Server() as server:
            with Crowd(server.port, CLIENTS) as crowd:
                for index in range(CLIENTS):
                    crowd.send(index, b"".join(b"%d:%d\n" % (index, count) for count in range(MESSAGES)))
                crowd.read_until(
                    lambda: sum(received.count(b"\n") for received in crowd.received) >= CLIENTS * MESSAGES
                )
                answers = [numbers(crowd.lines(index)) for index in range(CLIENTS)]
                self.assertEqual(crowd.ended, {})
            stored = rows(server.journal)
        self.assertEqual(len({number for answer in answers for number in answer}), CLIENTS * MESSAGES)
        self.assertEqual(len(stored), CLIENTS * MESSAGES)
        messages = {seq: message for seq, _, message in stored}
        for index, answer in enumerate(answers):
            self.assertEqual(answer, sorted(answer))
            self.assertEqual([messages[number] for number in answer], [b"%d:%d" % (index, n) for n in range(MESSAGES)])
        self.assertEqual(len({client for _, client, _ in stored}), CLIENTS)


class TestKill(SynchronousTestCase):
    def test_what_was_acknowledged_survives_kill(self) -> None:
        """Five times kill -9 in mid-load on one journal: every OK that a client read is there with its message."""
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        acknowledged: dict[int, bytes] = {}
        for kill in range(5):
            for number, message in self._load_until_kill(folder, kill):
                self.assertNotIn(number, acknowledged)
                acknowledged[number] = message
        with Server(folder=folder) as server, server.connect() as peer:
            (last,) = numbers(peer.exchange(b"the end"))
            stored = {seq: message for seq, _, message in rows(server.journal)}
        self.assertEqual(last, max(stored))
        self.assertGreater(last, max(acknowledged))
        self.assertEqual({number: stored.get(number) for number in acknowledged}, acknowledged)

    def _load_until_kill(self, folder: Path, kill: int) -> list[tuple[int, bytes]]:
        clients, burst, enough = 20, 50, 300 + 450 * kill
        with Server(folder=folder) as server, Crowd(server.port, clients) as crowd:
            sent = [0] * clients

            def send_burst(index: int) -> None:
                following = range(sent[index], sent[index] + burst)
                crowd.send(index, b"".join(b"%d:%d:%d\n" % (kill, index, count) for count in following))
                sent[index] += burst

            for index in range(clients):
                send_burst(index)
            killed = False
            while len(crowd.ended) < clients:
                for index in crowd.read_once(1.0):
                    # Always more on the way than is answered, so that the kill meets messages everywhere.
                    if not killed and sent[index] - crowd.received[index].count(b"\n") < burst:
                        send_burst(index)
                if not killed and sum(received.count(b"\n") for received in crowd.received) >= enough:
                    server.stop(signal.SIGKILL)
                    killed = True
            self.assertEqual(server.wait(), -signal.SIGKILL)
            answers = [numbers(crowd.lines(index)) for index in range(clients)]
            self.assertLess(sum(map(len, answers)), sum(sent), "the kill came too late to prove anything")
        return [
            (number, b"%d:%d:%d" % (kill, index, count))
            for index, answer in enumerate(answers)
            for count, number in enumerate(answer)
        ]


def acknowledge_before_the_commit() -> None:
    """Each transaction is committed when the next begins."""
    from mtserver.journal.sqlite import writer as module

    kind: Any = module.Writer
    right = kind._begin

    def begin(writer: Any, **more: int) -> Any:
        connection = writer._connection
        if connection is not None and connection.in_transaction:
            connection.execute("COMMIT")
        return right(writer, **more)

    kind._begin = begin
    kind._end = lambda *_: None


class Controls(ControlCase):
    def test_acknowledged_before_the_commit(self) -> None:
        """P1: what is acknowledged is committed a moment later, and kill -9 comes between."""
        with self.noticed_by(TestKill, "test_what_was_acknowledged_survives_kill"):
            self.break_servers(acknowledge_before_the_commit)
