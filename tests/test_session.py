"""One client's session: what it is told, what is held for it, and when it ends. On fake transports and a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, BadMessage, Client, Handler, Refusal, Unavailable
from mtserver.framing.framing import Framing
from mtserver.framing.line import LineFraming
from mtserver.session.limits import TokenBucket
from mtserver.session.outbox import Outbox
from mtserver.session.protocol import LINGER
from mtserver.session.receiving import BATCH, HIGH_WATER
from mtserver.session.sending import WRITE_SIZE
from mtserver.session.session import Session
from mtserver.session.state import State
from mtserver.settings import Settings
from mtserver.testing import Harness
from mtserver.testing.transport import FakeTransport
from tests.controls import ControlCase
from tests.logcase import LogCase

RETRY = r"retry-after=\d+ "


async def shout(client: Client, message: bytes) -> bytes:
    return message.upper()


class Stuck(Handler):
    """Answers each message when the test says so."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.waiting: list[Deferred[Any]] = []
        client.state.handler = self

    async def received(self, message: bytes) -> bytes:
        deferred: Deferred[Any] = Deferred()
        self.waiting.append(deferred)
        await deferred
        return message


def handler_of(harness: Harness, index: int = 0) -> Any:
    return list(harness.clients)[index].state.handler


class Replies(SynchronousTestCase):
    def test_reply(self) -> None:
        """A message is answered in its framing."""
        client = Harness(shout).connect()
        client.send(b"hello")
        self.assertEqual(client.received_raw, b"HELLO\n")

    def test_one_write_per_read(self) -> None:
        """However many messages one read brings, their replies leave in one write."""
        client = Harness(shout).connect()
        client.send(*[b"x"] * (BATCH * 3))
        self.assertEqual(client.received, [b"X"] * (BATCH * 3))
        self.assertEqual(client.transport.writes, 1)

    def test_every_framing(self) -> None:
        """The server speaks each framing in both directions."""
        for framing in ("line", "netstring", "int8", "int16", "int32"):
            client = Harness(shout, framing=framing).connect()
            client.send(b"one", b"", b"two")
            self.assertEqual(client.received, [b"ONE", b"", b"TWO"], framing)

    def test_no_reply(self) -> None:
        """None sends nothing."""

        async def silent(client: Client, message: bytes) -> None: ...

        client = Harness(silent).connect()
        client.send(b"x")
        self.assertEqual(client.transport.writes, 0)

    def test_counters(self) -> None:
        """A client counts its messages and bytes in both directions."""
        harness = Harness(shout)
        connected = harness.connect()
        connected.send(b"hello", b"you")
        connected.send_raw(b"unfin")
        (client,) = harness.clients
        counts = (client.messages_received, client.bytes_received, client.messages_sent, client.bytes_sent)
        self.assertEqual(counts, (2, 15, 2, 10))

    def test_send_is_in_order(self) -> None:
        """What a handler sends by itself stands before the reply it then returns, and all of it in one write."""

        async def progress(client: Client, message: bytes) -> bytes:
            client.send(b"working on " + message)
            return b"done"

        client = Harness(progress).connect()
        client.send(b"a", b"b")
        self.assertEqual(client.received, [b"working on a", b"done", b"working on b", b"done"])
        self.assertEqual(client.transport.writes, 1)

    def test_send_any_time(self) -> None:
        """Messages sent outside of any handling leave together, in the next iteration of the loop."""
        harness = Harness(shout)
        client = harness.connect()
        (served,) = harness.clients
        with harness._running():
            for number in range(10):
                served.send(b"%d" % number)
            self.assertEqual(client.transport.writes, 0)
        self.assertEqual(client.received, [b"%d" % number for number in range(10)])
        self.assertEqual(client.transport.writes, 1)

    def test_send_to_the_departed(self) -> None:
        """Sending to a client that is gone does nothing."""
        harness = Harness(shout)
        client = harness.connect()
        (served,) = harness.clients
        client.reset()
        served.send(b"too late")
        served.close()
        self.assertEqual(client.received, [])

    def test_large_reply(self) -> None:
        """A reply far larger than what is written at once arrives whole, piece by piece as the client reads."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * (WRITE_SIZE * 5)

        client = Harness(large).connect()
        client.read(1000)
        client.send(b"go")
        self.assertLess(client.transport.writes, 3)
        client.read(None)
        self.assertEqual(client.received, [b"x" * (WRITE_SIZE * 5)])

    def test_many_large_replies(self) -> None:
        """Replies that together exceed what is written at once do not wait for the end of their batch."""

        async def large(client: Client, message: bytes) -> bytes:
            return message * 40000

        client = Harness(large).connect()
        client.send(*[b"x"] * 10)
        self.assertEqual(client.received, [b"x" * 40000] * 10)
        self.assertGreater(client.transport.writes, 1)

    def test_quiet(self) -> None:
        """With --quiet the server's own words stay off the wire; closing and replies are as ever."""
        harness = Harness(shout, quiet=True, max_message=10)
        client = harness.connect()
        client.send(b"ok", b"x" * 11)
        self.assertEqual(client.received_raw, b"OK\n")
        self.assertTrue(client.disconnected)


class Failures(SynchronousTestCase):
    def served(self, handler: Any, *messages: bytes, **settings: Any) -> list[Any]:
        client = Harness(handler, **settings).connect()
        client.send(*messages)
        self.assertFalse(client.disconnected)
        return client.received

    def test_raises(self) -> None:
        """A handler that raises costs that message an ERR internal; the client stays, and the log has the traceback."""

        async def picky(client: Client, message: bytes) -> bytes:
            if message == b"bad":
                raise ValueError("no \x1b[31m good")
            return message

        self.assertEqual(self.served(picky, b"a", b"bad", b"b"), [b"a", b"ERR internal the handler failed", b"b"])

    def test_raises_system_exit(self) -> None:
        """Not even SystemExit from a handler ends the server."""

        async def leaves(client: Client, message: bytes) -> bytes:
            raise SystemExit(3)

        def leaves_too(client: Client, message: bytes) -> bytes:
            raise KeyboardInterrupt

        for handler in (leaves, leaves_too):
            self.assertEqual(self.served(handler, b"a"), [b"ERR internal the handler failed"])

    def test_wrong_type(self) -> None:
        """A reply that is not bytes is the handler's failure."""

        async def wrong(client: Client, message: bytes) -> int:
            return 3

        self.assertEqual(self.served(wrong, b"a"), [b"ERR internal the handler failed"])

    def test_unframeable(self) -> None:
        """A reply that the framing cannot carry is the handler's failure, and does not spoil those beside it."""

        async def multiline(client: Client, message: bytes) -> bytes:
            return b"one\ntwo" if message == b"b" else message

        self.assertEqual(self.served(multiline, b"a", b"b", b"c"), [b"a", b"ERR internal the handler failed", b"c"])

    def test_unframeable_and_quiet(self) -> None:
        """With --quiet it is left out."""

        async def multiline(client: Client, message: bytes) -> bytes:
            return b"one\ntwo" if message == b"b" else message

        self.assertEqual(self.served(multiline, b"a", b"b", b"c", quiet=True), [b"a", b"c"])

    def test_refusal(self) -> None:
        """A handler may refuse a message with a code and a text of its own; the text cannot forge a line."""

        async def away(client: Client, message: bytes) -> bytes:
            raise Unavailable("no\nway", retry_after=7)

        self.assertEqual(self.served(away, b"a"), [b"ERR unavailable retry-after=7 no\\nway"])

    def test_refusal_in_short_framing(self) -> None:
        """A refusal is never longer than the smallest framing can carry."""

        async def wordy(client: Client, message: bytes) -> bytes:
            raise Unavailable("\xe9" * 1000)

        (reply,) = self.served(wordy, b"a", framing="int8")
        self.assertTrue(reply.startswith(b"ERR unavailable retry-after=1 "))

    def test_closing_refusal(self) -> None:
        """A refusal may end the connection; what follows it is not handled."""

        async def strict(client: Client, message: bytes) -> bytes:
            raise Refusal("bad-message", "go away", closes=True)

        client = Harness(strict).connect()
        client.send(b"a", b"b")
        self.assertEqual(client.received, [b"ERR bad-message go away"])
        self.assertTrue(client.disconnected)

    def test_text(self) -> None:
        """A handler of str gets strict UTF-8; what is not is refused and never reaches it."""
        seen: list[str] = []

        async def text(client: Client, message: str) -> str:
            seen.append(message)
            return message

        client = Harness(text).connect()
        client.send_raw("gr\xfc\xdf\n".encode(), b"\xff\n", b"ok\n")
        self.assertEqual(client.received, ["gr\xfc\xdf", "ERR bad-message not UTF-8 at byte 0", "ok"])
        self.assertEqual(seen, ["gr\xfc\xdf", "ok"])

    def test_broken_constructor(self) -> None:
        """A Handler that cannot be made costs its client the connection, told as ERR internal."""

        class Broken(Handler):
            def __init__(self, client: Client) -> None:
                raise RuntimeError("no")

            async def received(self, message: bytes) -> None: ...

        class BrokenInThread(Handler):
            def __init__(self, client: Client) -> None:
                raise RuntimeError("no")

            def received(self, message: bytes) -> None: ...

        for handler in (Broken, BrokenInThread):
            harness = Harness(handler)
            client = harness.connect()
            self.assertEqual(client.received, [b"ERR internal the handler failed"])
            self.assertTrue(client.disconnected)
            client.half_close()
            harness.stop()
            self.assertFalse(harness.service.failed, "nothing of it is left to wait for")

    def test_broken_connected(self) -> None:
        """So does one whose connected() raises; disconnected() is then not called."""
        called: list[str] = []

        class Broken(Handler):
            async def connected(self) -> None:
                raise RuntimeError("no")

            async def received(self, message: bytes) -> None: ...

            async def disconnected(self, reason: str) -> None:
                called.append(reason)

        harness = Harness(Broken)
        client = harness.connect()
        self.assertEqual(client.received, [b"ERR internal the handler failed"])
        harness.advance(10)
        self.assertEqual(called, [])
        harness.stop()
        self.assertFalse(harness.service.failed)


class BadMessages(LogCase):
    """After --max-bad-messages in a row the client is told, and closed."""

    BAD = "ERR bad-message not UTF-8 at byte 0"
    LAST = "ERR bad-message 3 bad messages in a row"

    def served(self, *frames: bytes, handler: Any = None, **settings: Any) -> Any:
        async def echo(client: Client, message: str) -> str | None:
            if message == "refuse":
                raise BadMessage("not this")
            if message == "fail":
                raise ValueError(message)
            return None if message == "silent" else message

        self.harness = Harness(handler or echo, max_bad_messages=3, **settings)
        client = self.harness.connect()
        client.send(*frames)
        return client

    def closed(self, client: Any) -> None:
        self.assertEqual(client.received[-1], self.LAST)
        self.assertTrue(client.disconnected)

    def test_in_a_row(self) -> None:
        """Each is answered; the one that is too many is, too, before the end; what comes behind is not handled."""
        client = self.served(b"a", b"\xff", b"\xff", b"\xff", b"b")
        self.assertEqual(client.received, ["a", *[self.BAD] * 3, self.LAST])
        self.assertTrue(client.disconnected)

    def test_reset(self) -> None:
        """One that is good in between, whatever it was answered, and the count starts anew."""
        for good in (b"a", b"silent", b"fail"):
            client = self.served(b"\xff", b"\xff", good, b"\xff", b"\xff", good, b"\xff", b"\xff")
            self.assertFalse(client.disconnected, good)
            client.send(b"\xff")
            self.closed(client)

    def test_one_by_one(self) -> None:
        """However they come: each in a read of its own, after good ones whose replies are long gone."""
        client = self.served(b"a", b"b")
        for _ in range(3):
            self.assertFalse(client.disconnected)
            client.send(b"\xff")
        self.closed(client)

    def test_handlers_own(self) -> None:
        """What the handler itself refuses as bad counts."""
        client = self.served(b"refuse", b"\xff", b"refuse")
        self.closed(client)
        self.assertEqual(client.received[0], "ERR bad-message not this")

    def test_other_handlers(self) -> None:
        """The same for handlers that block, take batches, or types."""

        def plain(client: Client, message: str) -> str:
            return message

        class Batches(Handler):
            async def received_batch(self, messages: list[str]) -> list[str]:
                return messages

        class PlainBatches(Handler):
            def received_batch(self, messages: list[str]) -> list[str]:
                return messages

        for handler in (plain, Batches, PlainBatches):
            client = self.served(b"a", b"\xff", b"b", b"\xff", b"\xff", handler=handler)
            self.assertFalse(client.disconnected)
            client.send(b"\xff")
            self.closed(client)

        async def typed(client: Client, message: int) -> int:
            return message

        client = self.served(b"1", b"x", b"2", b"x", b"x", b"x", handler=typed)
        self.assertTrue(client.disconnected)
        last = {"error": "bad-message", "text": "3 bad messages in a row"}
        self.assertEqual(client.received[:1] + client.received[-1:], [1, last])

    def test_counted(self) -> None:
        """They are counted, in all; who has sent none has no count to keep."""
        client = self.served(b"a", b"\xff", b"b", b"\xff")
        (served,) = self.harness.clients
        self.assertEqual((served.bad_messages, served.messages_received), (2, 4))
        other = self.harness.connect()
        other.send(b"a")
        self.assertEqual([each.bad_messages for each in self.harness.clients], [2, 0])
        self.assertIsNone(other.protocol.bad)
        self.assertFalse(client.disconnected)

    def test_no_limit(self) -> None:
        """0 is no limit."""
        client = self.served(b"a")
        harness = Harness(self.harness.app.handler, max_bad_messages=0)
        client = harness.connect()
        client.send(*[b"\xff"] * 1000)
        self.assertEqual(client.received, [self.BAD] * 1000)
        self.assertFalse(client.disconnected)

    def test_quiet(self) -> None:
        """With --quiet it is closed without a word, and replies that wait keep bad messages apart all the same."""
        client = self.served(b"\xff", b"a", b"\xff", b"a", b"\xff", quiet=True)
        self.assertEqual((client.received, client.disconnected), (["a", "a"], False))
        client = self.served(*[b"\xff"] * 3, quiet=True)
        self.assertEqual((client.received, client.disconnected), ([], True))

    def test_recorded(self) -> None:
        """It is a security event."""
        self.served(*[b"\xff"] * 3)
        (event,) = (event for event in self.events if event["log_namespace"] == "mtserver.audit")
        self.assertEqual((event["audit"], event["client"], event["code"]), ("closed", 1, "bad-message"))
        self.assertEqual(event["reason"], "3 bad messages in a row")
        self.assertEqual(event["peer"], "192.0.2.2:50000")


class BadInput(SynchronousTestCase):
    def test_too_long(self) -> None:
        """An over-long message is told ERR too-long and closed, after what came before it was answered."""
        for segments in ([b"a\n" + b"x" * 101 + b"\nb\n"], [b"a\n"] + [b"x"] * 120):
            client = Harness(shout, max_message=100).connect()
            client.send_raw(*segments)
            self.assertEqual(client.received, [b"A", b"ERR too-long a message may have at most 100 bytes"])
            self.assertTrue(client.disconnected)

    def test_too_long_behind_a_slow_handler(self) -> None:
        """The order holds when the handler takes its time: first the reply, then the refusal."""
        harness = Harness(Stuck, max_message=100)
        client = harness.connect()
        client.send_raw(b"a\n" + b"x" * 200)
        self.assertEqual(client.received, [])
        harness.fire(handler_of(harness).waiting[0])
        self.assertEqual(client.received, [b"a", b"ERR too-long a message may have at most 100 bytes"])

    def test_lost_framing(self) -> None:
        """Bytes that are no netstring end the connection with ERR bad-message, in a netstring."""
        client = Harness(shout, framing="netstring").connect()
        client.send_raw(b"1:a,junk")
        self.assertEqual(client.received_raw, b"1:A,35:ERR bad-message the framing is lost,")
        self.assertTrue(client.disconnected)

    def test_cut_off_by_end_of_file(self) -> None:
        """A message without its end is no message: it is discarded and counted."""
        seen: list[bytes] = []

        async def note(client: Client, message: bytes) -> None:
            seen.append(message)

        for end in ("half_close", "reset"):
            client = Harness(note).connect()
            client.send_raw(b"whole\nhal")
            self.assertEqual(client.protocol.client.messages_cut_off, 0)
            getattr(client, end)()
            self.assertTrue(client.disconnected)
            self.assertEqual(client.protocol.client.messages_cut_off, 1)
            self.assertEqual(client.protocol.client.messages_received, 1)
        self.assertEqual(seen, [b"whole", b"whole"])

    def test_lingering(self) -> None:
        """After a refusal that closes, what the client still sends is read and dropped, for a while; then it is cut."""
        harness = Harness(shout, max_message=10)
        client = harness.connect()
        client.send_raw(b"x" * 11)
        self.assertTrue(client.disconnected)
        client.send_raw(b"y" * 1000, b"\nz\n")
        self.assertEqual(client.transport.consumed, 1014)
        self.assertEqual(client.received, [b"ERR too-long a message may have at most 10 bytes"])
        self.assertFalse(client.transport.aborted)
        harness.advance(LINGER + 1)
        self.assertTrue(client.transport.aborted)

    def test_lingering_has_an_end(self) -> None:
        """A flood is not read on out of politeness: after so many bytes the connection is cut."""
        harness = Harness(shout, max_message=10)
        client = harness.connect()
        client.send_raw(*[b"x" * (1 << 20)] * 16)
        self.assertFalse(client.transport.aborted)
        client.send_raw(*[b"x" * (1 << 20)] * 2)
        self.assertTrue(client.transport.aborted)

    def test_lingering_ends_with_the_client(self) -> None:
        """A client that closes in answer is closed without a reset."""
        harness = Harness(shout, max_message=10)
        client = harness.connect()
        client.send_raw(b"x" * 11)
        client.half_close()
        self.assertFalse(client.transport.connected)
        self.assertFalse(client.transport.aborted)


class HalfClose(SynchronousTestCase):
    def test_replies_come(self) -> None:
        """A client that has sent all it has to say still reads its replies."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send(b"a", b"b")
        client.half_close()
        handler = handler_of(harness)
        self.assertFalse(client.disconnected)
        harness.fire(handler.waiting[0])
        harness.fire(handler.waiting[1])
        self.assertEqual(client.received, [b"a", b"b"])
        self.assertTrue(client.disconnected)

    def test_after_the_handler_rested(self) -> None:
        """With nothing left to answer it is closed at once."""
        client = Harness(shout).connect()
        client.send(b"a")
        client.half_close()
        self.assertEqual(client.received, [b"A"])
        self.assertFalse(client.transport.connected)

    def test_messages_of_the_departed(self) -> None:
        """What arrived complete is handled even if its client has gone meanwhile; then disconnected() is called."""
        done: list[Any] = []

        class Collector(Stuck):
            async def received(self, message: bytes) -> bytes:
                reply = await super().received(message)
                done.append(reply)
                return reply

            def disconnected(self, reason: str) -> None:
                done.append(reason)

        harness = Harness(Collector)
        client = harness.connect()
        client.send(b"a", b"b")
        handler = handler_of(harness)
        client.reset()
        harness.fire(handler.waiting[0])
        harness.fire(handler.waiting[1])
        self.assertEqual(done[:2], [b"a", b"b"])
        self.assertIn("lost", done[2])

    def test_many_messages_of_the_departed(self) -> None:
        """However many they are, all are handled before disconnected() is called, in turns with other clients."""
        order: list[str] = []

        class Heavy(Handler):
            async def received(self, message: bytes) -> None:
                harness.reactor.rightNow += 0.001
                order.append("message")

            async def disconnected(self, reason: str) -> None:
                order.append("gone")

        harness = Harness(Heavy)
        client = harness.connect()
        with harness._running():
            client.transport.deliver(b"x\n" * 5000)
            # That is, right after the first time slice.
            harness.reactor.callLater(0, client.transport.connectionLost, Failure(ConnectionLost()))
        self.assertEqual(order, ["message"] * 5000 + ["gone"])


class BackPressure(SynchronousTestCase):
    def test_reading_pauses(self) -> None:
        """While the handler is busy at most HIGH_WATER bytes (and one read) are taken from the client."""
        harness = Harness(Stuck)
        client = harness.connect()
        line = b"x" * 1023 + b"\n"
        client.send_raw(*[line] * 200)
        self.assertLessEqual(client.transport.consumed, HIGH_WATER + len(line) * 2)
        self.assertGreaterEqual(client.transport.consumed, HIGH_WATER)

    def test_reading_goes_on(self) -> None:
        """It goes on when the handler has caught up, and nothing is lost."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send_raw(*[b"%06d%s\n" % (number, b"x" * 1000) for number in range(150)])
        handler = handler_of(harness)
        for number in range(150):
            harness.fire(handler.waiting[number])
        self.assertEqual([message[:6] for message in client.received], [b"%06d" % number for number in range(150)])

    def test_blocked_client_is_not_handled(self) -> None:
        """A client that does not read its replies gets no further message handled, and no further byte read."""
        handled: list[int] = []

        async def verbose(client: Client, message: bytes) -> bytes:
            handled.append(1)
            return b"x" * WRITE_SIZE

        client = Harness(verbose).connect()
        client.read(0)
        client.send_raw(*[(b"x" * 1000 + b"\n") * 10] * 20)
        self.assertLess(len(handled), 4)
        self.assertLess(client.transport.consumed, HIGH_WATER + 2 * 10010)
        before = len(handled)
        client.read(WRITE_SIZE * 2)
        self.assertLess(before, len(handled))
        self.assertLess(len(handled), before + 4)

    def test_large_replies_to_a_batch(self) -> None:
        """A batch that is interrupted because the client has to read first is taken up again where it was left."""

        async def large(client: Client, message: bytes) -> bytes:
            return message * WRITE_SIZE

        client = Harness(large).connect()
        client.read(0)
        client.send(*[b"%d" % number for number in range(10)])
        client.read(None)
        self.assertEqual([reply[:1] for reply in client.received], [b"%d" % number for number in range(10)])

    def test_slow_reader_is_cut(self) -> None:
        """Unread for --send-timeout seconds, a client is told ERR slow where its socket takes it, and aborted."""

        async def verbose(client: Client, message: bytes) -> bytes:
            return b"x" * WRITE_SIZE

        harness = Harness(verbose, send_timeout=30)
        client, other = harness.connect(), harness.connect()
        client.read(0)
        client.send(b"go", b"go")
        harness.advance(29)
        self.assertFalse(client.transport.aborted)
        other.send(b"go")
        self.assertEqual(len(other.received), 1)
        harness.advance(4)
        self.assertTrue(client.transport.aborted)
        self.assertFalse(other.transport.aborted)

    def test_progress_is_not_slow(self) -> None:
        """A client that reads on, however long it takes, is not slow."""

        async def verbose(client: Client, message: bytes) -> bytes:
            return b"x" * WRITE_SIZE * 10

        harness = Harness(verbose, send_timeout=5)
        client = harness.connect()
        client.read(0)
        client.send(b"go")
        for _ in range(20):
            harness.advance(4)
            client.read(WRITE_SIZE)
        self.assertEqual(len(client.received), 1)
        self.assertFalse(client.disconnected)

    def test_send_buffer(self) -> None:
        """More than --send-buffer bytes sent to a client that does not read cut it, at once; memory is freed."""
        harness = Harness(shout, send_buffer=1000000)
        client, other = harness.connect(), harness.connect()
        client.read(0)
        message = b"x" * 100000
        count = 0
        while not client.protocol.state >= State.CLOSING and count < 20:
            harness.app.broadcast(message)
            harness.advance(0)
            count += 1
        self.assertGreater(count, 8)
        self.assertLess(count, 14)
        self.assertIsNone(client.protocol.outbox)
        self.assertEqual(len(other.received), count)
        client.read(None)
        self.assertEqual(client.received[-1], b"ERR slow too much unread for too long")
        self.assertTrue(all(each == message for each in client.received[:-1]))

    def test_cut_within_a_message(self) -> None:
        """A client cut in the middle of a message is not told anything that would look like the rest of it."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * WRITE_SIZE * 3

        harness = Harness(large, send_timeout=5)
        client = harness.connect()
        client.read(10)
        client.send(b"go")
        harness.advance(7)
        client.read(None)
        self.assertNotIn(b"ERR", client.received_raw)
        harness.advance(3)
        self.assertFalse(client.transport.connected)

    def test_empty_lines(self) -> None:
        """A million empty lines are a million messages, handled in turns that others can come between."""
        handled = [0]

        async def count(client: Client, message: bytes) -> None:
            handled[0] += 1

        harness = Harness(count)
        client = harness.connect()
        client.send_raw(*[b"\n" * 50000] * 20)
        self.assertEqual(handled, [1000000])


class Rate(SynchronousTestCase):
    def test_rate(self) -> None:
        """Over --message-rate a client waits; nothing is lost and reading pauses."""
        harness = Harness(shout, message_rate=10)
        client = harness.connect()
        client.send(*[b"%d" % number for number in range(50)])
        self.assertEqual(len(client.received), 10)
        self.assertNotIn(client.transport, harness.reactor.getReaders())
        harness.advance(1)
        self.assertIn(len(client.received), (19, 20, 21))
        harness.advance(4)
        self.assertEqual(client.received, [b"%d" % number for number in range(50)])
        self.assertIn(client.transport, harness.reactor.getReaders())

    def test_rate_below_one(self) -> None:
        """Less than one message per second works too."""
        harness = Harness(shout, message_rate=0.5)
        client = harness.connect()
        client.send(b"a", b"b")
        self.assertEqual(client.received, [b"A"])
        harness.advance(2.1)
        self.assertEqual(client.received, [b"A", b"B"])

    def test_rate_and_end(self) -> None:
        """A client at its rate that has nothing more to say is closed without waiting for another token."""
        harness = Harness(shout, message_rate=0.5)
        client = harness.connect()
        client.send(b"a")
        client.half_close()
        self.assertEqual(client.received, [b"A"])
        self.assertTrue(client.disconnected)

    def test_rate_and_departure(self) -> None:
        """The messages of a client that leaves while it waits are handled, and so they are when the server stops."""
        handled: list[bytes] = []

        async def note(client: Client, message: bytes) -> None:
            handled.append(message)

        harness = Harness(note, message_rate=1)
        client, other = harness.connect(), harness.connect()
        client.send(b"a", b"b", b"c")
        client.reset()
        self.assertEqual(handled, [b"a", b"b", b"c"])
        other.send(b"d", b"e")
        harness.stop()
        self.assertEqual(handled, [b"a", b"b", b"c", b"d", b"e"])


class Deadlines(SynchronousTestCase):
    def test_idle(self) -> None:
        """A client that sends nothing for --idle-timeout is told so and closed; one that does is not."""
        harness = Harness(shout, idle_timeout=600)
        idle, busy = harness.connect(), harness.connect()
        for _ in range(6):
            harness.advance(99)
            busy.send(b"x")
        self.assertFalse(idle.disconnected)
        harness.advance(8)
        self.assertEqual(idle.received, [b"ERR idle nothing heard for 600 seconds"])
        self.assertTrue(idle.disconnected)
        self.assertFalse(busy.disconnected)

    def test_only_bytes_count(self) -> None:
        """What we send to a client does not make it less idle."""
        harness = Harness(shout, idle_timeout=60)
        client = harness.connect()
        for _ in range(7):
            harness.advance(9)
            harness.app.broadcast(b"news")
        self.assertTrue(client.disconnected)

    def test_message_timeout(self) -> None:
        """A message has --message-timeout seconds from its first byte to its last, however it dribbles in."""
        harness = Harness(shout, message_timeout=30)
        client = harness.connect()
        client.send_raw(b"quick\n")
        harness.advance(100)
        for _ in range(35):
            client.send_raw(b"x")
            harness.advance(1)
        self.assertEqual(client.received, [b"QUICK", b"ERR timeout the message begun 30 seconds ago is not complete"])
        self.assertTrue(client.disconnected)

    def test_message_timeout_runs_per_message(self) -> None:
        """A client that is always in the middle of some message is not cut, if each one ends in time."""
        harness = Harness(shout, message_timeout=30)
        client = harness.connect()
        for _ in range(20):
            client.send_raw(b"be")
            harness.advance(20)
            client.send_raw(b"gin\nanother be")
            harness.advance(5)
            client.send_raw(b"gin\n")
        self.assertFalse(client.disconnected)

    def test_handler_time_is_not_message_time(self) -> None:
        """While the handler is at work the time of the message behind does not run, nor is its client idle."""
        harness = Harness(Stuck, message_timeout=30, idle_timeout=100)
        client = harness.connect()
        client.send_raw(b"a\nb\nc\nd\ne\n" + b"x" * HIGH_WATER)
        handler = handler_of(harness)
        for number in range(5):
            harness.advance(60)
            self.assertFalse(client.disconnected, number)
            harness.fire(handler.waiting[number])
        self.assertFalse(client.disconnected)
        harness.advance(32)
        self.assertIn(b"ERR timeout", client.received[-1])

    def test_stuck_handler(self) -> None:
        """A client whose handler never returns is let go when it has been idle long enough; the others are served."""
        harness = Harness(Stuck, idle_timeout=100)
        client, other = harness.connect(), harness.connect()
        client.send(b"a")
        other.send(b"b")
        harness.fire(handler_of(harness, 1).waiting[0])
        self.assertEqual(other.received, [b"b"])
        harness.advance(102)
        self.assertTrue(client.disconnected)
        self.assertEqual(client.received, [b"ERR idle nothing heard for 100 seconds"])

    def test_no_timer_per_client(self) -> None:
        """A hundred clients have no more timers than one."""
        harness = Harness(shout)
        harness.connect()
        timers = len(harness.reactor.getDelayedCalls())
        for _ in range(99):
            harness.connect()
        self.assertEqual(len(harness.reactor.getDelayedCalls()), timers)

    def test_all_off(self) -> None:
        """Deadlines of 0 are none."""
        harness = Harness(shout, idle_timeout=0, message_timeout=0, send_timeout=0)
        client = harness.connect()
        client.send_raw(b"x")
        harness.advance(10000)
        self.assertFalse(client.disconnected)
        client.read(0)
        harness.app.broadcast(b"x" * 200000)
        harness.advance(10000)
        self.assertFalse(client.disconnected)


class Closing(SynchronousTestCase):
    def test_close(self) -> None:
        """close() in a handler ends the connection behind the reply, and the messages after that go unread."""
        handled: list[bytes] = []

        async def last(client: Client, message: bytes) -> bytes:
            handled.append(message)
            client.close()
            client.close()
            return b"bye"

        client = Harness(last).connect()
        client.send(b"a", b"b")
        self.assertEqual((client.received, handled), ([b"bye"], [b"a"]))
        self.assertTrue(client.disconnected)

    def test_close_from_outside(self) -> None:
        """close() from anywhere waits for the message being handled."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send(b"a")
        (served,) = harness.clients
        with harness._running():
            served.close()
        self.assertFalse(client.disconnected)
        harness.fire(handler_of(harness).waiting[0])
        self.assertEqual(client.received, [b"a"])
        self.assertTrue(client.disconnected)

    def test_close_with_unread_bytes(self) -> None:
        """What is owed is delivered before the end."""

        async def last(client: Client, message: bytes) -> bytes:
            client.close()
            return b"x" * WRITE_SIZE * 2

        client = Harness(last).connect()
        client.read(0)
        client.send(b"a")
        self.assertFalse(client.disconnected)
        client.read(None)
        self.assertEqual(client.received, [b"x" * WRITE_SIZE * 2])
        self.assertTrue(client.disconnected)

    def test_disconnected_is_told_why(self) -> None:
        """disconnected() is called once, with the reason, whoever ended it."""
        reasons: list[str] = []

        class Watcher(Handler):
            async def received(self, message: bytes) -> None:
                self.client.close()

            async def disconnected(self, reason: str) -> None:
                reasons.append(reason)

        harness = Harness(Watcher, max_message=10, idle_timeout=50)
        leaving, reset, long, closed, _idle = (harness.connect() for _ in range(5))
        leaving.half_close()
        reset.reset()
        long.send_raw(b"x" * 20)
        closed.send(b"x")
        harness.advance(60)
        self.assertEqual(
            [reasons[0], *sorted(reasons[2:])], ["closed by the client", "closed by the handler", "idle", "too-long"]
        )
        self.assertIn("non-clean", reasons[1])

    def test_refusing_after_the_end(self) -> None:
        """A connection that is closing is not told anything more."""
        harness = Harness(shout, max_message=10)
        client = harness.connect()
        client.send_raw(b"x" * 20)
        client.protocol.refuse(Refusal("busy", "again"))
        client.protocol.resumeProducing()
        self.assertEqual(len(client.received), 1)


class Lifespan(SynchronousTestCase):
    def test_served_after_opening(self) -> None:
        """A client that connects while the app is opening waits, unread, and is served when it is open."""
        from collections.abc import AsyncIterator
        from contextlib import asynccontextmanager

        opening: Deferred[None] = Deferred()
        events: list[str] = []

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            await opening
            events.append("open")
            yield
            events.append("closed")

        async def note(client: Client, message: bytes) -> bytes:
            events.append("message")
            return message

        harness = Harness(App(note, lifespan=lifespan))
        client, leaver = harness.connect(), harness.connect()
        client.send(b"a")
        leaver.reset()
        self.assertEqual((events, client.transport.consumed), ([], 0))
        harness.fire(opening)
        self.assertEqual((events, client.received), (["open", "message"], [b"a"]))
        harness.stop()
        self.assertEqual(events, ["open", "message", "closed"])


class Controls(ControlCase):
    def test_overtaken_in_the_outbox(self) -> None:
        """P3: what is said last leaves first."""

        def wrong(outbox: Outbox, frame: bytes) -> None:
            outbox._frames.appendleft(frame)
            outbox.size += len(frame)

        with self.noticed_by(Replies, "test_send_is_in_order"):
            self.patch(Outbox, "add", wrong)

    def test_handled_out_of_order(self) -> None:
        """P3: of the messages of one read the last is handled first."""
        right = LineFraming.take
        with self.noticed_by(Rate, "test_rate"):
            self.patch(LineFraming, "take", lambda framing, limit: right(framing, limit)[::-1])

    def test_reset_onto_unread_replies(self) -> None:
        """P6: a client that is refused meets a reset in place of the reason."""
        with self.noticed_by(BadInput, "test_lingering"):
            self.patch(FakeTransport, "loseWriteConnection", FakeTransport.abortConnection)

    def test_half_close(self) -> None:
        """P4: who has said its last is cut, whatever it is owed."""
        with self.noticed_by(HalfClose, "test_replies_come"):
            self.patch(Session, "readConnectionLost", lambda protocol: protocol.abort())

    def test_over_long(self) -> None:
        """P8: a message may be longer than --max-message."""
        with self.noticed_by(BadInput, "test_too_long"):
            self.patch(Framing, "fail", lambda *_: None)

    def test_read_on_without_end(self) -> None:
        """P8: a client is read on, however far it is ahead of its handler."""
        with self.noticed_by(BackPressure, "test_reading_pauses"):
            self.ignore(LineFraming, "buffered", 0)

    def test_handled_without_end(self) -> None:
        """P8: messages of a client that does not read are handled."""
        with self.noticed_by(BackPressure, "test_blocked_client_is_not_handled"):
            self.patch(Session, "pauseProducing", lambda _: None)

    def test_held_without_end(self) -> None:
        """P8: --send-buffer is no limit."""
        with self.noticed_by(BackPressure, "test_send_buffer"):
            self.ignore(Settings, "send_buffer", 1 << 40)

    def test_slow_reader_kept(self) -> None:
        """P9: a client may leave what it is sent unread for ever."""
        with self.noticed_by(BackPressure, "test_slow_reader_is_cut"):
            self.ignore(Settings, "send_timeout", 0)

    def test_rate(self) -> None:
        """P9: --message-rate is no limit."""
        with self.noticed_by(Rate, "test_rate"):
            self.patch(TokenBucket, "available", lambda *_: 64)

    def test_slow_loris_kept(self) -> None:
        """P9: a message may take for ever."""
        with self.noticed_by(Deadlines, "test_message_timeout"):
            self.ignore(Settings, "message_timeout", 0)

    def test_idle_kept(self) -> None:
        """P9: a client that says nothing stays for ever."""
        with self.noticed_by(Deadlines, "test_idle"):
            self.ignore(Settings, "idle_timeout", 0)
