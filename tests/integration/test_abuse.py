"""Input that nobody should send: nothing grows, the sender is told, and others are served meanwhile."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from .peer import Peer
from .server import Server

MIB = 1 << 20
TOO_LONG = rb"\AERR too-long [^\n]*\n\Z"

FLOOD = {
    "flood": """
        async def reply(client, message: bytes) -> bytes:
            return b"x" * 500_000

        async def send(client, message: bytes):
            if message == b"flood":
                for _ in range(40):
                    client.send(b"x" * 500_000)
            else:
                return message.upper()
    """
}

FAULTY = {
    "faulty": """
        import asyncio, threading

        async def loop(client, message: bytes) -> bytes:
            if message == b"never":
                client.send(b"waiting")
                await asyncio.Event().wait()
            return outcome(message)

        def thread(client, message: bytes) -> bytes:
            if message == b"never":
                client.send(b"waiting")
                threading.Event().wait()
            return outcome(message)

        def outcome(message):
            if message == b"raise":
                raise LookupError("on purpose")
            if message == b"exit":
                raise SystemExit("on purpose")
            return {b"number": 42, b"text": "text", b"lines": b"two\\nlines"}.get(message, message.upper())
    """
}


class TestMemory(SynchronousTestCase):
    """What stays, and what was held for a moment."""

    def _grows(self, data: bytes, times: int, *options: str, tells: bytes) -> int:
        with Server("--app", "echo", *options) as server:
            # The first client of all is not what is measured: modules are loaded for it, buffers made.
            with server.connect() as first:
                first.pour(b"x" * 100000, 1)
            before = server.forget_peak_memory()
            with server.connect() as abuser, server.connect() as other:
                sent, received = abuser.pour(data, times)
                self.assertRegex(received, tells)
                self.assertEqual(other.exchange(b"hello"), [b"hello"])
            self.assertLess(server.memory("VmRSS") - before, MIB)
            # The heap may be a little larger for a moment, as it is under any Twisted protocol; not by what was sent.
            self.assertLess(server.memory("VmHWM") - before, 2 * MIB)
        return sent

    def test_a_gigabyte_without_a_newline(self) -> None:
        """1 GiB without a newline: ``ERR too-long``, and however much of it is taken, less than 1 MiB more memory."""
        sent = self._grows(b"x" * MIB, 1024, tells=TOO_LONG)
        self.assertGreater(sent, 65536)

    def test_a_gigabyte_without_a_newline_dribbled(self) -> None:
        """The same in pieces of 100 bytes."""
        sent = self._grows(b"x" * 100, 1 << 24, tells=TOO_LONG)
        self.assertGreater(sent, 65536)

    def test_a_line_just_too_long(self) -> None:
        """65,536 bytes are a message, 65,537 are too long, with the default --max-message."""
        with Server("--app", "echo") as server, server.connect() as peer:
            message = b"x" * 65536
            self.assertEqual(peer.exchange(message, b"a"), [message, b"a"])
            peer.send(message + b"x\nb\n")
            self.assertRegex(peer.rest(), TOO_LONG)

    def test_client_far_ahead_of_its_handler(self) -> None:
        """A client that sends on while its handler is busy is not read on: it can send less than 1 GiB by far."""
        with Server("--app", "faulty:loop", modules=FAULTY) as server:
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"hello"), [b"HELLO"])
            before = server.forget_peak_memory()
            with server.connect() as peer, server.connect() as other:
                self.assertEqual(peer.exchange(b"never"), [b"waiting"])
                sent, _ = peer.pour(b"line\n" * 1000, 1 << 18, patience=1.0)
                self.assertLess(sent, 64 * MIB)
                self.assertEqual(other.exchange(b"hello"), [b"HELLO"])
            self.assertLess(server.memory("VmRSS") - before, MIB)
            # The heap may be a little larger for a moment, as it is under any Twisted protocol; not by what was sent.
            self.assertLess(server.memory("VmHWM") - before, 2 * MIB)

    def test_length_of_4_gib(self) -> None:
        """A length prefix of 4 GiB is refused as soon as it is read, and nothing is reserved for it."""
        with Server("--app", "echo", "--framing", "int32") as server:
            with server.connect() as peer:
                peer.send(b"\0\0\0\5hello")
                self.assertEqual(peer.read(9), b"\0\0\0\5hello")
            before = server.forget_peak_memory()
            with server.connect() as peer:
                peer.send(b"\xff\xff\xff\xff")
                refusal = peer.rest()
            self.assertEqual(int.from_bytes(refusal[:4], "big"), len(refusal) - 4)
            self.assertRegex(refusal[4:], rb"\AERR too-long ")
            self.assertLess(server.memory("VmRSS") - before, MIB)
            # The heap may be a little larger for a moment, as it is under any Twisted protocol; not by what was sent.
            self.assertLess(server.memory("VmHWM") - before, 2 * MIB)

    def test_invalid_netstring(self) -> None:
        """What is no netstring: ``ERR bad-message``, as a netstring, and the end."""
        with Server("--app", "echo", "--framing", "netstring") as server, server.connect() as peer:
            peer.send(b"5:hello,5:hello;5:hello,")
            answer = peer.rest()
            self.assertRegex(answer, rb"\A5:hello,\d+:ERR bad-message [^,]*,\Z")


class TestPieces(SynchronousTestCase):
    def test_a_million_empty_lines(self) -> None:
        """A million empty lines are a million messages, and all come back."""
        with Server("--app", "echo") as server, server.connect() as peer:
            sent, received = peer.pour(b"\n" * 1000, 1000, enough=lambda received: len(received) >= 1_000_000)
            self.assertEqual(sent, 1_000_000)
            self.assertEqual(received, b"\n" * 1_000_000)
            self.assertEqual(peer.exchange(b"more"), [b"more"])

    def test_one_byte_segments(self) -> None:
        """A long message in segments of one byte each is one message."""
        message = bytes(range(32, 127)) * 600
        with Server("--app", "echo") as server, server.connect() as peer:
            for byte in message + b"\n":
                peer.send(bytes([byte]))
            self.assertEqual(peer.line(), message)

    def test_reset_within_a_message(self) -> None:
        """RST in mid-message: what was begun is no message, the close is logged, the next client is served."""
        with Server() as server:
            with server.connect() as peer:
                peer.send(b"whole\nhal")
                self.assertEqual(peer.line(), b"OK 1")
                peer.reset()
            closed = server.wait_for_log(
                r"client 1 from \S+ closed \((.*)\) after .*: received (\d+) mess\w+, (\d+) by"
            )
            self.assertEqual(closed.groups()[1:], ("1", "9"))
            self.assertNotEqual(closed[1], "closed by the client")
            with server.connect() as peer:
                self.assertEqual(peer.exchange(b"next"), [b"OK 2"])


class TestSlow(SynchronousTestCase):
    def _is_cut(self, kind: str, request: bytes, *options: str) -> None:
        with (
            Server("--app", f"flood:{kind}", *options, modules=FLOOD) as server,
            Peer.connect(server.port, receive_buffer=4096) as slow,
            server.connect() as other,
        ):
            slow.send(request)
            self.assertGreater(len(other.exchange(b"a")[0]), 0)
            self.assertIsNone(re.search(r"client \d+ from \S+ closed", server.log))
            server.wait_for_log(r"client 1 from \S+ closed \(slow\)")
            self.assertGreater(len(other.exchange(b"b")[0]), 0)

    def test_send_timeout(self) -> None:
        """A client that never reads its replies is cut at --send-timeout; another is served before and after."""
        self._is_cut("reply", b"a\n" * 20, "--send-timeout", "3")

    def test_send_buffer(self) -> None:
        """A client that is sent more than --send-buffer holds is cut, long before --send-timeout."""
        self._is_cut("send", b"flood\n", "--send-timeout", "600", "--send-buffer", "1000000")

    def test_slow_but_reading(self) -> None:
        """Replies of many times --send-buffer reach a client that does read them."""
        options = ("--send-timeout", "5", "--send-buffer", "100000")
        with Server("--app", "flood:reply", *options, modules=FLOOD) as server, server.connect() as peer:
            peer.send(b"a\n" * 40)
            self.assertEqual(peer.lines(40), [b"x" * 500_000] * 40)

    def test_message_timeout(self) -> None:
        """Slowloris: a message that goes on, byte by byte, past --message-timeout reads ``ERR timeout``."""
        with (
            Server("--app", "echo", "--message-timeout", "1") as server,
            server.connect() as peer,
            server.connect() as other,
        ):
            self.assertEqual(other.exchange(b"a"), [b"a"])
            for _ in range(100):
                sent, received = peer.pour(b"x", 1, patience=0.1)
                if received or not sent:
                    break
            self.assertRegex(received, rb"\AERR timeout [^\n]*\n\Z")
            # A message begun and finished does not count, however long ago it was.
            self.assertEqual(other.exchange(b"b"), [b"b"])

    def test_idle_timeout(self) -> None:
        """A client that sends nothing for --idle-timeout is told, and closed."""
        with Server("--app", "echo", "--idle-timeout", "1") as server, server.connect() as peer:
            self.assertRegex(peer.rest(), rb"\AERR idle [^\n]*\n\Z")


class TestFaultyHandlers(SynchronousTestCase):
    def _faulty(self, kind: str) -> None:
        with (
            Server("--app", f"faulty:{kind}", "--threads", "2", modules=FAULTY) as server,
            server.connect() as never,
            server.connect() as peer,
            server.connect() as other,
        ):
            self.assertEqual(never.exchange(b"never"), [b"waiting"])
            never.send(b"a\nb\n")
            failed = b"ERR internal the handler failed"
            wrong = (b"raise", b"number", b"text", b"lines", b"exit")
            for message in wrong:
                self.assertEqual(peer.exchange(message, b"ok"), [failed, b"OK"], message)
                self.assertEqual(other.exchange(b"hello"), [b"HELLO"])
            for text in ("LookupError: on purpose", "answered with int, not bytes", "SystemExit: on purpose"):
                self.assertIn(text, server.log)
            self.assertEqual(server.log.count("the handler of client 2 failed"), len(wrong))

    def test_coroutine(self) -> None:
        """A coroutine that raises or returns what it must not costs an ``ERR internal``; that never returns, nobody."""
        self._faulty("loop")

    def test_thread(self) -> None:
        """The same for a plain handler in a thread."""
        self._faulty("thread")
