"""What leaves for a client: in which order, in how many writes, how much of it is held, and what is left afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client, Handler, Unavailable
from mtserver.concurrency.threads import ThreadPool
from mtserver.dispatch import CANCELLED, SMALL, in_threads
from mtserver.session.receiving import BATCH
from mtserver.session.sending import WRITE_SIZE
from mtserver.testing import Harness, HarnessClient
from tests import DEADLINE
from tests.logcase import LogCase

FAILED = b"ERR internal the handler failed"


async def echo(client: Client, message: bytes) -> bytes:
    return message


def plain_echo(client: Client, message: bytes) -> bytes:
    return message


class EchoBatches(Handler):
    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return messages


class PlainEchoBatches(Handler):
    def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return messages


async def echo_later(client: Client, message: bytes) -> bytes:
    await asyncio.sleep(1)
    return message


#: Every way in which a handler may run.
ECHOES: dict[str, Any] = {
    "async": echo,
    "plain": plain_echo,
    "async batches": EchoBatches,
    "plain batches": PlainEchoBatches,
    "waiting": echo_later,
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        # A worker delivers once a millisecond, of a real clock; here it does so when it is done.
        self.patch(in_threads, "DELIVERY", 1e9)


class Writes(Case):
    def test_one_per_read(self) -> None:
        """Sixteen messages in one read, sixteen replies in one write; as many reads, as many writes."""
        for name, handler in ECHOES.items():
            if handler is echo_later:
                continue  # its replies leave as they are made
            client = Harness(handler).connect()
            client.send(*[b"x"] * 16)
            self.assertEqual((client.received, client.transport.writes), ([b"x"] * 16, 1), name)
            for _ in range(9):
                client.send(*[b"x"] * 16)
            self.assertEqual((len(client.received), client.transport.writes), (160, 10), name)

    def test_one_per_read_without_asyncio(self) -> None:
        """The same without an asyncio loop."""
        client = Harness(echo, asyncio_loop=False).connect()
        client.send(*[b"x"] * 16)
        self.assertEqual((client.received, client.transport.writes), ([b"x"] * 16, 1))

    def test_one_per_read_of_text(self) -> None:
        """The same with messages that have to be decoded, and replies that have to be encoded."""

        async def text(client: Client, message: str) -> str:
            return message

        client = Harness(text).connect()
        client.send(*["\xe4"] * 16)
        self.assertEqual((client.received, client.transport.writes), (["\xe4"] * 16, 1))

    def test_unfinished_beside_whole(self) -> None:
        """A read that ends within a message is answered in one write all the same, and the rest with the next."""
        client = Harness(echo).connect()
        client.send_raw(b"a\nb\nc\nd", b"\ne\nf", b"\n")
        self.assertEqual(client.received, [b"a", b"b", b"c", b"d", b"e", b"f"])
        self.assertEqual(client.transport.writes, 3)

    def test_refusals_and_sends_in_it(self) -> None:
        """Replies, failures, refusals and what the handler sends by itself leave in the same write."""

        async def mixed(client: Client, message: bytes) -> bytes:
            if message == b"bad":
                raise ValueError(message)
            if message == b"no":
                raise Unavailable("no", retry_after=3)
            client.send(b"<" + message)
            return message + b">"

        client = Harness(mixed).connect()
        client.send(b"a", b"bad", b"b", b"no", b"c")
        refusal = b"ERR unavailable retry-after=3 no"
        self.assertEqual(client.received, [b"<a", b"a>", FAILED, b"<b", b"b>", refusal, b"<c", b"c>"])
        self.assertEqual(client.transport.writes, 1)

    def test_sends_to_others(self) -> None:
        """What one client's batch sends to another leaves for it in one write too."""

        async def pass_on(client: Client, message: bytes) -> None:
            client.app.broadcast(message, exclude=client)

        harness = Harness(pass_on)
        first, second, third = (harness.connect() for _ in range(3))
        first.send(*[b"%d" % number for number in range(16)])
        for other in (second, third):
            self.assertEqual(other.received, [b"%d" % number for number in range(16)])
            self.assertEqual(other.transport.writes, 1)
        self.assertEqual(first.transport.writes, 0)


class Order(Case):
    """What a client reads is in the order of what was done."""

    def test_unfit_reply(self) -> None:
        """Of several replies only the one that the framing cannot carry is replaced, in its place."""
        for name, handler in ECHOES.items():
            harness = Harness(self.growing(handler), framing="int8")
            client = harness.connect()
            client.send(b"a", b"grow", b"b")
            harness.advance(5)
            self.assertEqual(client.received, [b"a", FAILED, b"b"], name)

    @staticmethod
    def growing(handler: Any) -> Any:
        """`handler`, with a reply of 300 bytes to one message."""

        def grown(reply: bytes) -> bytes:
            return b"x" * 300 if reply == b"grow" else reply

        if handler is EchoBatches:

            class Batches(Handler):
                async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                    return [grown(message) for message in messages]

            return Batches
        if handler is PlainEchoBatches:

            class PlainBatches(Handler):
                def received_batch(self, messages: list[bytes]) -> list[bytes]:
                    return [grown(message) for message in messages]

            return PlainBatches
        if handler is plain_echo:
            return lambda client, message: grown(message)

        async def one(client: Client, message: bytes) -> bytes:
            return grown(await handler(client, message))

        return one

    def test_unfit_before_a_send(self) -> None:
        """Replies stand before what is sent after them, also when one of them does not fit."""

        async def progress(client: Client, message: bytes) -> bytes:
            if message == b"last":
                client.send(b"sent")
            return b"x" * 300 if message == b"grow" else message

        client = Harness(progress, framing="int8").connect()
        client.send(b"a", b"grow", b"b", b"last")
        self.assertEqual(client.received, [b"a", FAILED, b"b", b"sent", b"last"])

    def test_plain_send(self) -> None:
        """What a plain def handler sends stands before the reply that it then returns."""

        def progress(client: Client, message: bytes) -> bytes:
            client.send(b"working on " + message)
            return b"done"

        client = Harness(progress).connect()
        client.send(b"a")
        client.send(b"b")
        self.assertEqual(client.received, [b"working on a", b"done", b"working on b", b"done"])

    def test_reply_of_a_task_about_to_end(self) -> None:
        """
        A message between a handler's return and the end of its task: the reply before it is not lost.

        Which of the two comes first in a real loop, the end of the task or the next write, is the loop's business.
        """
        waiting: list[asyncio.Future[None]] = []

        async def slow(client: Client, message: bytes) -> bytes:
            if message == b"a":
                waiting.append(asyncio.get_running_loop().create_future())
                await waiting[0]
            return message

        harness = Harness(slow)
        client = harness.connect()
        client.send(b"a")
        with harness._running():
            waiting[0].set_result(None)
            harness.loop.turn()  # the coroutine goes on, answers and returns
            self.assertEqual(client.transport.writes, 0)
            client.protocol.dataReceived(b"b\n")
            harness.loop.turn()  # its task has ended
        self.assertEqual(client.received, [b"a", b"b"])

    def test_slow_worker(self) -> None:
        """Replies that a worker delivers one by one are followed by an end that has none; then it is free again."""
        self.patch(in_threads, "DELIVERY", -1.0)

        def text(client: Client, message: str) -> str:
            return message

        for handler in (text, plain_echo):
            client = Harness(handler).connect()
            client.send_raw(b"a\nb\n", b"c\n")
            self.assertEqual(client.received_raw, b"a\nb\nc\n")
            self.assertEqual(client.protocol.busy, 0)

    def test_while_waiting(self) -> None:
        """While a coroutine waits, what was answered and sent before has left, and what is sent meanwhile leaves."""
        gate: Deferred[None] = Deferred()

        async def gated(client: Client, message: bytes) -> bytes:
            if message == b"wait":
                client.send(b"waiting")
                await gate
                client.send(b"done waiting")
            return message

        harness = Harness(gated)
        client = harness.connect()
        client.send(b"a", b"b", b"wait", b"c")
        self.assertEqual(client.received, [b"a", b"b", b"waiting"])
        self.assertEqual(client.transport.writes, 1)
        harness.app.broadcast(b"news")
        harness.advance(0)
        self.assertEqual(client.received[3:], [b"news"])
        harness.fire(gate)
        self.assertEqual(client.received[4:], [b"done waiting", b"wait", b"c"])

    def test_cancelled_while_waiting(self) -> None:
        """A handler that is cut off has its earlier replies delivered, and whatever it says afterwards is not."""
        ended: list[str] = []

        async def stubborn(client: Client, message: bytes) -> bytes:
            if message == b"wait":
                try:
                    await Deferred()
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    client.send(b"too late")
            return message

        harness = Harness(stubborn, drain_timeout=5)
        client = harness.connect()
        client.send(b"a", b"wait", b"b")
        harness.stop()
        self.assertEqual(ended, ["cancelled"])
        self.assertEqual(client.received[0], b"a")
        self.assertEqual(len(client.received), 2)
        self.assertTrue(client.received[1].startswith(b"ERR closing "))

    def test_generator_exit_after_waiting(self) -> None:
        """GeneratorExit of a handler that has waited costs that message, and those around it keep their places."""

        async def odd(client: Client, message: bytes) -> bytes:
            await asyncio.sleep(1)
            if message == b"b":
                raise GeneratorExit
            return message

        harness = Harness(odd)
        client = harness.connect()
        client.send(b"a", b"b", b"c")
        harness.advance(5)
        self.assertEqual(client.received, [b"a", FAILED, b"c"])


#: What a handler may do with one message: sends and waits, and at last a reply, a refusal, or neither.
SIZES = st.sampled_from([0, 1, 50, SMALL, SMALL + 1, WRITE_SIZE - 1, WRITE_SIZE, WRITE_SIZE + 1, 2 * WRITE_SIZE])
STEPS = st.lists(st.one_of(st.tuples(st.just("send"), SIZES), st.just(("wait", 0))), max_size=3)
ENDS = st.one_of(
    st.tuples(st.just("reply"), SIZES), st.sampled_from([("silence", 0), ("refuse", 0), ("fail", 0), ("unfit", 0)])
)
Script = list[tuple[list[tuple[str, int]], tuple[str, int]]]
SCRIPTS = st.lists(st.tuples(STEPS, ENDS), min_size=1, max_size=12)

law = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Law(SynchronousTestCase):
    """Whatever handlers do, in whatever pieces messages come, however the client reads."""

    words: ClassVar = {"refuse": b"ERR unavailable retry-after=1 no", "fail": FAILED, "unfit": FAILED}

    @law
    @given(SCRIPTS, st.lists(st.integers(1, 4), max_size=6), st.lists(st.integers(0, 300_000), max_size=6), st.data())
    def test_order(  # noqa: C901 - a client of each kind, and what each may do
        self, scripts: Script, reads: list[int], window: list[int], data: Any
    ) -> None:
        """The client reads what was sent and answered, all of it, in that order."""
        kind = data.draw(st.sampled_from(["async", "text", "deferreds", "batches"]))
        expected: list[bytes] = []
        scripted = iter(scripts)

        def filled(size: int) -> bytes:
            return (b"%d:" % len(expected)).ljust(size, b"x")[:size]

        async def act(client: Client) -> Any:
            steps, (end, size) = next(scripted)
            for step, length in steps:
                if step == "send":
                    message = filled(length)
                    client.send(message.decode() if kind == "text" else message)
                    expected.append(message)
                elif kind == "deferreds":
                    waited: Deferred[None] = Deferred()
                    harness.reactor.callLater(1, waited.callback, None)
                    await waited
                else:
                    await asyncio.sleep(1)
            reply = filled(size) if end == "reply" else b"a\nb"
            if end != "silence":
                expected.append(reply if end == "reply" else self.words[end])
            if end == "refuse":
                raise Unavailable("no")
            if end == "fail":
                raise ValueError
            if end == "silence":
                return None
            return reply.decode() if kind == "text" else reply

        async def handler(client: Client, message: bytes) -> Any:
            return await act(client)

        async def text(client: Client, message: str) -> Any:
            return await act(client)

        class Batches(Handler):
            async def received_batch(self, messages: list[bytes]) -> Any:
                # All that it sends stands before its replies: a batch is one call.
                replies: list[Any] = []
                answers: list[bytes] = []
                for _ in messages:
                    try:
                        reply = await act(self.client)
                    except (Unavailable, ValueError) as error:
                        replies.append(error if isinstance(error, Unavailable) else b"a\nb")
                        answers.append(expected.pop())
                    else:
                        replies.append(reply)
                        if reply is not None:
                            answers.append(expected.pop())
                expected.extend(answers)
                return replies

        chosen: Any = {"text": text, "batches": Batches}.get(kind, handler)
        harness = Harness(chosen, asyncio_loop=kind != "deferreds", send_buffer=1 << 30, idle_timeout=0, send_timeout=0)
        client = harness.connect()
        left = len(scripts)
        if window:
            client.read(window[0])
        for count in reads:
            count = min(count, left)  # noqa: PLW2901 - of those that are left
            left -= count
            client.send(*[b"x"] * count)
            if data.draw(st.booleans()):
                harness.advance(1)
        client.send(*[b"x"] * left)
        for size in window[1:]:
            harness.advance(1)
            client.read(size)
        client.read(None)
        harness.advance(60)
        self.assertEqual(list(map(len, client.received)), list(map(len, expected)))
        self.assertEqual(client.received, [each.decode() for each in expected] if kind == "text" else expected)
        served = client.protocol.client
        self.assertEqual((served.messages_received, client.protocol.answered), (len(scripts), len(scripts)))
        self.assertEqual((served.messages_sent, served.bytes_sent), (len(expected), len(client.received_raw)))
        self.assertFalse(client.disconnected)


class Sizes(Case):
    """Large replies, and many of them."""

    def served(self, sizes: list[int], **options: Any) -> tuple[HarnessClient, list[int]]:
        """A client that was answered with replies of these sizes, and what was held for it before each was made."""
        held: list[int] = []
        remaining = iter(sizes)

        async def sized(client: Client, message: bytes) -> bytes:
            protocol = connected.protocol
            held.append(sum(map(len, protocol.replies or ())) + (protocol.outbox.size if protocol.outbox else 0))
            return b"x" * next(remaining)

        connected = Harness(sized, **options).connect()
        connected.send(*[b"m"] * len(sizes))
        return connected, held

    def test_over_small(self) -> None:
        """A reply that is no small one waits for its batch as others do: only their sum makes a write early."""
        client, _ = self.served([1, SMALL, SMALL + 1, 1, 10 * SMALL])
        self.assertEqual(list(map(len, client.received)), [1, SMALL, SMALL + 1, 1, 10 * SMALL])
        self.assertEqual(client.transport.writes, 1)

    def test_over_write_size(self) -> None:
        """More than WRITE_SIZE bytes leave in pieces of that size, and what follows behind them."""
        client, _ = self.served([10, WRITE_SIZE * 2 + 100, 10])
        self.assertEqual(list(map(len, client.received)), [10, WRITE_SIZE * 2 + 100, 10])
        self.assertEqual(client.received_raw.count(b"x"), WRITE_SIZE * 2 + 120)

    def test_exactly_write_size(self) -> None:
        """Just WRITE_SIZE bytes are one write; one more, two."""
        for size, writes in ((WRITE_SIZE - 1, 1), (WRITE_SIZE, 2)):
            client, _ = self.served([size])
            self.assertEqual((list(map(len, client.received)), client.transport.writes), ([size], writes))

    def test_many_large_replies_are_not_kept_back(self) -> None:
        """However many large replies a batch has, little more than WRITE_SIZE bytes of them wait for its end."""
        size = 3 * SMALL
        client, held = self.served([size] * 500)
        self.assertEqual(len(client.received), 500)
        self.assertLessEqual(max(held), WRITE_SIZE + size)
        self.assertLess(client.transport.writes, 2 * (500 * size // WRITE_SIZE + 2))

    def test_many_small_replies_are_not_kept_back(self) -> None:
        """Nor of small ones: WRITE_SIZE bytes, and what one batch adds."""
        client, held = self.served([SMALL] * 2000)
        self.assertEqual(len(client.received), 2000)
        self.assertLessEqual(max(held), WRITE_SIZE + BATCH * SMALL)

    def test_held_for_one_that_does_not_read(self) -> None:
        """The client does not read at all: its handler stops before much is held, and the rest is made as it reads."""
        for size in (SMALL, 3 * SMALL, WRITE_SIZE // 2):
            made = 0

            async def sized(client: Client, message: bytes, size: int = size) -> bytes:
                nonlocal made
                made += 1
                return b"x" * size

            client = Harness(sized).connect()
            client.read(0)
            client.send(*[b"m"] * 1000)
            self.assertLessEqual(made * size, 2 * (WRITE_SIZE + BATCH * SMALL))
            client.read(None)
            self.assertEqual(list(map(len, client.received)), [size] * 1000)

    def test_plain_large_replies(self) -> None:
        """Replies from workers, large and many, arrive whole and in order."""
        sizes = [1, WRITE_SIZE + 1, SMALL, SMALL + 1, 0] * 20
        remaining = iter(sizes)
        client = Harness(lambda client, message: b"x" * next(remaining)).connect()
        client.send(*[b"m"] * len(sizes))
        self.assertEqual(list(map(len, client.received)), sizes)


class Costs(Case):
    """What is not made for a message, or a client. Counted, so that it does not depend on the machine."""

    def counted(self, owner: Any, name: str) -> list[int]:
        """A list of one number: how often this callable has been called."""
        count = [0]
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            return original(*args, **kwargs)

        self.patch(owner, name, counting)
        return count

    def test_no_deferred(self) -> None:
        """An async handler that does not wait costs no Deferred."""
        for loop in (True, False):
            client = Harness(echo, asyncio_loop=loop).connect()
            count = self.counted(Deferred, "__init__")
            client.send(*[b"x"] * 100)
            client.send(b"x")
            self.assertEqual((len(client.received), count), (101, [0]))

    def test_nothing_scheduled(self) -> None:
        """Nor anything that the loop has to do: no callback, no timer."""
        harness = Harness(echo)
        client = harness.connect()
        client.send(b"x")
        counts = [
            self.counted(harness.loop, "call_soon"),
            self.counted(harness.loop, "call_at"),
            self.counted(harness.loop, "create_future"),
            self.counted(harness.reactor, "callLater"),
        ]
        for _ in range(10):
            client.send(*[b"x"] * 50)
        self.assertEqual(len(client.received), 501)
        self.assertEqual(counts, [[0]] * 4)

    def test_no_timer_per_client(self) -> None:
        """A hundred clients that come, are served and go set no timer of their own: one sweep looks at them all."""
        harness = Harness(echo)
        first = harness.connect()
        first.send_raw(b"begun")
        timers = len(harness.reactor.getDelayedCalls())
        count = self.counted(harness.reactor, "callLater")
        clients = [harness.connect() for _ in range(100)]
        for client in clients:
            client.send(b"x")
            client.send_raw(b"begun")
        self.assertEqual(count, [0])
        self.assertEqual(len(harness.reactor.getDelayedCalls()), timers)
        for client in clients:
            client.half_close()
        self.assertEqual(len(harness.reactor.getDelayedCalls()), timers)

    def test_one_timer_for_all_that_is_sent(self) -> None:
        """A hundred clients are sent ten messages each: one trip through the loop, one write for each of them."""
        harness = Harness(echo)
        clients = [harness.connect() for _ in range(100)]
        count = self.counted(harness.reactor, "callLater")
        with harness._running():
            for _ in range(10):
                harness.app.broadcast(b"news")
        self.assertEqual(count, [1])
        for client in clients:
            self.assertEqual((client.received, client.transport.writes), ([b"news"] * 10, 1))

    def test_one_hand_off(self) -> None:
        """What workers are given for many clients costs one trip through the loop; what they have done, one more."""
        for handler in (plain_echo, PlainEchoBatches):
            harness = Harness(handler)
            clients = [harness.connect() for _ in range(50)]
            count = self.counted(harness.reactor, "callFromThread")
            with harness._running():
                for client in clients:
                    client.transport.deliver(b"x\n" * 20)
            self.assertLessEqual(count[0], 2)
            self.assertEqual([len(client.received) for client in clients], [20] * 50)

    def test_no_dictionary(self) -> None:
        """A client is a few objects of slots: of its own, nothing stands in a dictionary."""
        client = Harness(echo).connect()
        client.send(b"x")
        for each in (client.protocol, client.protocol.client):
            self.assertEqual(getattr(each, "__dict__", {}), {}, each)

    def assert_nothing_left(self, client: HarnessClient, name: str) -> None:
        protocol = client.protocol
        kept = (protocol.inbox, protocol.outbox, protocol.replies, protocol.context, protocol.running)
        self.assertEqual(kept, (None,) * 5, name)
        self.assertEqual((protocol.busy, protocol.pauses), (0, 0), name)

    def test_nothing_left(self) -> None:
        """A client that has been answered and is idle holds no inbox, replies, outbox, context or coroutine."""
        for name, handler in ECHOES.items():
            harness = Harness(handler)
            client = harness.connect()
            self.assert_nothing_left(client, name)
            client.send(b"a", b"b")
            harness.advance(5)
            client.send_raw(b"c\nd", b"\n")
            harness.advance(5)
            self.assertEqual(client.received, [b"a", b"b", b"c", b"d"])
            self.assert_nothing_left(client, name)

    def test_nothing_left_of_a_slow_time(self) -> None:
        """Nor when it did not read for a while, was sent something, and was refused something."""

        async def large(client: Client, message: bytes) -> bytes:
            if message == b"bad":
                raise ValueError(message)
            client.send(b"x" * WRITE_SIZE)
            return b"y" * WRITE_SIZE

        harness = Harness(large)
        client = harness.connect()
        client.read(0)
        client.send(*[b"a"] * 20, b"bad")
        self.assertIsNotNone(client.protocol.inbox)
        client.read(None)
        self.assertEqual(len(client.received), 41)
        self.assert_nothing_left(client, "slow")
        harness.app.broadcast(b"news")
        harness.advance(0)
        self.assertEqual(client.received[-1], b"news")
        self.assert_nothing_left(client, "sent")

    def test_nothing_left_of_hooks(self) -> None:
        """Nor of a handler that is told of the connection, and waits then."""

        class Told(Handler):
            async def connected(self) -> None:
                await asyncio.sleep(1)
                self.client.send(b"welcome")

            async def received(self, message: bytes) -> bytes:
                return message

        class PlainTold(Handler):
            def connected(self) -> None:
                self.client.send(b"welcome")

            def received(self, message: bytes) -> bytes:
                return message

        for handler in (Told, PlainTold):
            harness = Harness(handler)
            client = harness.connect()
            client.send(b"a")
            harness.advance(2)
            self.assertEqual(client.received, [b"welcome", b"a"])
            self.assert_nothing_left(client, handler.__name__)

    def test_unfinished_is_kept(self) -> None:
        """The control of the above: what is begun keeps its inbox, and nothing else."""
        client = Harness(echo).connect()
        client.send_raw(b"a\nb")
        self.assertIsNotNone(client.protocol.inbox)
        self.assertIsNone(client.protocol.replies)
        client.send_raw(b"\n")
        self.assert_nothing_left(client, "finished")


class Failures(LogCase):
    def test_logged_once(self) -> None:
        """A reply that the framing cannot carry is logged once, with the reason; those beside it are not."""
        client = Harness(lambda client, message: b"x" * int(message), framing="int8").connect()
        client.send(b"1", b"300", b"2")
        self.assertEqual(client.received, [b"x", FAILED, b"xx"])
        (text,) = self.logged(LogLevel.error)
        self.assertIn("more than 255 bytes", text)

    def test_quiet(self) -> None:
        """With --quiet it is logged and left out."""
        client = Harness(lambda client, message: b"x" * int(message), framing="int8", quiet=True).connect()
        client.send(b"1", b"300", b"2")
        self.assertEqual(client.received, [b"x", b"xx"])
        self.assertEqual(len(self.logged(LogLevel.error)), 1)


class Threads(SynchronousTestCase):
    """A plain def handler in a real thread, and a loop that the test turns by hand."""

    def connect(self, handler: Any) -> HarnessClient:
        self.harness = Harness(handler)
        client = self.harness.connect()
        server: Any = client.protocol.listener.server
        self.posted: Queue[Any] = Queue()
        server.loop_calls._reactor = self
        pool = ThreadPool(1, "test")
        client.protocol.listener.dispatch.threads = pool
        self.addCleanup(pool.stop)
        return client

    def callFromThread(self, call: Any, *args: Any) -> None:
        self.posted.put((call, args))

    def turn_until(self, condition: Callable[[], object]) -> None:
        """Do what is posted to the loop, from wherever, until `condition` holds."""
        while not condition():
            call, args = self.posted.get(timeout=DEADLINE)
            with self.harness._running():
                call(*args)

    def test_send_from_a_busy_handler(self) -> None:
        """What a plain def handler sends arrives at once, long before it returns."""
        gate = threading.Event()
        self.addCleanup(gate.set)

        def work(client: Client, message: bytes) -> bytes:
            client.send(b"working")
            assert gate.wait(10)
            return b"done"

        client = self.connect(work)
        client.send(b"go")
        self.turn_until(lambda: client.received)
        self.assertEqual(client.received, [b"working"])
        gate.set()
        self.turn_until(lambda: len(client.received) > 1)
        self.assertEqual(client.received, [b"working", b"done"])

    def test_send_of_text(self) -> None:
        """A message of the wrong type is the sender's mistake, and raises in its own thread."""

        def wrong(client: Client, message: bytes) -> bytes:
            try:
                client.send("text")
            except Exception as error:  # to be looked at below
                return type(error).__name__.encode()
            return b"sent"

        client = self.connect(wrong)
        client.send(b"go")
        self.turn_until(lambda: client.received)
        self.assertEqual(client.received, [b"HandlerError"])

    def test_close_from_a_busy_handler(self) -> None:
        """close() from a thread lets the handler's reply through, and ends."""

        def leave(client: Client, message: bytes) -> bytes:
            client.send(b"closing")
            client.close()
            return b"bye"

        client = self.connect(leave)
        client.send(b"go")
        self.turn_until(lambda: client.disconnected)
        self.assertEqual(client.received, [b"closing", b"bye"])

    def test_close(self) -> None:
        """A handler that closes its client gets no further message, and its reply still arrives."""
        handled: list[bytes] = []

        def closing(client: Client, message: bytes) -> bytes:
            handled.append(message)
            if message == b"close":
                client.close()
            return message

        client = self.connect(closing)
        client.send(b"a", b"close", b"b")
        self.turn_until(lambda: client.disconnected)
        self.assertEqual(handled, [b"a", b"close"])
        self.assertEqual(client.received, [b"a", b"close"])

    def test_cancelled(self) -> None:
        """Of a handler that is not waited for any more the message at hand is the last; the rest is not handled."""
        handled: list[bytes] = []
        entered, gate = threading.Event(), threading.Event()
        self.addCleanup(gate.set)

        def stuck(client: Client, message: bytes) -> None:
            handled.append(message)
            entered.set()
            self.posted.put((lambda: None, ()))
            assert gate.wait(10)

        client = self.connect(stuck)
        client.send(b"a", b"b", b"c")
        self.turn_until(entered.is_set)
        client.reset()
        self.harness.advance(100)  # --drain-timeout, and then some
        self.assertTrue(client.protocol.pauses & CANCELLED)
        gate.set()
        self.turn_until(lambda: len(handled) > 1 or not client.protocol.busy)
        self.assertEqual(handled, [b"a"])
