"""The outbox: whatever is added, in whatever pieces it leaves, the reader sees the same bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import HandlerError
from mtserver.framing.lengths import Int8Framing
from mtserver.framing.line import LineFraming
from mtserver.outbox import Outbox

law = settings(max_examples=200, deadline=None)


def unfit(_error: HandlerError) -> bytes:
    return b"ERR internal\n"


def emptied(outbox: Outbox, size: int) -> list[bytes]:
    pieces: list[bytes] = []
    while outbox:
        pieces.append(outbox.next_piece(size))
    return pieces


#: What is added: a reply (True), with a newline in some, or a frame.
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from([b"", b"a", b"bc", b"x\ny", b"d" * 30])), max_size=20)


class Law(SynchronousTestCase):
    @law
    @given(STEPS, st.integers(1, 40))
    def test_order(self, steps: list[tuple[bool, bytes]], size: int) -> None:
        """The pieces together are all that was added, in order, each no longer than asked for."""
        outbox, expected = Outbox(LineFraming(100), unfit), b""
        for is_reply, data in steps:
            if is_reply:
                outbox.add_reply(data)
                expected += unfit(HandlerError()) if b"\n" in data else data + b"\n"
            else:
                outbox.add_frame(data)
                expected += data
        pieces = emptied(outbox, size)
        self.assertEqual(b"".join(pieces), expected)
        for piece in pieces:
            self.assertIs(type(piece), bytes)
            self.assertLessEqual(len(piece), size)
        for piece in pieces[:-1]:
            self.assertEqual(len(piece), size)

    @law
    @given(st.lists(st.one_of(STEPS, st.integers(1, 20)), max_size=8))
    def test_size(self, steps: list[list[tuple[bool, bytes]] | int]) -> None:
        """`size` is what is held: it grows by what is added, falls by what leaves, and ends at nothing."""
        outbox = Outbox(LineFraming(100), unfit)
        for step in steps:
            if isinstance(step, int):
                outbox.next_piece(step)
            else:
                for is_reply, data in step:
                    before = outbox.size
                    if is_reply:
                        outbox.add_reply(data)
                        self.assertEqual(outbox.size, before + len(data))
                    else:
                        outbox.add_frame(data)
                        self.assertGreaterEqual(outbox.size, before + len(data))
        left = outbox.size
        total = sum(map(len, emptied(outbox, 7)))
        self.assertGreaterEqual(total, left)  # by the framing of replies that had none yet
        self.assertEqual(outbox.size, 0)
        self.assertFalse(outbox.broken)

    @law
    @given(st.lists(st.sampled_from([b"a", b"bc", b"d" * 30]), max_size=12), st.integers(1, 40))
    def test_broken(self, frames: list[bytes], size: int) -> None:
        """`broken` says whether the last piece ended within a frame."""
        outbox, ends, place = Outbox(LineFraming(100), unfit), {0}, 0
        for frame in frames:
            outbox.add_frame(frame)
            ends.add(max(ends) + len(frame))
        while outbox:
            place += len(outbox.next_piece(size))
            self.assertEqual(outbox.broken, place not in ends)


class Cases(SynchronousTestCase):
    def outbox(self) -> Outbox:
        return Outbox(LineFraming(100), unfit)

    def test_empty(self) -> None:
        """An empty outbox is false, holds nothing, and gives nothing."""
        outbox = self.outbox()
        self.assertFalse(outbox)
        self.assertEqual(outbox.size, 0)
        self.assertEqual(outbox.next_piece(10), b"")

    def test_empty_reply(self) -> None:
        """A reply of no bytes is something to send: its framing."""
        outbox = self.outbox()
        outbox.add_reply(b"")
        self.assertTrue(outbox)
        self.assertEqual(outbox.next_piece(10), b"\n")
        self.assertFalse(outbox)

    def test_replies_before_frame(self) -> None:
        """Replies added before a frame leave before it."""
        outbox = self.outbox()
        outbox.add_reply(b"one")
        outbox.add_frame(b"frame\n")
        outbox.add_reply(b"two")
        self.assertEqual(outbox.next_piece(100), b"one\nframe\ntwo\n")

    def test_frame_is_not_copied(self) -> None:
        """A single frame that fits leaves as the very object that came, for a broadcast to thousands."""
        outbox, frame = self.outbox(), b"frame" * 100
        outbox.add_frame(frame)
        self.assertIs(outbox.next_piece(1000), frame)

    def test_rest_is_not_copied(self) -> None:
        """What is left of a large frame is a view of it, so that it is not copied once per piece."""
        outbox, frame = self.outbox(), b"x" * 1000
        outbox.add_frame(frame)
        for left in (900, 800, 700):
            self.assertEqual(len(outbox.next_piece(100)), 100)
            rest = outbox._frames[0]
            self.assertIsInstance(rest, memoryview)
            self.assertEqual(len(rest), left)
            self.assertIs(memoryview(rest).obj, frame)

    def test_one_unfit(self) -> None:
        """Of several replies only the one that the framing cannot carry is replaced; its error is given once."""
        errors: list[str] = []

        def told(error: HandlerError) -> bytes:
            errors.append(str(error))
            return b"\3ERR"

        outbox = Outbox(Int8Framing(1000), told)
        for reply in (b"a", b"x" * 256, b"b"):
            outbox.add_reply(reply)
        self.assertEqual(outbox.next_piece(100), b"\1a\3ERR\1b")
        self.assertEqual(len(errors), 1)
        self.assertIn("255", errors[0])

    def test_clear(self) -> None:
        """clear() forgets replies, frames and the broken one."""
        outbox = self.outbox()
        outbox.add_frame(b"x" * 100)
        outbox.next_piece(10)
        outbox.add_reply(b"reply")
        self.assertTrue(outbox.broken)
        outbox.clear()
        self.assertFalse(outbox)
        self.assertFalse(outbox.broken)
        self.assertEqual((outbox.size, outbox.next_piece(10)), (0, b""))
