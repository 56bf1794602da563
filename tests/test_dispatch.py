"""How handlers run: in which order, where, and what their mistakes cost."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from queue import Queue
from typing import Any, ClassVar

from msgspec import Raw, Struct
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, BadMessage, Client, Handler, Refusal, Unavailable, to_process, to_thread
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.threads import ThreadPool
from mtserver.dispatch import Conversation, Dispatch, dispatch_for
from mtserver.dispatch import in_loop as loop_module
from mtserver.errors import HandlerError
from mtserver.groups.fan_out import FanOut
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.msgspeccase import words_of_msgspec

FAILED = b"ERR internal the handler failed"


class Async(SynchronousTestCase):
    def test_one_after_another(self) -> None:
        """A client's messages are handled one after another, different clients' at the same time."""
        running: list[bytes] = []
        gates: dict[bytes, Deferred[None]] = {}

        async def gated(client: Client, message: bytes) -> bytes:
            running.append(message)
            gates[message] = Deferred()
            await gates[message]
            return message

        harness = Harness(gated)
        first, second = harness.connect(), harness.connect()
        first.send(b"a1")
        first.send(b"a2")
        second.send(b"b1")
        self.assertEqual(running, [b"a1", b"b1"])
        harness.fire(gates[b"b1"])
        harness.fire(gates[b"a1"])
        self.assertEqual(running, [b"a1", b"b1", b"a2"])
        harness.fire(gates[b"a2"])
        self.assertEqual((first.received, second.received), ([b"a1", b"a2"], [b"b1"]))

    def test_message_at_the_last_moment(self) -> None:
        """A message that comes between a handler's return and the end of its task is not forgotten."""
        harness: Harness

        async def late(client: Client, message: bytes) -> bytes:
            await asyncio.sleep(1)
            if message == b"a":
                client.state.peer.transport.deliver(b"b\n")
            return message

        harness = Harness(late)
        client = harness.connect()
        next(iter(harness.clients)).state.peer = client
        client.send(b"a")
        harness.advance(5)
        self.assertEqual(client.received, [b"a", b"b"])

    def test_deferreds_and_asyncio(self) -> None:
        """One function awaits Deferreds and asyncio's awaitables alike, asyncio.timeout and TaskGroup included."""
        fired: Deferred[bytes] = Deferred()

        async def mixed(client: Client, message: bytes) -> bytes:
            first = await succeed(b"1")
            second = await fired
            try:
                async with asyncio.timeout(5):
                    await asyncio.Event().wait()
            except TimeoutError:
                third = b"3"
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(1))
            return first + second + third

        harness = Harness(mixed)
        client = harness.connect()
        client.send(b"go")
        harness.fire(fired, b"2")
        harness.advance(7)
        self.assertEqual(client.received, [b"123"])

    def test_without_asyncio(self) -> None:
        """Without an asyncio loop Deferreds work all the same, and anything else is the handler's failure."""
        fired: Deferred[bytes] = Deferred()

        async def deferred(client: Client, message: bytes) -> bytes:
            if message == b"sleep":
                await asyncio.sleep(1)
            if message == b"future":
                await asyncio.Future(loop=asyncio.new_event_loop())
            return await fired

        harness = Harness(deferred, asyncio_loop=False)
        client = harness.connect()
        client.send(b"sleep", b"go")
        harness.fire(fired, b"2")
        self.assertEqual(client.received, [FAILED, b"2"])

    def test_context(self) -> None:
        """Contextvars set for one client are seen by its later messages, and by no other client."""
        name: contextvars.ContextVar[bytes] = contextvars.ContextVar("name", default=b"nobody")

        async def who(client: Client, message: bytes) -> bytes:
            before = name.get()
            name.set(message)
            return before

        harness = Harness(who)
        first, second = harness.connect(), harness.connect()
        first.send(b"a", b"b")
        second.send(b"c", b"d")
        self.assertEqual(first.received, [b"nobody", b"a"])
        self.assertEqual(second.received, [b"nobody", b"c"])

    def test_turns(self) -> None:
        """A client with much to handle does not keep the others waiting: after a time slice it is their turn."""
        order: list[int] = []

        async def heavy(client: Client, message: bytes) -> None:
            order.append(client.id)
            harness.reactor.rightNow += 0.001

        harness = Harness(heavy)
        first, second = harness.connect(), harness.connect()
        with harness._running():
            first.transport.deliver(b"x\n" * 500)
            second.transport.deliver(b"x\n" * 10)
        self.assertEqual(len(order), 510)
        self.assertLess(order.index(2), 100)

    def test_replies_do_not_wait(self) -> None:
        """A reply leaves when it is made, also while the handler waits for something with the next message."""

        async def slow(client: Client, message: bytes) -> bytes:
            await asyncio.sleep(1)
            return message

        harness = Harness(slow)
        client = harness.connect()
        client.send(b"a", b"b", b"c")
        harness.advance(1.5)
        self.assertEqual(client.received, [b"a"])
        harness.advance(1)
        self.assertEqual(client.received, [b"a", b"b"])

    def test_generator_exit(self) -> None:
        """GeneratorExit, of all things, costs that message an ERR internal and no more."""

        async def odd(client: Client, message: bytes) -> bytes:
            if message == b"b":
                raise GeneratorExit
            return message

        class Odd(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                raise GeneratorExit

        client = Harness(odd).connect()
        client.send(b"a", b"b", b"c")
        self.assertEqual(client.received, [b"a", FAILED, b"c"])
        client = Harness(Odd).connect()
        client.send(b"a", b"b")
        client.send(b"c")
        self.assertEqual(client.received, [FAILED] * 3)

    def test_cancelled_by_itself(self) -> None:
        """A CancelledError of the handler's own making is a failure like any other."""

        async def cancelled(client: Client, message: bytes) -> None:
            raise asyncio.CancelledError

        client = Harness(cancelled).connect()
        client.send(b"a")
        self.assertEqual(client.received, [FAILED])

    def test_state(self) -> None:
        """A function keeps what it wants to remember of a client in client.state."""

        async def count(client: Client, message: bytes) -> bytes:
            client.state.count = getattr(client.state, "count", 0) + 1
            return b"%d" % client.state.count

        harness = Harness(count)
        first, second = harness.connect(), harness.connect()
        first.send(b"x", b"x")
        second.send(b"x")
        self.assertEqual((first.received, second.received), ([b"1", b"2"], [b"1"]))


class Cancelling(SynchronousTestCase):
    def test_cancels_itself_before_it_waits(self) -> None:
        """A handler that cancels its own task is told so where it first waits; it may well go on after that."""

        async def odd(client: Client, message: bytes) -> bytes:
            task = asyncio.current_task()
            assert task is not None
            if message != b"plain":
                task.cancel()
            if message == b"caught":
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    task.uncancel()
            elif message == b"lost":
                await asyncio.sleep(1)
            return message

        class Odd(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                return [await odd(self.client, message) for message in messages]

        for handler in (odd, Odd):
            client = Harness(handler).connect()
            for message in (b"plain", b"caught", b"plain", b"lost", b"plain"):
                client.send(message)
            self.assertEqual(client.received, [b"plain", b"caught", b"plain", FAILED, b"plain"])
            client = Harness(odd).connect()
            client.send(b"plain", b"lost", b"caught", b"plain")
            self.assertEqual(client.received, [b"plain", FAILED, b"caught", b"plain"])
            self.assertFalse(client.disconnected)

    def test_kept_task(self) -> None:
        """Whoever keeps its task beyond its turn, and cancels it then, cancels nobody else's."""
        kept: list[Any] = []

        async def keep(client: Client, message: bytes) -> bytes:
            if message == b"keep":
                kept.append(asyncio.current_task())
            else:
                await asyncio.sleep(1)
            return message

        harness = Harness(keep)
        first, second = harness.connect(), harness.connect()
        first.send(b"keep")
        kept[0].cancel()
        second.send(b"wait")
        harness.advance(2)
        self.assertEqual((first.received, second.received), ([b"keep"], [b"wait"]))

    def test_kept_task_cancelled_by_another(self) -> None:
        """Nor does it where another client's handler does so, while a third one waits; it is over by then."""
        kept: list[Any] = []

        async def handle(client: Client, message: str) -> str:
            if message == "keep":
                kept.append(asyncio.current_task())
            elif message == "kill":
                return str(kept[0].cancel())
            else:
                await asyncio.sleep(1)
            return message

        harness = Harness(handle)
        first, second, third = (harness.connect() for _ in range(3))
        first.send("keep")
        second.send("sleep")
        third.send("kill")
        harness.advance(2)
        self.assertEqual([each.received for each in (first, second, third)], [["keep"], ["sleep"], ["False"]])
        self.assertTrue(kept[0].done())

    def test_messages_of_one_read(self) -> None:
        """What is done to a message's task meets no other message, those that came with it included."""
        kept: list[Any] = []
        seen: list[Any] = []

        async def handle(client: Client, message: str) -> str:
            task = asyncio.current_task()
            assert task is not None
            if message == "cancelled":
                task.cancel()
            elif message == "swallowed":
                task.cancel()
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    seen.append(task.cancelling())
            elif message == "kept":
                kept.append(task)
            elif message == "named":
                task.set_name("mine")
                task.add_done_callback(lambda task: seen.append(task.get_name()))
            elif message == "late":
                seen.append(kept[-1].cancel())
            elif message == "waits":
                seen.append((task.cancelling(), task.get_name() == "mine"))
                await asyncio.sleep(1)
            return message

        for messages, wanted in (
            (("cancelled", "waits"), [(0, False)]),
            (("swallowed", "waits"), [1, (0, False)]),
            (("named", "waits"), ["mine", (0, False)]),
            (("kept", "late", "waits"), [False, (0, False)]),
            (("waits", "kept", "waits", "late", "waits"), [(0, False), (0, False), False, (0, False)]),
        ):
            client = (harness := Harness(handle)).connect()
            client.send(*messages)
            harness.advance(5)
            self.assertEqual(client.received, list(messages))
            self.assertCountEqual(seen, wanted)
            seen.clear()

    def test_batches_of_one_client(self) -> None:
        """Nor does it meet its next batch."""
        tasks: list[Any] = []

        class LazyJournal(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                if tasks:
                    tasks[-1].cancel()
                tasks.append(asyncio.current_task())
                if len(tasks) == 2:
                    await asyncio.sleep(1)
                return messages

        client = (harness := Harness(LazyJournal)).connect()
        client.send(*[b"x"] * 150)
        harness.advance(2)
        self.assertEqual(client.received, [b"x"] * 150)
        self.assertEqual(len({id(task) for task in tasks}), len(tasks))

    def test_gone_and_yielded(self) -> None:
        """A handler with much left to do for one who has gone is told of the end when a stop cuts it off."""
        told: list[str] = []

        class Slow(Handler):
            async def received(self, message: bytes) -> None:
                harness.reactor.rightNow += 0.01

            async def disconnected(self, reason: str) -> None:
                told.append(reason)

        harness = Harness(Slow, drain_timeout=1)
        client = harness.connect()
        with harness._running():
            client.protocol.dataReceived(b"message\n" * 1000)
            client.transport.connectionLost(Failure(ConnectionLost()))
            harness.service.stopService()
        harness.advance(20)
        self.assertEqual(len(told), 1)


class Plain(SynchronousTestCase):
    def test_plain_function(self) -> None:
        """A plain def gets its messages decoded and its replies sent like any other."""

        def double(client: Client, message: str) -> str:
            if message == "bad":
                raise ValueError(message)
            return message * 2

        client = Harness(double).connect()
        client.send_raw(b"a\nbad\n\xff\nb\n")
        self.assertEqual(client.received, ["aa", FAILED.decode(), "ERR bad-message not UTF-8 at byte 0", "bb"])

    def test_mixed_hooks(self) -> None:
        """In one class some methods may be async and others plain."""
        events: list[str] = []

        class Mixed(Handler):
            def connected(self) -> None:
                events.append("connected")

            async def received(self, message: bytes) -> bytes:
                await asyncio.sleep(1)
                events.append("received")
                return message

            def disconnected(self, reason: str) -> None:
                events.append(reason)

        class Reverse(Handler):
            async def connected(self) -> None:
                await asyncio.sleep(1)
                events.append("connected")

            def received(self, message: bytes) -> bytes:
                events.append("received")
                return message

            async def disconnected(self, reason: str) -> None:
                await asyncio.sleep(1)
                events.append(reason)

        for handler in (Mixed, Reverse):
            events.clear()
            harness = Harness(handler)
            client = harness.connect()
            client.send(b"a")
            client.half_close()
            harness.advance(5)
            self.assertEqual(client.received, [b"a"])
            self.assertEqual(events, ["connected", "received", "closed by the client"])

    def test_failing_disconnected(self) -> None:
        """A disconnected() that raises costs a log entry and nothing else."""

        class Bad(Handler):
            async def received(self, message: bytes) -> bytes:
                return message

            async def disconnected(self, reason: str) -> None:
                raise ValueError(reason)

        harness = Harness(Bad)
        harness.connect().half_close()
        client = harness.connect()
        client.send(b"a")
        self.assertEqual(client.received, [b"a"])
        harness.stop()

    def test_offload(self) -> None:
        """to_thread and to_process give results and exceptions; in a harness they run in place."""
        seen: contextvars.ContextVar[bytes] = contextvars.ContextVar("seen")

        async def compute(client: Client, message: bytes) -> bytes:
            seen.set(message)
            assert await to_thread(seen.get) == message, "the thread sees the handler's contextvars"
            try:
                await to_thread(int, message)
            except ValueError:
                return b"not a number"
            return b"%d" % await to_process(pow, 2, int(message))

        for loop in (True, False):
            client = Harness(compute, asyncio_loop=loop).connect()
            client.send(b"10", b"x")
            self.assertEqual(client.received, [b"1024", b"not a number"])


class Batches(SynchronousTestCase):
    def outcome(self, result: Any, *, plain: bool = False) -> list[Any]:
        """What a client reads whose batch handler returns, or raises, `result`."""
        got: list[list[str]] = []

        def answer(messages: list[str]) -> Any:
            got.append(messages)
            if isinstance(result, BaseException):
                raise result
            return result(messages) if callable(result) else result

        class InLoop(Handler):
            async def received_batch(self, messages: list[str]) -> Any:
                return answer(messages)

        class InThread(Handler):
            def received_batch(self, messages: list[str]) -> Any:
                return answer(messages)

        client = Harness(InThread if plain else InLoop).connect()
        client.send_raw(b"a\n\xff\nb\n")
        self.assertEqual(got, [["a", "b"]])
        return client.received

    def test_batch(self) -> None:
        """A batch handler gets all messages that came together, and its replies keep their places."""
        bad, failed = "ERR bad-message not UTF-8 at byte 0", FAILED.decode()
        for plain in (False, True):
            for result, expected in (
                (lambda messages: [message * 2 for message in messages], ["aa", bad, "bb"]),
                (lambda messages: ("x", Unavailable("later")), ["x", bad, "ERR unavailable retry-after=1 later"]),
                (lambda messages: [None, "x"], [bad, "x"]),
                (None, [bad]),
                (ValueError("no"), [failed, bad, failed]),
                (Unavailable("no"), ["ERR unavailable retry-after=1 no", bad, "ERR unavailable retry-after=1 no"]),
                (lambda messages: ["one"], [failed, bad, failed]),
                (3, [failed, bad, failed]),
                ("xy", [failed, bad, failed]),
            ):
                self.assertEqual(self.outcome(result, plain=plain), expected)

    def test_only_bad_messages(self) -> None:
        """A batch with nothing in it that can be decoded does not reach the handler."""

        class Never(Handler):
            async def received_batch(self, messages: list[str]) -> Any:
                raise AssertionError(messages)

        client = Harness(Never).connect()
        client.send_raw(b"\xff\n")
        self.assertEqual(client.received, ["ERR bad-message not UTF-8 at byte 0"])

    def test_its_own_list(self) -> None:
        """The list that a batch handler is given is its own: it may answer with it, and take from it at its peril."""

        class Emptying(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                while messages[-1] == b"x":
                    messages.pop()
                return messages

        class PlainEmptying(Handler):
            def received_batch(self, messages: list[bytes]) -> list[bytes]:
                while messages[-1] == b"x":
                    messages.pop()
                return messages

        for handler in (Emptying, PlainEmptying):
            client = Harness(handler).connect()
            client.send(b"a", b"b")
            client.send(b"c", b"x", b"x")
            client.send(b"d")
            self.assertEqual(client.received, [b"a", b"b", FAILED, FAILED, FAILED, b"d"])

    def test_batch_turns(self) -> None:
        """Batches, too, give way to others after a time slice."""
        order: list[int] = []

        class Heavy(Handler):
            async def received_batch(self, messages: list[bytes]) -> None:
                order.append(self.client.id)
                harness.reactor.rightNow += 0.01

        harness = Harness(Heavy)
        first, second = harness.connect(), harness.connect()
        with harness._running():
            first.transport.deliver(b"x\n" * 5000)
            second.transport.deliver(b"x\n" * 10)
        self.assertLess(order.index(2), 5)


class Reading(Struct):
    celsius: float


class Mean(Struct):
    celsius: float


class Fragile(Struct):
    """Its author has not thought of 0."""

    value: int

    def __post_init__(self) -> None:
        _ = 1 // self.value


class Typed(SynchronousTestCase):
    """Messages of types: each kind of handler is given them, and answers with them."""

    BAD: ClassVar = {"error": "bad-message", "text": words_of_msgspec({"celsius": "x"}, Reading)}
    INTERNAL: ClassVar = {"error": "internal", "text": "the handler failed"}

    def exchange(self, handler: Any, *messages: Any, encoding: str = "json", framing: str = "int32") -> list[Any]:
        client = Harness(handler, encoding=encoding, framing=framing).connect()
        client.send(*messages)
        return client.received

    def test_every_kind(self) -> None:
        """Functions, methods, batches, on the loop and in threads, in both encodings."""

        async def function(client: Client, message: Reading) -> Mean:
            return Mean(message.celsius * 2)

        def plain(client: Client, message: Reading) -> Mean:
            return Mean(message.celsius * 2)

        class Method(Handler):
            async def received(self, message: Reading) -> Mean | None:
                return Mean(message.celsius * 2)

        class Batches(Handler):
            async def received_batch(self, messages: list[Reading]) -> list[Mean]:
                return [Mean(message.celsius * 2) for message in messages]

        class PlainBatches(Handler):
            def received_batch(self, messages: list[Reading]) -> list[Mean | Refusal]:
                return [Mean(message.celsius * 2) for message in messages]

        async def unchecked(client, message: Reading):  # type: ignore[no-untyped-def]
            return {"celsius": message.celsius * 2}

        for handler in (function, plain, Method, Batches, PlainBatches, unchecked):
            for encoding in ("json", "msgpack"):
                received = self.exchange(handler, Reading(1), {"celsius": "x"}, {"celsius": 2.5}, encoding=encoding)
                self.assertEqual(received, [{"celsius": 2.0}, self.BAD, {"celsius": 5.0}], handler)

    def test_lines(self) -> None:
        """One JSON value is one line, whatever text there is in it."""

        async def echo(client: Client, message: dict[str, str]) -> dict[str, str]:
            return message

        client = Harness(echo).connect()
        client.send({"a": "one\ntwo"})
        self.assertEqual(client.received_raw, b'{"a":"one\\ntwo"}\n')

    def test_newline_of_the_authors_own(self) -> None:
        """JSON that the author has written, with a newline, is no line: an error, and not two messages."""

        async def raw(client: Client, message: int) -> Raw:
            return Raw(b"[1,\n2]")

        self.assertEqual(self.exchange(raw, 1, framing="line"), [self.INTERNAL])
        self.assertEqual(self.exchange(raw, 1), [[1, 2]])

    def test_reply_of_another_type(self) -> None:
        """A reply that is not what the handler says it returns is an error of its author; the next may be good."""

        async def wrong(client: Client, message: int) -> Mean:
            return Mean(1.0) if message else {"celsius": 1.0}  # type: ignore[return-value]

        class Batches(Handler):
            async def received_batch(self, messages: list[int]) -> list[Mean | BadMessage]:
                return [
                    Mean(1.0) if message == 1 else BadMessage("no") if message == 2 else 3  # type: ignore[misc]
                    for message in messages
                ]

        self.assertEqual(self.exchange(wrong, 0, 1), [self.INTERNAL, {"celsius": 1.0}])
        refused = {"error": "bad-message", "text": "no"}
        self.assertEqual(self.exchange(Batches, 1, 2, 3), [{"celsius": 1.0}, refused, self.INTERNAL])

    def test_error_of_a_type(self) -> None:
        """What a type's own code raises costs its message an error, also within a batch, and no other message."""

        async def one(client: Client, message: Fragile) -> int:
            return message.value

        class Batches(Handler):
            async def received_batch(self, messages: list[Fragile]) -> list[int]:
                return [message.value for message in messages]

        class PlainBatches(Handler):
            def received_batch(self, messages: list[Fragile]) -> list[int]:
                return [message.value for message in messages]

        for handler in (one, Batches, PlainBatches):
            received = self.exchange(handler, {"value": 1}, {"value": 0}, {"value": 2})
            self.assertEqual(received, [1, self.INTERNAL, 2])

    def test_sent(self) -> None:
        """What is sent and what is broadcast is encoded as replies are, and need not be of their type."""

        async def spread(client: Client, message: Reading) -> Mean:
            client.send({"to": "you"})
            client.app.broadcast(message, exclude=client)
            return Mean(message.celsius)

        for encoding in ("json", "msgpack"):
            harness = Harness(spread, encoding=encoding, framing="netstring")
            first, second = harness.connect(), harness.connect()
            first.send(Reading(1.5))
            self.assertEqual(first.received, [{"to": "you"}, {"celsius": 1.5}])
            self.assertEqual(second.received, [{"celsius": 1.5}])

    def test_cannot_be_sent(self) -> None:
        """What cannot be encoded is told to whoever sends it."""

        async def send(client: Client, message: int) -> str:
            try:
                client.send(object())
            except HandlerError as error:
                return str(error)
            return "sent"

        (text,) = self.exchange(send, 1)
        self.assertTrue(text.startswith("a object cannot be sent: "), text)

    def test_refusals(self) -> None:
        """Refusals of a handler, and the server's own, are typed as well; in the shortest framing too."""

        async def away(client: Client, message: int) -> None:
            raise Unavailable("x" * 300, retry_after=5)

        for encoding in ("json", "msgpack"):
            client = Harness(away, encoding=encoding, framing="int8", idle_timeout=60, max_clients=1)
            first, second = client.connect(), client.connect()
            first.send(1)
            client.advance(61)
            self.assertEqual([said["error"] for said in first.received], ["unavailable", "idle"])
            self.assertEqual(first.received[0]["retry_after"], 5)
            self.assertEqual(second.received[0]["error"], "busy")
            self.assertIsInstance(second.received[0]["retry_after"], int)


NAME: contextvars.ContextVar[bytes] = contextvars.ContextVar("NAME", default=b"nobody")


async def renamed(client: Client, message: bytes) -> bytes:
    """Answers with the name it finds; then takes the message for one, or takes it back, or leaves it."""
    return rename(client, message)


def rename(client: Client, message: bytes) -> bytes:
    before = NAME.get()
    if message == b"undo":
        NAME.reset(client.state.token)
    elif message != b"look":
        client.state.token = NAME.set(message)
    return before


class RenamedBatches(Handler):
    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return [rename(self.client, message) for message in messages]


class Contexts(SynchronousTestCase):
    """contextvars set by a handler are its client's, though clients that set none share what they run in."""

    def check(self, handler: Any) -> None:
        harness = Harness(handler)
        first, second, third = (harness.connect() for _ in range(3))
        third.send(b"look")
        first.send(b"a", b"look")
        second.send(b"look", b"b")
        third.send(b"look")
        first.send(b"look")
        second.send(b"look")
        first.send(b"undo", b"look")
        second.send(b"c", b"look")
        third.send(b"look", b"d", b"look")
        first.send(b"look", b"e", b"look")
        third.send(b"look")
        self.assertEqual(first.received, [b"nobody", b"a", b"a", b"a", b"nobody", b"nobody", b"nobody", b"e"])
        self.assertEqual(second.received, [b"nobody", b"nobody", b"b", b"b", b"c"])
        self.assertEqual(third.received, [b"nobody"] * 4 + [b"d", b"d"])
        self.assertEqual(NAME.get(), b"nobody")

    def test_apart(self) -> None:
        """Each sees what it has set itself, also after it has taken that back, wherever it runs."""
        for handler in (renamed, rename, RenamedBatches):
            self.check(handler)

    def test_apart_in_a_context_with_variables(self) -> None:
        """The same where the server itself was started with some variable set."""
        other: contextvars.ContextVar[int] = contextvars.ContextVar("other")
        context = contextvars.copy_context()
        context.run(other.set, 1)
        for handler in (renamed, rename, RenamedBatches):
            context.run(self.check, handler)

    def test_waiting(self) -> None:
        """Each sees its own after it has waited, while others were at work."""

        async def slow(client: Client, message: bytes) -> bytes:
            NAME.set(message)
            await asyncio.sleep(1)
            return NAME.get()

        harness = Harness(slow)
        clients = [harness.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number, b"%d" % (number + 10))
        harness.advance(5)
        for number, client in enumerate(clients):
            self.assertEqual(client.received, [b"%d" % number, b"%d" % (number + 10)])

    def test_one_within_another(self) -> None:
        """A handler that causes another client's to start, or to go on, within itself: neither sees the other's."""
        for loop in (True, False):
            gates: list[Deferred[None]] = []
            others: list[Any] = []

            async def nested(
                client: Client, message: bytes, others: list[Any] = others, gates: list[Deferred[None]] = gates
            ) -> bytes:
                before = NAME.get()
                if message == b"wait":
                    gates.append(Deferred())
                    await gates[-1]
                    return NAME.get()
                if message == b"start":
                    others[0].protocol.dataReceived(b"inner\n")
                    return NAME.get()
                NAME.set(message)
                if message == b"outer":
                    others[0].protocol.dataReceived(b"inner\n")
                    gates[0].callback(None)
                return before + b" " + NAME.get()

            harness = Harness(nested, asyncio_loop=loop)
            outer, inner, waiting = (harness.connect() for _ in range(3))
            others.append(inner)
            waiting.send(b"wait", b"mine")
            outer.send(b"start")
            outer.send(b"outer", b"again")
            waiting.send(b"more")
            self.assertEqual(outer.received, [b"nobody", b"nobody outer", b"outer again"])
            self.assertEqual(inner.received, [b"nobody inner", b"inner inner"])
            self.assertEqual(waiting.received, [b"nobody", b"nobody mine", b"mine more"])

    def test_of_connected(self) -> None:
        """What __init__ and connected(), plain or async, have set is there for the messages and for disconnected()."""
        seen: list[bytes] = []
        more: contextvars.ContextVar[bytes] = contextvars.ContextVar("more", default=b"none")

        class Named(Handler):
            def __init__(self, client: Client) -> None:
                super().__init__(client)
                NAME.set(b"%d" % client.id)

            async def connected(self) -> None:
                more.set(b"more " + NAME.get())

            async def received(self, message: bytes) -> bytes:
                return NAME.get() + more.get()

            async def disconnected(self, reason: str) -> None:
                seen.append(NAME.get() + more.get())

        class PlainNamed(Named):
            def received(self, message: bytes) -> bytes:  # type: ignore[override]
                return NAME.get() + more.get()

        class PlainlyConnected(Named):
            def connected(self) -> None:  # type: ignore[override]
                more.set(b"more " + NAME.get())

        for handler in (Named, PlainNamed, PlainlyConnected):
            seen.clear()
            harness = Harness(handler)
            first, second = harness.connect(), harness.connect()
            first.send(b"x")
            second.send(b"x")
            self.assertEqual((first.received, second.received), ([b"1more 1"], [b"2more 2"]))
            second.half_close()
            first.half_close()
            self.assertEqual(seen, [b"2more 2", b"1more 1"])

    def test_own_one_for_those_who_change_it(self) -> None:
        """A client has a context of its own from when it has set something; others, waiting or not, have none."""

        async def some(client: Client, message: bytes) -> None:
            if message == b"wait":
                await asyncio.sleep(1)
            elif message == b"set":
                NAME.set(message)

        harness = Harness(some)
        first, second = harness.connect(), harness.connect()
        for client in (first, second):
            client.send(b"x", b"x")
            client.send(b"wait")
            self.assertIsNotNone(client.protocol.context, "it waits in one")
        harness.advance(2)
        first.send(b"set")
        second.send(b"x")
        self.assertIsNotNone(first.protocol.context)
        self.assertIsNone(second.protocol.context)

    def test_one_for_all_others(self) -> None:
        """Those who set nothing run in one and the same, one after another: none is made for a message."""
        for handler in (renamed, rename):
            harness = Harness(handler)
            clients = [harness.connect() for _ in range(10)]
            clients[0].send(b"look")
            shared = clients[0].protocol.listener.dispatch._spare
            self.assertIsNotNone(shared)
            for client in clients:
                client.send(b"look", b"look")
                self.assertIs(client.protocol.listener.dispatch._spare, shared)


class Tasks(SynchronousTestCase):
    """What a loop has to do with a handler that does not wait. Counted, so that it does not depend on the machine."""

    def setUp(self) -> None:
        self.made = 0

    def count(self) -> None:
        """Count the tasks that are made from now on."""

        def counting(made: Any) -> Any:
            def make(*args: Any, **kwargs: Any) -> Any:
                self.made += 1
                return made(*args, **kwargs)

            return make

        if sys.version_info >= (3, 12):
            from mtserver.concurrency.coroutines import eager_tasks

            self.patch(eager_tasks, "_Task", counting(eager_tasks._Task))
        else:
            from mtserver.concurrency.coroutines import reused_tasks

            self.patch(reused_tasks, "ReusableTask", counting(reused_tasks.ReusableTask))

    def test_none_per_message(self) -> None:
        """No task is made for messages whose handler does not wait; where Python begins them eagerly, one per read."""

        async def echo(client: Client, message: bytes) -> bytes:
            return message

        class Echoes(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                return messages

        self.count()
        for handler in (echo, Echoes):
            client = Harness(handler).connect()
            client.send(b"x")
            self.made = 0
            for _ in range(10):
                client.send(*[b"x"] * 50)
            self.assertEqual(len(client.received), 501)
            self.assertLessEqual(self.made, 10 if sys.version_info >= (3, 12) else 0)

    def test_one_per_wait(self) -> None:
        """The control of the above: a message whose handler waits gets a task of its own."""

        async def slow(client: Client, message: bytes) -> bytes:
            await asyncio.sleep(1)
            return message

        harness = Harness(slow)
        client = harness.connect()
        client.send(b"x")
        harness.advance(2)
        self.count()
        client.send(*[b"x"] * 5)
        harness.advance(10)
        self.assertEqual(len(client.received), 6)
        self.assertEqual(self.made, 5)

    def test_current_task(self) -> None:
        """A handler that does not wait runs in a task all the same, as asyncio's timeouts ask for."""

        async def inside(client: Client, message: bytes) -> bytes:
            async with asyncio.timeout(5), asyncio.Lock():
                return b"%d" % (asyncio.current_task() is not None)

        client = Harness(inside).connect()
        client.send(b"x", b"x")
        self.assertEqual(client.received, [b"1", b"1"])


class Listed(Conversation):
    """A conversation whose messages stand in a list, and that notes what it is told."""

    def __init__(self, *messages: bytes) -> None:
        self.client: Any = None
        self.handler: Any = None
        self.inbox = self.replies = self.context = self.running = None
        self.pauses = self.busy = self.answered = 0
        self.arrived_at = 0.0
        self.messages = list(messages)
        self.events: list[Any] = []
        self.done = False

    def take(self) -> list[bytes]:
        frames, self.messages = self.messages, []
        return [] if self.pauses else frames

    def give_back(self, frames: list[bytes]) -> None:
        self.messages = frames + self.messages

    def answer(self, reply: Any) -> None:
        self.events.append(reply)

    def failed(self, error: BaseException) -> None:
        self.events.append(error)

    def start_failed(self, error: BaseException) -> None:
        self.events.append(error)

    def flush(self) -> None:
        if self.replies:
            self.events += self.replies
            self.replies = None
        self.events.append("delivered")

    def flush_if_large(self) -> None: ...

    def idle(self) -> None:
        self.done = True

    def slice_over(self) -> None: ...

    def finished(self) -> None:
        self.done = True


class LoopOfQueue:
    """As much of a reactor as a loop_calls needs: calls from threads, run by the test."""

    def __init__(self) -> None:
        self.calls: Queue[Any] = Queue()

    def callFromThread(self, call: Any, *args: Any) -> None:
        self.calls.put((call, args))

    def turn(self) -> None:
        call, args = self.calls.get(timeout=10)
        call(*args)

    def run_until(self, *sources: Listed) -> None:
        while not all(source.done for source in sources):
            self.turn()


class Threads(SynchronousTestCase):
    """With real threads, and a loop that the test turns by hand."""

    def setUp(self) -> None:
        self.loop = LoopOfQueue()
        self.pool = ThreadPool(4, "test")
        self.addCleanup(self.stop_pool)

    def stop_pool(self) -> None:
        self.pool.stop()  # whichever it is by then

    def converse(self, handler: Any, *conversations: Listed) -> Dispatch:
        loop_calls = LoopCalls(self.loop)  # type: ignore[arg-type]
        loop_calls.adopt_thread()
        made = dispatch_for(App(handler), loop_calls, self.pool, Clock().seconds, FanOut())
        for number, conversation in enumerate(conversations):
            conversation.client = Client(None, number)  # type: ignore[arg-type]
            made.begin(conversation)
        self.loop.turn()  # which hands them to the workers
        return made

    def test_order(self) -> None:
        """Replies leave in the order of the messages."""
        source = Listed(*[b"%d" % number for number in range(1000)])
        self.converse(lambda client, message: message, source)
        self.loop.run_until(source)
        self.assertEqual([e for e in source.events if e != "delivered"], [b"%d" % n for n in range(1000)])

    def test_same_time(self) -> None:
        """Blocking handlers of different clients run at the same time."""
        barrier = threading.Barrier(4, timeout=10)

        def meet(client: Client, message: bytes) -> bytes:
            barrier.wait()
            return message

        sources = [Listed(b"x") for _ in range(4)]
        self.converse(meet, *sources)
        self.loop.run_until(*sources)
        self.assertEqual([source.events[0] for source in sources], [b"x"] * 4)

    def test_not_in_the_loop(self) -> None:
        """They run in other threads than the loop's, and one client's never in two at once."""
        inside = threading.Lock()
        threads: set[int] = set()

        def note(client: Client, message: bytes) -> None:
            assert inside.acquire(blocking=False)
            threads.add(threading.get_ident())
            inside.release()

        source = Listed(*[b"x"] * 500)
        self.converse(note, source)
        self.loop.run_until(source)
        self.assertEqual(source.events.count(None), 500)
        self.assertNotIn(threading.get_ident(), threads)

    def test_one_hand_off(self) -> None:
        """A batch of quick messages wakes the loop once, not once per message."""
        source = Listed(*[b"x"] * 50)
        self.converse(lambda client, message: message, source)
        calls = 0
        while not source.done:
            call, args = self.loop.calls.get(timeout=10)
            call(*args)
            calls += 1
        self.assertLess(calls, 10)

    def test_early_replies(self) -> None:
        """Replies do not wait for slower ones behind them."""
        gate = threading.Event()

        def slow(client: Client, message: bytes) -> bytes:
            if message == b"slow":
                self.assertTrue(gate.wait(10))
            else:
                threading.Event().wait(0.002)  # longer than the time between deliveries
            return message

        source = Listed(b"quick", b"slow")
        self.converse(slow, source)
        while b"quick" not in source.events:
            call, args = self.loop.calls.get(timeout=10)
            call(*args)
        self.assertNotIn(b"slow", source.events)
        gate.set()
        self.loop.run_until(source)
        self.assertIn(b"slow", source.events)

    def test_gives_way(self) -> None:
        """With more clients than threads, one with many slow messages lets the others have a turn."""
        self.pool.stop()
        self.pool = ThreadPool(1, "test")
        order: list[int] = []

        def slow(client: Client, message: bytes) -> None:
            order.append(client.id)
            threading.Event().wait(0.01)

        sources = [Listed(*[b"x"] * 10), Listed(b"x")]
        self.converse(slow, *sources)
        self.loop.run_until(*sources)
        self.assertEqual(len(order), 11)
        self.assertLess(order.index(1), 5)

    def test_held_back(self) -> None:
        """When its source holds messages back, a worker returns those it has."""

        def hold(client: Client, message: bytes) -> bytes:
            source.pauses = 1
            return message

        source = Listed(b"a", b"b", b"c")
        self.converse(hold, source)
        self.loop.run_until(source)
        self.assertEqual(source.messages, [])
        self.assertEqual(source.events[0], b"a")

    def test_failures(self) -> None:
        """Whatever a handler raises in a thread reaches its source as that message's failure."""

        def fail(client: Client, message: bytes) -> None:
            raise SystemExit(message)

        source = Listed(b"a")
        self.converse(fail, source)
        self.loop.run_until(source)
        self.assertIsInstance(source.events[0], SystemExit)

    def test_cancel(self) -> None:
        """A cancelled conversation handles nothing more."""
        entered, gate = threading.Event(), threading.Event()
        handled: list[bytes] = []

        def wait(client: Client, message: bytes) -> None:
            handled.append(message)
            entered.set()
            gate.wait(10)

        source = Listed(b"a", b"b")
        made = self.converse(wait, source)
        self.assertTrue(entered.wait(10))
        made.cancel(source)
        source.pauses = 1
        gate.set()
        self.loop.run_until(source)
        self.assertEqual(handled, [b"a"])


class Controls(ControlCase):
    def test_at_the_same_time(self) -> None:
        """P3: a client's next message is handled while the one before still is."""
        right = Dispatch._suspended

        def wrong(dispatch: Any, conversation: Any, *more: Any) -> None:
            right(dispatch, conversation, *more)
            conversation.busy = 0

        with self.noticed_by(Async, "test_one_after_another"):
            self.patch(Dispatch, "_suspended", wrong)

    def test_one_client_keeps_the_loop(self) -> None:
        """P9: who has sent much is handled to its end while all others wait."""
        with self.noticed_by(Async, "test_turns"):
            self.patch(loop_module, "SLICE", 1e9)
