"""The harness that users test their handlers with: what it simulates is what the real thing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client, Handler, to_thread
from mtserver.errors import ConfigurationError
from mtserver.testing import Harness
from mtserver.testing.loop import ClockLoop
from mtserver.testing.transport import FakeTransport


class Reading(Struct):
    celsius: float


async def shout(client: Client, message: bytes) -> bytes:
    return message.upper()


class Usage(SynchronousTestCase):
    def test_as_documented(self) -> None:
        """The example of the documentation runs as it stands."""
        harness = Harness(shout)
        client = harness.connect()
        client.send(b"hello")
        self.assertEqual(client.received, [b"HELLO"])
        harness.advance(601)
        self.assertTrue(client.disconnected)

    def test_two_at_once(self) -> None:
        """Two servers in one test do not wait for each other's threads."""

        async def shout_elsewhere(client: Client, message: bytes) -> bytes:
            return await to_thread(message.upper)

        clients = [Harness(shout_elsewhere).connect() for _ in range(2)]
        for client in clients:
            client.send(b"hello")
            self.assertEqual(client.received, [b"HELLO"])

    def test_raw(self) -> None:
        """Raw bytes go in as segments of their own, and come out as they were written."""
        client = Harness(shout, framing="int8").connect()
        client.send_raw(b"\x03a", b"bc\x01", b"d")
        self.assertEqual(client.received_raw, b"\x03ABC\x01D")
        self.assertEqual(client.received, [b"ABC", b"D"])

    def test_text(self) -> None:
        """With a handler of str, messages are str on both sides."""

        async def greet(client: Client, name: str) -> str:
            return f"hello {name}"

        client = Harness(greet).connect()
        client.send("z\xf6e")
        self.assertEqual(client.received, ["hello z\xf6e"])

    def test_typed(self) -> None:
        """With a typed handler, messages are values on both sides; bytes are sent as they are."""

        async def mean(client: Client, message: Reading) -> dict[str, float]:
            return {"mean": message.celsius}

        for encoding, no_message in (("json", b'{"celsius": '), ("msgpack", b"\x81\xa7celsius")):
            client = Harness(mean, encoding=encoding, framing="int32").connect()
            client.send(Reading(21.5), {"celsius": "warm"}, "text", no_message)
            self.assertEqual(client.received[0], {"mean": 21.5})
            self.assertEqual([said["error"] for said in client.received[1:]], ["bad-message"] * 3)
            self.assertEqual(client.received[3]["text"], "Input data was truncated")

    def test_no_value(self) -> None:
        """What a typed handler's client is sent, and is no value, is bytes."""

        async def odd(client: Client, message: int) -> Raw:
            return Raw(b"OK")

        client = Harness(odd).connect()
        client.send(1)
        self.assertEqual(client.received, [b"OK"])

    def test_context_manager(self) -> None:
        """Used with `with`, it stops at the end; stopping twice is harmless."""
        with Harness(shout) as harness:
            client = harness.connect()
        self.assertTrue(client.disconnected)
        harness.stop()

    def test_clock(self) -> None:
        """Asyncio's time is the harness's: each sleep ends at its own moment."""
        moments: list[float] = []

        class Ticker(Handler):
            async def received(self, message: bytes) -> None:
                for _ in range(3):
                    await asyncio.sleep(10)
                    moments.append(harness.reactor.seconds())

        harness = Harness(Ticker)
        harness.connect().send(b"go")
        harness.advance(25)
        self.assertEqual(moments, [10, 20])
        harness.advance(100)
        self.assertEqual(moments, [10, 20, 30])

    def test_inside_a_running_loop(self) -> None:
        """It keeps to its own loop, also when the test runs in another."""

        async def sleepy(client: Client, message: bytes) -> bytes:
            await asyncio.sleep(5)
            return message

        async def test() -> list[bytes]:
            harness = Harness(sleepy)
            client = harness.connect()
            client.send(b"x")
            harness.advance(6)
            await asyncio.sleep(0)
            return client.received

        self.assertEqual(asyncio.run(test()), [b"x"])

    def test_inside_a_task(self) -> None:
        """A test that is a task is not the current one while handlers run: Python 3.14 has one in a thread."""
        seen: list[Any] = []

        async def test() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()

            async def sleepy(client: Client, message: bytes) -> None:
                seen.append(asyncio.current_task(loop))
                await asyncio.sleep(5)
                seen.append(asyncio.current_task(loop))

            harness = Harness(sleepy)
            harness.connect().send(b"x")
            self.assertIs(asyncio.current_task(), task)
            harness.advance(6)
            self.assertIs(asyncio.current_task(), task)

        asyncio.run(test())
        self.assertEqual(seen, [None, None])

    def test_options(self) -> None:
        """Its options are checked as the command line's are."""
        options: list[dict[str, Any]] = [{"max_message": -5}, {"max_massage": 5}]
        for wrong in options:
            with self.assertRaises(ConfigurationError):
                Harness(shout, **wrong)

    def test_without_end(self) -> None:
        """A server that never comes to rest is reported, not waited for."""

        async def busy(client: Client, message: bytes) -> None:
            for _ in iter(int, 1):  # without end
                await asyncio.sleep(0)

        harness = Harness(busy)
        client = harness.connect()
        self.patch(Harness, "TURNS", 1000)
        with self.assertRaisesRegex(AssertionError, "does not come to rest"):
            client.send(b"x")


def test_fixture(harness: Callable[..., Harness]) -> None:
    """The pytest fixture makes harnesses and stops them."""
    client = harness(shout, max_message=10).connect()
    client.send(b"hello")
    assert client.received == [b"HELLO"]


class Loop(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.loop: Any = ClockLoop(self.clock)

    def test_order(self) -> None:
        """Calls run in the order of their times; a cancelled one does not."""
        calls: list[int] = []
        self.loop.call_later(2, calls.append, 2)
        self.loop.call_at(1, calls.append, 1)
        self.loop.call_soon(calls.append, 0)
        self.loop.call_later(1.5, calls.append, 9).cancel()
        self.assertTrue(self.loop.turn())
        self.clock.pump([0, 1, 1])
        self.assertEqual(calls, [0, 1, 2])

    def test_executor(self) -> None:
        """What would run in an executor runs in place, and its exception is the future's."""
        self.assertEqual(self.loop.run_in_executor(None, int, "3").result(), 3)
        self.assertIsInstance(self.loop.run_in_executor(None, int, "x").exception(), ValueError)

    def test_problems(self) -> None:
        """What asyncio would log of a forgotten exception is kept for the test to see."""
        future = self.loop.create_future()
        future.set_exception(ValueError("forgotten"))
        del future
        self.assertIn("never retrieved", self.loop.problems[0]["message"])
        self.assertTrue(self.loop.is_running())
        self.assertFalse(self.loop.is_closed())


class Transport(SynchronousTestCase):
    def transport(self, protocol: Any) -> FakeTransport:
        peer = IPv4Address("TCP", "192.0.2.2", 1)
        host = IPv4Address("TCP", "192.0.2.1", 2)
        transport = FakeTransport(MemoryReactorClock(), protocol, peer, host)
        transport.startReading()
        protocol.makeConnection(transport)
        return transport

    def test_end_of_file(self) -> None:
        """A protocol that cannot be half-closed loses its connection at the end of the stream, as with Twisted."""
        lost: list[Any] = []

        class Plain(Protocol):
            def connectionLost(self, reason: Any = None) -> None:
                lost.append(reason)

        transport = self.transport(Plain())
        from twisted.internet import main

        transport.end(main.CONNECTION_DONE)
        while transport.turn():
            pass
        self.assertEqual(len(lost), 1)
        self.assertFalse(transport.turn())

    def test_half_close_of_a_plain_protocol(self) -> None:
        """Half-closing the write side is seen by the peer, whatever the protocol is."""
        transport = self.transport(Protocol())
        transport.write(b"last")
        transport.loseWriteConnection()
        while transport.turn():
            pass
        self.assertEqual((bytes(transport.output), transport.write_closed), (b"last", True))

    def test_tcp_options(self) -> None:
        """It has the options of a TCP transport, which do nothing."""
        transport = self.transport(Protocol())
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpNoDelay())
        self.assertFalse(transport.getTcpKeepAlive())
        self.assertEqual(transport.getHost().port, 2)
