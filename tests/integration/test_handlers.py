"""Handlers in the real process: threads, loops and reactors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from .peer import Crowd
from .server import FOREGROUND, Server, rows, run_to_end

BLOCKING = {
    "blocking": """
        import threading, time

        meeting = threading.Barrier(50, timeout=60)

        def blocking(client, message: bytes) -> bytes:
            meeting.wait()
            time.sleep(0.2)
            return message.upper()
    """
}

EVERY_KIND = {
    "kinds": """
        import asyncio
        import threading
        import mtserver
        from twisted.internet import task

        async def deferred(client, message: bytes) -> bytes:
            from twisted.internet import reactor
            await task.deferLater(reactor, 0.01, lambda: None)
            return message.upper()

        def plain(client, message: bytes) -> bytes:
            return message.upper() if threading.current_thread() is not threading.main_thread() else b"wrong thread"

        async def thread(client, message: bytes) -> bytes:
            return await mtserver.to_thread(plain, client, message)

        async def process(client, message: bytes) -> bytes:
            return await mtserver.to_process(bytes.upper, message)

        async def sleeping(client, message: bytes) -> bytes:
            await asyncio.sleep(0.01)
            return message.upper()
    """
}

FROZEN = {
    "frozen": """
        import gc

        async def frozen(client, message: bytes) -> bytes:
            return b"%d" % gc.get_freeze_count()
    """
}


TYPED = {
    "typed": """
        from dataclasses import dataclass

        @dataclass
        class Reading:
            celsius: float

        async def mean(client, message: Reading) -> Reading:
            return Reading(message.celsius * 2)

        def plain(client, message: Reading) -> Reading:
            return Reading(message.celsius * 2)
    """
}


def on(reactor: str) -> Sequence[str]:
    return (*FOREGROUND, "--reactor", reactor)


class TestThreads(SynchronousTestCase):
    def test_fifty_at_once(self) -> None:
        """50 clients of a handler that blocks are handled at the same time, given 50 threads: they all meet there."""
        with (
            Server("--app", "blocking:blocking", "--threads", "50", modules=BLOCKING) as server,
            Crowd(server.port, 50) as crowd,
        ):
            for index in range(50):
                crowd.send(index, b"client %d\n" % index)
            crowd.read_until(lambda: all(received.endswith(b"\n") for received in crowd.received))
            self.assertEqual([crowd.lines(index) for index in range(50)], [[b"CLIENT %d" % n] for n in range(50)])

    def test_fewer_threads_than_clients(self) -> None:
        """With 49 threads the same 50 cannot meet: the test above would notice threads that are missing."""
        modules = {"blocking": BLOCKING["blocking"].replace("timeout=60", "timeout=1")}
        with (
            Server("--app", "blocking:blocking", "--threads", "49", modules=modules) as server,
            Crowd(server.port, 50) as crowd,
        ):
            for index in range(50):
                crowd.send(index, b"client %d\n" % index)
            crowd.read_until(lambda: all(received.endswith(b"\n") for received in crowd.received))
            self.assertEqual(
                {line for index in range(50) for line in crowd.lines(index)}, {b"ERR internal the handler failed"}
            )

    def test_a_blocked_thread_stops_nobody_else(self) -> None:
        """While one client's plain handler blocks for good, others are served by the other threads."""
        modules = {
            "stuck": """
                import threading

                def stuck(client, message: bytes) -> bytes:
                    if message == b"block":
                        client.send(b"blocking")
                        threading.Event().wait()
                    return message.upper()
            """
        }
        with (
            Server("--app", "stuck:stuck", "--threads", "2", modules=modules) as server,
            server.connect() as stuck,
            server.connect() as other,
        ):
            self.assertEqual(stuck.exchange(b"block"), [b"blocking"])
            self.assertEqual(other.exchange(b"a", b"b", b"c"), [b"A", b"B", b"C"])


class TestReactors(SynchronousTestCase):
    def _serves(self, server: Server) -> None:
        with server.connect() as peer:
            self.assertEqual(peer.exchange(b"one", b"two"), [b"ONE", b"TWO"])
        server.stop()
        self.assertEqual(server.wait(), 0)

    def _every_kind(self, name: str, command: Sequence[str], kinds: Sequence[str]) -> None:
        for kind in kinds:
            with Server("--app", f"kinds:{kind}", modules=EVERY_KIND, command=command) as server:
                self.assertIn(f".{name}", server.log)
                self._serves(server)

    def test_every_kind_of_handler_without_asyncio(self) -> None:
        """Without an asyncio loop: awaiting a Deferred, plain def, ``to_thread`` and ``to_process`` work."""
        for reactor, name in (("epoll", "EPollReactor"), ("poll", "PollReactor")):
            self._every_kind(name, on(reactor), ("deferred", "plain", "thread", "process"))

    def test_every_kind_of_handler_with_asyncio(self) -> None:
        """The same handlers on an asyncio loop, ours by default or asyncio's own; and what awaits asyncio's things."""
        for command, name in ((FOREGROUND, "UVReactor"), (on("asyncio"), "AsyncioSelectorReactor")):
            self._every_kind(name, command, ("deferred", "plain", "thread", "process", "sleeping"))

    def test_collect_on_epoll(self) -> None:
        """``collect`` acknowledges and stores without an asyncio loop too."""
        with Server(command=on("epoll")) as server:
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"one", b"two"), [b"OK 1", b"OK 2"])
            server.stop()
            self.assertEqual(server.wait(), 0)
            self.assertEqual([message for *_, message in rows(server.journal)], [b"one", b"two"])

    def test_twist(self) -> None:
        """``twist mtserver`` serves, and drains at SIGTERM, as ``twistd`` does."""
        with Server(command=("twist", "--log-format=text")) as server:
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"one"), [b"OK 1"])
                server.stop()
                self.assertRegex(peer.rest(), rb"\AERR closing retry-after=\d+ .*\n\Z")
                peer.finish()
            self.assertEqual(server.wait(), 0)

    def test_frozen(self) -> None:
        """What there is at the start is not looked at by the garbage collector again."""
        with Server("--app", "frozen:frozen", modules=FROZEN) as server, server.connect() as peer:
            self.assertGreater(int(peer.exchange(b"how many?")[0]), 10_000)


class TestTyped(SynchronousTestCase):
    def test_json(self) -> None:
        """Typed messages in the real process, on the loop and in threads; who is wrong too often is closed."""
        for kind in ("mean", "plain"):
            with (
                Server("--app", f"typed:{kind}", "--max-bad-messages", "2", modules=TYPED) as server,
                server.connect() as peer,
            ):
                answers = peer.exchange(b'{"celsius": 21}', b'{"celsius": "warm"}', b'{"celsius": 1.5}')
                self.assertEqual(answers[::2], [b'{"celsius":42.0}', b'{"celsius":3.0}'])
                # What is wrong is said by msgspec, and where in the form that it has for places.
                self.assertRegex(answers[1], rb'^{"error":"bad-message","text":".*[$][.]celsius.*"}$')
                peer.send(b"no\nno\nno\n")
                rest = peer.rest().splitlines()
                self.assertEqual(len(rest), 3)
                self.assertEqual(rest[-1], b'{"error":"bad-message","text":"2 bad messages in a row"}')

    def test_describe(self) -> None:
        """--describe prints a document on standard output and exits with status 0, the port being in use or not."""
        with Server("--app", "typed:mean", modules=TYPED) as server:
            words = ("--app", "typed:mean", "--port", f"tcp:{server.port}:interface=127.0.0.1", "--describe")
            done = run_to_end(server.folder, *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        document = json.loads(done.stdout)
        self.assertEqual(document["asyncapi"], "3.0.0")
        self.assertEqual(document["components"]["schemas"]["Reading"]["required"], ["celsius"])
