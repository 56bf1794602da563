"""Measurements of waits and of handlers, for whoever asks; every message is counted once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver import BadMessage, Client, Handler
from mtserver.dispatch import in_loop, in_threads
from mtserver.telemetry.events import MESSAGES_HANDLED, Event, subscribe
from mtserver.testing import Harness

law = settings(max_examples=60, deadline=None)


async def slow(client: Client, message: bytes) -> bytes | None:
    """A handler that takes as many seconds as the message says; `x` is a mistake of its own, `y` of the client."""
    if message == b"x":
        raise ZeroDivisionError
    if message == b"y":
        raise BadMessage("no")
    if message != b"0":
        await asyncio.sleep(float(message))
    return message if message > b"1" else None


class Blocking(Handler):
    def received(self, message: bytes) -> bytes | None:
        if message == b"x":
            raise ZeroDivisionError
        return message if message > b"1" else None


class Batches(Handler):
    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        await asyncio.sleep(max(0.0 if message in b"xy" else float(message) for message in messages))
        if b"x" in messages:
            raise ZeroDivisionError
        return messages


class BlockingBatches(Handler):
    def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return messages


class MeasuringCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[dict[str, Any]] = []

    def listen(self) -> Any:
        def hear(event: Event, fields: Mapping[str, Any]) -> None:
            self.told.append(dict(fields))

        end = subscribe(hear, MESSAGES_HANDLED)
        self.addCleanup(end)
        return end

    def times(self) -> list[tuple[int, float, float]]:
        return [
            (told["messages"], round(told["queue_seconds"], 6), round(told["handler_seconds"], 6)) for told in self.told
        ]


class Times(MeasuringCase):
    def test_at_once(self) -> None:
        """Messages that are handled when they come have not waited; those of one read are one turn."""
        self.listen()
        Harness(slow).connect().send(b"0", b"0", b"0")
        self.assertEqual(self.told, [{"client": 1, "messages": 3, "queue_seconds": 0.0, "handler_seconds": 0.0}])

    def test_waits(self) -> None:
        """A handler's waits are its own; what came meanwhile has waited, from its oldest on."""
        self.listen()
        harness = Harness(slow)
        client = harness.connect()
        client.send(b"2")
        harness.advance(0.5)
        client.send(b"1")
        harness.advance(1)
        client.send(b"0")
        harness.advance(5)
        self.assertEqual(self.times(), [(1, 0.0, 2.0), (1, 1.5, 1.0), (1, 2.5, 0.0)])

    def test_pieces(self) -> None:
        """A message that comes in pieces has waited for nobody."""
        self.listen()
        harness = Harness(slow)
        client = harness.connect()
        client.send_raw(b"0")
        harness.advance(3)
        client.send_raw(b"\n")
        self.assertEqual(self.times(), [(1, 0.0, 0.0)])

    def test_thread(self) -> None:
        """Messages that wait for a thread have waited, too."""
        self.listen()
        for handler in (Blocking, BlockingBatches):
            self.told.clear()
            harness = Harness(handler)
            jobs: list[Any] = []
            self.patch(harness.service._threads, "submit", lambda *some, jobs=jobs: jobs.extend(some))
            harness.connect().send(b"2", b"3")
            harness.advance(4)
            self.assertEqual(len(jobs), 1)
            jobs.pop()()
            harness.advance(0)
            self.assertEqual(self.times(), [(2, 4.0, 0.0)])


class Counts(MeasuringCase):
    @law
    @given(
        st.sampled_from([slow, Blocking, Batches, BlockingBatches]),
        st.lists(st.lists(st.sampled_from([b"0", b"0", b"2", b"x", b"y"]), min_size=1, max_size=5), max_size=12),
        st.booleans(),
    )
    def test_all(self, handler: Any, reads: list[list[bytes]], slowly: bool) -> None:
        """Each message is counted once, however it was handled: answered, refused, failed, given back."""
        self.told.clear()
        end = self.listen()
        harness = Harness(handler)
        client = harness.connect()
        for messages in reads:
            client.send(*messages)
            harness.advance(1 if slowly else 0)
        harness.advance(200)
        end()
        self.assertEqual(sum(told["messages"] for told in self.told), sum(map(len, reads)))
        self.assertEqual([told for told in self.told if told["queue_seconds"] < 0 or told["handler_seconds"] < 0], [])
        harness.stop()

    def test_rate(self) -> None:
        """Messages held back by --message-rate are counted once, too."""
        self.listen()
        harness = Harness(slow, message_rate=1)
        harness.connect().send(*[b"0"] * 10)
        harness.advance(60)
        self.assertEqual(sum(told["messages"] for told in self.told), 10)


class Nobody(MeasuringCase):
    def test_no_cost(self) -> None:
        """Measurements are made for nobody but those who listen."""

        def fail(*_args: Any) -> Any:
            raise AssertionError("it measures")

        for module in (in_loop, in_threads):
            self.patch(module, "Measurement", fail)
        for handler in (slow, Blocking, Batches, BlockingBatches):
            client = Harness(handler).connect()
            client.send(b"2")
        self.assertEqual(self.told, [])
