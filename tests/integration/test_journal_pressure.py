"""A disk that stalls: those who send are read no further, memory is bounded, and nothing is lost."""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mtserver.settings import Settings

from .disk import Disk
from .load import origin
from .peer import DEADLINE, Peer
from .server import Server, rows
from .test_journal_faults import SOME

CLIENTS = 300
#: Bytes of a message with its end.
SIZE = 4096
#: Messages that a client offers at once.
BURST = 16
#: Seconds without a byte that is taken from anybody.
PATIENCE = 1.0

#: Bytes that docs/limits.md allows each client, undecoded, with its handler, and in the middle of being sent.
HELD = 2 * (65536 + 256_000) + Settings().max_message
#: While the disk stands still: what may wait for it, and then what each brings that is read no further.
QUEUED = 16 * 1024 * 1024 + CLIENTS * (65536 + 256_000)


class Sender:
    """A client that sends without end, and reads nothing meanwhile."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer = peer
        self.name = name
        self.sent = 0
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BURST * SIZE)

    def _following(self, messages: int) -> bytes:
        """Return the bytes to send next, up to the end of so many messages."""
        first, begun = divmod(self.sent, SIZE)
        lines = [f"keep {self.name}:{first + n}:".encode().ljust(SIZE - 1, b".") + b"\n" for n in range(messages)]
        return b"".join(lines)[begun:]

    def push(self) -> None:
        """Send what the socket takes now."""
        self.sent += self.peer.socket.send(self._following(BURST))

    def finish(self) -> int:
        """Send the rest of the message that has begun, if one has. How many have been sent."""
        if self.sent % SIZE:
            rest = self._following(1)
            self.peer.send(rest)
            self.sent += len(rest)
        return self.sent // SIZE


def push_all(senders: list[Sender], meanwhile: Callable[[], None]) -> None:
    """Let them send until nothing more is taken from any of them."""
    end = time.monotonic() + 2 * DEADLINE
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            sender.peer.socket.setblocking(False)
            selector.register(sender.peer.socket, selectors.EVENT_WRITE, sender)
        while ready := selector.select(PATIENCE):
            assert time.monotonic() < end, "what they send is taken without end"
            for key, _ in ready:
                key.data.push()
            meanwhile()
    for sender in senders:
        sender.peer.socket.settimeout(2 * DEADLINE)


class TestStall(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_stalled_disk(self) -> None:
        """
        While the disk stands still, 300 clients send without end: they are read no further, memory keeps to
        docs/limits.md, those who store nothing are served, and in the end everything is answered, in order.
        """
        with Disk(self.folder, 1024 * 1024 * 1024) as disk:
            journal = disk.folder / "journal.db"
            options = ("--app", "some:app", "--journal", f"sqlite:{journal}")
            with Server(*options, modules={"some": SOME}, folder=self.folder) as server, server.connect() as other:
                self.assertEqual(other.exchange(b"keep first:0:"), [b"OK 1"])
                senders = [Sender(server.connect(), f"client-{number}") for number in range(CLIENTS)]
                for sender in senders:
                    self.addCleanup(sender.peer.socket.close)
                before = server.forget_peak_memory()
                with disk.frozen():
                    push_all(senders, lambda: self.assertEqual(other.exchange(b"still", b"here"), [b"still", b"here"]))
                    self.assertLess(server.memory("VmHWM") - before, QUEUED)
                self._all_is_answered(senders, journal)
                self.assertLess(server.memory("VmHWM") - before, CLIENTS * HELD)

    def _all_is_answered(self, senders: list[Sender], journal: Path) -> None:
        counts = [sender.finish() for sender in senders]
        stored: dict[int, tuple[str, int]] = {}
        for sender, count in zip(senders, counts, strict=True):
            answers = [re.fullmatch(rb"OK (\d+)", line) for line in sender.peer.lines(count)]
            numbers = [int(answer[1]) for answer in answers if answer]
            self.assertEqual(numbers, sorted(numbers))
            stored |= {number: (f"keep {sender.name}", place) for place, number in enumerate(numbers)}
        self.assertEqual(len(stored), sum(counts))
        self.assertEqual({seq: origin(message) for seq, message in rows(journal, "seq, message") if seq > 1}, stored)
