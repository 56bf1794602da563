"""``python -m mtserver.journal`` beside a server under load: it sees everything, and nobody notices it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mtserver.journal.sqlite import retention
from tests.journalfile import batch, write

from .peer import DEADLINE, Peer
from .server import TCP, Server, rows, run_to_end, wait_until

DAY = 86400.0


def command(path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mtserver.journal", str(path), *words]


def run_command(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(path, *words), capture_output=True, text=True, timeout=DEADLINE, check=False)


@contextlib.contextmanager
def running(path: Path, *words: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command in the background; it is ended with the block, if it has not ended by then."""
    # A process started with `&` ignores SIGINT, and so would its children.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command(path, *words), **settings)
    finally:
        signal.signal(signal.SIGINT, ours)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class Load(threading.Thread):
    """A client that sends and reads answers until it is told to stop; all of them have to be OK."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._peer = Peer.connect(port)
        self._over = threading.Event()
        self.acknowledged: dict[int, bytes] = {}
        self.refused: list[bytes] = []

    def run(self) -> None:
        count = 0
        with self._peer:
            while not self._over.is_set():
                messages = [b"%s:%d" % (self.name.encode(), count + n) for n in range(20)]
                count += 20
                for message, answer in zip(messages, self._peer.exchange(*messages), strict=True):
                    if answer.startswith(b"OK "):
                        self.acknowledged[int(answer[3:])] = message
                    else:
                        self.refused.append(answer)

    def stop(self) -> None:
        self._over.set()
        self.join(DEADLINE)


@contextlib.contextmanager
def load(server: Server, clients: int = 3) -> Iterator[Sequence[Load]]:
    """Clients that send while the block lasts, each at least something."""
    all_of_them = [Load(server.port, f"client {number}") for number in range(clients)]
    for each in all_of_them:
        each.start()
    try:
        yield all_of_them
        wait_until(lambda: all(len(each.acknowledged) > 100 or each.refused for each in all_of_them), "some load")
    finally:
        for each in all_of_them:
            each.stop()


class CommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.journal = self.folder / "mtserver.db"

    def assert_kept(self, clients: Sequence[Load], path: Path | None = None) -> None:
        """No message was refused, and all that were acknowledged are there."""
        self.assertEqual([answer for each in clients for answer in each.refused], [])
        stored = {seq: message for seq, _, message in rows(path or self.journal)}
        for each in clients:
            self.assertEqual({seq: stored.get(seq) for seq in each.acknowledged}, each.acknowledged)

    def assert_sound(self) -> None:
        found = run_command(self.journal, "--verify")
        self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)


class Beside(CommandCase):
    def test_follow(self) -> None:
        """Follow sees every message once and in order while clients send, over a file that is moved away as well."""
        out = self.folder / "out"
        with Server(folder=self.folder) as server, server.connect() as peer, out.open("wb") as seen:
            self.assertEqual(peer.exchange(b"first"), [b"OK 1"])
            with running(self.journal, "--follow", "--json", stdout=seen, stderr=subprocess.PIPE) as follower:
                wait_until(lambda: out.read_bytes().count(b"\n") >= 1, "the first message")
                with load(server) as clients:
                    pass
                last = int(peer.exchange(b"last")[0][3:])
                old = self.folder / "old.db"
                self.journal.rename(old)
                self.assertEqual(peer.exchange(b"new"), [b"OK 1"])
                wait_until(lambda: b'"message": "new"' in out.read_bytes(), "the message of the new file")
                follower.send_signal(signal.SIGINT)
                self.assertEqual(follower.wait(DEADLINE), 130)
                assert follower.stderr is not None
                self.assertEqual(
                    follower.stderr.read().decode(),
                    f"mtserver.journal: {self.journal} was moved or replaced; going on with the new one\n",
                )
        self.assert_kept(clients, old)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual([line["seq"] for line in lines], [*range(1, last + 1), 1])
        self.assertEqual([line["message"].encode() for line in lines[:-1]], [message for *_, message in rows(old)])

    def test_prune(self) -> None:
        """Pruned while clients send: what is old goes, nothing else, and no client sees an error."""
        write(self.journal, *[batch(5000, at=-9 * DAY, size=200) for _ in range(4)], batch(100, at=-DAY / 2))
        with Server(folder=self.folder) as server, load(server) as clients:
            pruned = run_command(self.journal, "--keep", "1d")
        self.assertEqual((pruned.returncode, pruned.stderr), (0, ""))
        self.assertRegex(pruned.stdout, r"\A20000 messages removed \(.*\), up to number 20000\n\Z")
        self.assert_kept(clients)
        self.assertEqual(rows(self.journal, "seq")[0], (20001,))
        self.assert_sound()

    def test_prune_killed(self) -> None:
        """Killed in the middle of it: the file is sound, what was to stay is there, and the rest goes the next time."""
        write(self.journal, *[batch(5000, at=-9 * DAY, size=200) for _ in range(8)], batch(100))
        self.assertLess(5 * retention.ROWS, 40_000, "too little to be in the middle of it")
        with Server(folder=self.folder) as server, load(server) as clients:
            with running(self.journal, "--keep", "1d", stdout=subprocess.DEVNULL) as pruner:
                wait_until(lambda: rows(self.journal, "min(seq)") != [(1,)] or pruner.poll() is not None, "a step")
                pruner.kill()
                self.assertEqual(pruner.wait(DEADLINE), -signal.SIGKILL)
            first = rows(self.journal, "min(seq)")[0][0]
            self.assertEqual((first - 1) % retention.ROWS, 0, "half a step")
            self.assertLess(first, 40_001)
        self.assert_kept(clients)
        self.assert_sound()
        self.assertEqual(run_command(self.journal, "--keep", "1d").returncode, 0)
        self.assertEqual(rows(self.journal, "min(seq)"), [(40_001,)])
        self.assert_sound()

    def test_the_server_keeps(self) -> None:
        """A server with --keep removes messages by itself, under load, and says so once."""
        write(self.journal, *[batch(5000, at=-9 * DAY, size=200) for _ in range(4)], batch(100))
        with Server("--keep", "1d", folder=self.folder) as server:
            with load(server) as clients:
                wait_until(lambda: rows(self.journal, "min(seq)") == [(20_001,)], "the last of the old messages to go")
            self.assertEqual(server.log.count("--keep: "), 1)
            self.assertIn("the oldest messages are removed", server.log)
        self.assert_kept(clients)
        self.assert_sound()

    def test_count_and_verify(self) -> None:
        """Counted and verified while clients send: no damage is seen that is none, and no client sees an error."""
        with Server("--message-ids", folder=self.folder) as server, server.connect() as peer:
            peer.exchange(b"RESUME me")
            over = threading.Event()

            def send() -> None:
                for number in range(2000):
                    (answer,) = peer.exchange(b"@%d message" % number)
                    assert answer == b"OK %d" % (number + 1), answer
                    if over.is_set():
                        return

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            for _ in range(2):
                self.assert_sound()
                found = run_command(self.journal, "--stats", "--json")
                self.assertEqual(found.returncode, 0)
                self.assertEqual([each["name"] for each in json.loads(found.stdout)["sources"]], ["me"])
            over.set()
            sender.join(DEADLINE)
            self.assertFalse(sender.is_alive())

    def test_broken_pipe(self) -> None:
        """A reader that has had enough, as ``head``, ends it without a word."""
        write(self.journal, batch(20_000))
        with running(self.journal, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            self.assertTrue(process.stdout.readline().startswith(b"1\t"))
            process.stdout.close()
            self.assertEqual((process.wait(DEADLINE), process.stderr.read()), (0, b""))

    def test_plain_terminal(self) -> None:
        """Characters that a terminal cannot show are printed as escapes."""
        write(self.journal, batch(1)._replace(messages=["häß".encode()]))
        shown = subprocess.run(
            command(self.journal),
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            timeout=DEADLINE,
            check=True,
        )
        self.assertTrue(shown.stdout.endswith(b"\th\\xe4\\xdf\n"))


class Damaged(CommandCase):
    def test_refused(self) -> None:
        """A damaged journal is refused before any port opens, with one line, and its bytes are what they were."""
        write(self.journal, batch(5000))
        content = bytearray(self.journal.read_bytes())
        content[3 * 4096 : 3 * 4096 + 4] = b"\xff\xff\xff\xff"
        self.journal.write_bytes(content)
        ended = run_to_end(self.folder, "--port", TCP)
        self.assertRegex(
            ended.stderr,
            r"\Amtserver: --journal sqlite:mtserver.db: damaged: .*; "
            r"python -m mtserver.journal mtserver.db --verify says more\n\Z",
        )
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(self.journal.read_bytes(), content)
        found = run_command(self.journal, "--verify")
        self.assertEqual(found.returncode, 1)
        self.assertRegex(found.stdout, r"(?i)page \d+")

    def test_found_after_the_start(self) -> None:
        """Where it could not be looked at before, it is after the start, and then nothing is stored any more."""
        with Server(folder=self.folder) as server, server.connect() as peer:
            peer.exchange(*[b"x" * 100] * 5000)
            server.stop(signal.SIGKILL)
            server.wait()
        connection = apsw.Connection(str(self.journal))
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        log = Path(f"{self.journal}-wal").read_bytes()
        connection.close()
        content = bytearray(self.journal.read_bytes())
        content[8 * 4096 : 8 * 4096 + 8] = b"\xff" * 8
        self.journal.write_bytes(content)
        # Another page, so that the damaged one is not put right out of it.
        Path(f"{self.journal}-wal").write_bytes(log[:32])
        with Server(folder=self.folder) as server, server.connect() as peer:
            server.wait_for_log(r"the journal \S+ cannot store: Damaged: .*the file is damaged; python -m")
            self.assertRegex(peer.exchange(b"lost")[0], rb"\AERR unavailable ")
            self.assertRegex(peer.exchange(b"lost")[0], rb"\AERR unavailable ")
        self.assertGreaterEqual(self.journal.stat().st_size, len(content))
