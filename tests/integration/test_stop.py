"""The end: SIGTERM answers what has been received, and says what it had to cut."""

from __future__ import annotations

import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.controls import ControlCase

from .server import Server

SLOW = {
    "slow": """
        import asyncio

        async def slow(client, message: bytes) -> bytes:
            client.send(b"began " + message)
            await asyncio.sleep(0.1)
            return message.upper()
    """
}

STUCK = {
    "stuck": """
        import asyncio, threading

        async def loop(client, message: bytes) -> bytes:
            client.send(b"began")
            await asyncio.Event().wait()

        def thread(client, message: bytes) -> bytes:
            client.send(b"began")
            threading.Event().wait()
    """
}

LARGE = {
    "large": """
        async def large(client, message: bytes) -> bytes:
            return bytes(range(250)) * 80_000
    """
}


class TestDrain(SynchronousTestCase):
    def test_everything_received_is_answered(self) -> None:
        """SIGTERM while five messages wait: all are answered, everyone is told, new ones are refused, status 0."""
        with (
            Server("--app", "slow:slow", modules=SLOW) as server,
            server.connect() as busy,
            server.connect() as idle,
        ):
            self.assertEqual(idle.exchange(b"x")[0], b"began x")
            self.assertEqual(idle.line(), b"X")
            busy.send(b"a\nb\nc\nd\ne\nunfinished")
            self.assertEqual(busy.line(), b"began a")
            server.stop()
            self.assertRegex(idle.rest(), rb"\AERR closing retry-after=[1-9]\d* .*\n\Z")
            lines = busy.rest().splitlines()
            self.assertEqual(
                [line for line in lines if not line.startswith((b"began", b"ERR"))], [*b"A B C D E".split()]
            )
            self.assertRegex(lines[-1], rb"\AERR closing retry-after=[1-9]\d* ")
            busy.finish()
            idle.finish()
            self.assertEqual(server.wait(), 0)
            self.assertRaises(ConnectionRefusedError, server.connect)

    def test_interrupt(self) -> None:
        """SIGINT does the same."""
        with Server() as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
            server.stop(signal.SIGINT)
            self.assertRegex(peer.rest(), rb"\AERR closing retry-after=[1-9]\d* .*\n\Z")
            peer.finish()
            self.assertEqual(server.wait(), 0)

    def test_owed_to_a_slow_reader(self) -> None:
        """SIGTERM while 20 MB are owed to a slow reader: it gets every byte, then the end, and the status is 0."""
        options = ("--app", "large:large", "--framing", "int32", "--send-buffer", "30000000")
        whole = bytes(range(250)) * 80_000
        with Server(*options, modules=LARGE) as server, server.connect() as peer:
            peer.send(b"\0\0\0\1a")
            self.assertEqual(peer.read(4), len(whole).to_bytes(4, "big"))
            begin = peer.read(1000)
            server.stop()
            server.wait_for_log("received SIGTERM")
            self.assertEqual(begin + peer.read(len(whole) - 1000), whole)
            size = int.from_bytes(peer.read(4), "big")
            self.assertRegex(peer.read(size), rb"\AERR closing retry-after=[1-9]\d* ")
            self.assertEqual(peer.rest(), b"")
            peer.finish()
            self.assertEqual(server.wait(), 0)

    def test_reader_that_does_not_read_on(self) -> None:
        """SIGTERM while 20 MB are owed to somebody who never reads them: cut after --drain-timeout, status 1."""
        options = ("--app", "large:large", "--framing", "int32", "--drain-timeout", "1")
        with Server(*options, modules=LARGE) as server, server.connect() as peer:
            peer.send(b"\0\0\0\1a")
            peer.read(1000)
            server.stop()
            self.assertEqual(server.wait(), 1)
            self.assertIn("the stop cut off 1 clients", server.log)

    def test_told_and_still_there(self) -> None:
        """A client that has been told, and does not close its side, costs nothing: it is not cut, and status is 0."""
        with Server("--drain-timeout", "1") as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"a"), [b"OK 1"])
            server.stop()
            self.assertRegex(peer.rest(), rb"\AERR closing ")
            status = server.wait()
            self.assertNotIn("cut off", server.log)
            self.assertEqual(status, 0)


class TestCut(SynchronousTestCase):
    def _cut(self, kind: str) -> None:
        options = ("--app", f"stuck:{kind}", "--drain-timeout", "1", "--threads", "2")
        with (
            Server(*options, modules=STUCK) as server,
            server.connect() as one,
            server.connect() as two,
            server.connect() as idle,
        ):
            one.send(b"a\nb\nc\n")
            two.send(b"d\n")
            self.assertEqual([one.line(), two.line()], [b"began"] * 2)
            server.stop()
            self.assertRegex(idle.rest(), rb"\AERR closing ")
            idle.finish()
            self.assertEqual(server.wait(), 1)
            self.assertIn("the stop cut off 2 clients, with 4 messages unanswered", server.log)

    def test_coroutine_that_never_returns(self) -> None:
        """A coroutine that never returns is cut after --drain-timeout: status 1, and the log says how many."""
        self._cut("loop")

    def test_thread_that_never_returns(self) -> None:
        """The same for a plain handler, in a thread that nothing can end."""
        self._cut("thread")

    def _second_signal(self, kind: str, first: signal.Signals, second: signal.Signals) -> None:
        options = ("--app", f"stuck:{kind}", "--drain-timeout", "600")
        with Server(*options, modules=STUCK) as server, server.connect() as peer:
            self.assertEqual(peer.exchange(b"a"), [b"began"])
            server.stop(first)
            server.wait_for_log("draining")
            server.stop(second)
            self.assertEqual(server.wait(), 1)
            self.assertIn("the stop cut off 1 clients, with 1 messages unanswered", server.log)

    def test_second_sigterm(self) -> None:
        """A second SIGTERM does not wait for --drain-timeout."""
        self._second_signal("loop", signal.SIGTERM, signal.SIGTERM)

    def test_second_sigint(self) -> None:
        """Nor does a second SIGINT, even with a thread that nothing can end."""
        self._second_signal("thread", signal.SIGINT, signal.SIGINT)


def wait_for_nobody() -> None:
    """A stop has no time at all."""
    from mtserver import settings

    kind: Any = settings.Settings
    kind.drain_timeout = property(lambda _: 0, lambda *_: None)


class Controls(ControlCase):
    def test_not_answered_before_the_end(self) -> None:
        """P4: SIGTERM ends connections whose messages wait."""
        with self.noticed_by(TestDrain, "test_everything_received_is_answered"):
            self.break_servers(wait_for_nobody)
