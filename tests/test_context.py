"""The client whose message is handled: right in every way that a handler can run, no burden for those who are idle."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client, Handler, to_thread
from mtserver.telemetry import context
from mtserver.testing import Harness, HarnessClient

law = settings(max_examples=50, deadline=None)
own = contextvars.ContextVar("own", default=0)


def current() -> bytes:
    """The number of the client for whom the caller is at work, as a reply."""
    return str(context.current()).encode()


def both(harness: Harness) -> tuple[HarnessClient, HarnessClient]:
    return harness.connect(), harness.connect()


class Handlers(SynchronousTestCase):
    def check(self, handler: Any, *, asyncio_loop: bool = True, **options: Any) -> None:
        """Messages of two clients in turn are each handled in their own client's name, and outside nobody is named."""
        harness = Harness(handler, asyncio_loop=asyncio_loop, **options)
        clients = both(harness)
        for _ in range(3):
            for client in clients:
                client.send(b"a", b"b")
        harness.advance(1)
        for number, client in enumerate(clients, 1):
            self.assertEqual(client.received, [str(number).encode()] * 6)
        self.assertIsNone(context.current())
        for client in clients:
            self.assertIsNone(client.protocol.context)
        harness.stop()

    def test_async(self) -> None:
        """A handler in the loop, with asyncio and without."""

        async def handler(client: Client, message: bytes) -> bytes:
            return current()

        self.check(handler)
        self.check(handler, asyncio_loop=False)

    def test_thread(self) -> None:
        """A plain handler."""
        self.check(lambda client, message: current())

    def test_batches(self) -> None:
        """Handlers of both kinds that take batches."""

        class InLoop(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                return [current() for _ in messages]

        class InThread(Handler):
            def received_batch(self, messages: list[bytes]) -> list[bytes]:
                return [current() for _ in messages]

        self.check(InLoop)
        self.check(InThread)

    def test_suspended(self) -> None:
        """A coroutine that has waited while others had their turn."""

        async def handler(client: Client, message: bytes) -> bytes:
            before = current()
            await asyncio.sleep(0.1)
            assert before == current()
            return before

        self.check(handler)

    def test_other_threads(self) -> None:
        """A call that a handler has another thread do."""

        async def handler(client: Client, message: bytes) -> bytes:
            return await to_thread(current)

        self.check(handler)

    def test_typed(self) -> None:
        """A handler whose messages are decoded."""

        async def handler(client: Client, message: str) -> str:
            return current().decode()

        harness = Harness(handler)
        clients = both(harness)
        for client in clients:
            client.send("a")
        self.assertEqual([client.received for client in clients], [["1"], ["2"]])


class Tasks(SynchronousTestCase):
    def test_started_without_waiting(self) -> None:
        """A task that a handler has started is its client's, be it that the handler has long been done."""
        heard: list[tuple[int, int | None]] = []
        tasks: set[Any] = set()

        async def later(number: int) -> None:
            await asyncio.sleep(1)
            heard.append((number, context.current()))

        async def handler(client: Client, message: bytes) -> None:
            tasks.add(asyncio.ensure_future(later(client.id)))

        harness = Harness(handler)
        first, second = both(harness)
        first.send(b"a")
        second.send(b"a")
        first.send(b"b")
        harness.advance(2)
        self.assertEqual(heard, [(1, 1), (2, 2), (1, 1)])

    @law
    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("wtdn")), max_size=20))
    def test_any_order(self, steps: list[tuple[int, str]]) -> None:
        """Handlers may wait, start tasks, set variables and end in any order: each is at work for its own client."""
        wrong: list[Any] = []
        tasks: set[Any] = set()

        async def note(client: Client) -> None:
            await asyncio.sleep(0.3)
            if context.current() != client.id:
                wrong.append((client.id, context.current()))

        async def handler(client: Client, message: bytes) -> None:
            if message == b"w":
                await note(client)
            elif message == b"t":
                tasks.add(asyncio.ensure_future(note(client)))
            elif message == b"d":
                own.set(own.get() + client.id)
            if context.current() != client.id:
                wrong.append((client.id, context.current()))

        harness = Harness(handler)
        clients = [harness.connect() for _ in range(3)]
        for number, message in steps:
            clients[number].send(message.encode())
            harness.advance(0.1)
        harness.stop()
        self.assertEqual(wrong, [])


class Hooks(SynchronousTestCase):
    def test_hooks(self) -> None:
        """Each hook of a handler, async or not, from its making to its end."""
        for waits in (False, True):
            heard: list[tuple[str, int | None]] = []

            def note(name: str, heard: list[Any] = heard) -> None:
                heard.append((name, context.current()))

            class Noting(Handler):
                def __init__(self, client: Client) -> None:
                    super().__init__(client)
                    note("made")

                async def authenticate(self, message: bytes) -> str:
                    note("authenticate")
                    return "somebody"

            class Waiting(Noting):
                async def connected(self) -> None:
                    note("connected")

                async def received(self, message: bytes) -> None:
                    note("received")

                async def disconnected(self, reason: str) -> None:
                    note("disconnected")

            class Blocking(Noting):
                def connected(self) -> None:
                    note("connected")

                def received(self, message: bytes) -> None:
                    note("received")

                def disconnected(self, reason: str) -> None:
                    note("disconnected")

            harness = Harness(Waiting if waits else Blocking)
            harness.connect()
            client = harness.connect()
            client.send(b"let me in")
            client.send(b"a")
            client.reset()
            names = ["made", "authenticate", "connected", "received", "disconnected"]
            self.assertEqual(heard, [(name, 2) for name in names])


class Contexts(SynchronousTestCase):
    def test_own_variables_stay(self) -> None:
        """A client whose handler has set a variable keeps its context; the others share an unchanged one."""

        async def handler(client: Client, message: bytes) -> bytes:
            if message == b"set":
                own.set(client.id)
            return b"%d %s" % (own.get(), current())

        harness = Harness(handler)
        first, second = both(harness)
        for client, message in ((first, b"set"), (second, b"get"), (first, b"get"), (second, b"set"), (first, b"get")):
            client.send(message)
        self.assertEqual(first.received, [b"1 1", b"1 1", b"1 1"])
        self.assertEqual(second.received, [b"0 2", b"2 2"])

    def test_where_variables_were_set(self) -> None:
        """Variables that were set when the server was started are no change; one that is changed later is."""

        async def handler(client: Client, message: bytes) -> bytes:
            if message == b"set":
                own.set(own.get() + client.id)
            return b"%d %s" % (own.get(), current())

        def start() -> Harness:
            own.set(10)
            context.enter(99)  # by a handler that tests another
            return Harness(handler)

        harness = contextvars.copy_context().run(start)
        first, second = both(harness)
        for client, message in ((first, b"get"), (first, b"set"), (second, b"get"), (first, b"get")):
            client.send(message)
        self.assertEqual(first.received, [b"10 1", b"11 1", b"11 1"])
        self.assertEqual(second.received, [b"10 2"])
        self.assertIsNone(second.protocol.context)
        self.assertIsNotNone(first.protocol.context)

    def test_on_deferreds(self) -> None:
        """A context is not kept for a handler that has waited, once it is done."""
        waiting: list[Deferred[None]] = []

        async def handler(client: Client, message: bytes) -> bytes:
            waiting.append(Deferred())
            await waiting[-1]
            return current()

        harness = Harness(handler, asyncio_loop=False)
        first, second = both(harness)
        first.send(b"a")
        second.send(b"a")
        self.assertIsNotNone(first.protocol.context)
        harness.fire(waiting[0])
        harness.fire(waiting[1])
        self.assertEqual((first.received, second.received), ([b"1"], [b"2"]))
        self.assertIsNone(first.protocol.context)
