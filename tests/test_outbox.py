"""The outbox: whatever is added, in whatever pieces it leaves, the reader sees the same bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.session.outbox import Outbox

law = settings(max_examples=200, deadline=None)

FRAMES = st.lists(st.sampled_from([b"", b"a", b"bc", b"d" * 30, b"e" * 100]), max_size=20)


def emptied(outbox: Outbox, size: int) -> list[bytes]:
    pieces: list[bytes] = []
    while outbox.size:
        pieces.append(outbox.next_piece(size))
    return pieces


class Law(SynchronousTestCase):
    @law
    @given(FRAMES, st.integers(1, 40))
    def test_order(self, frames: list[bytes], size: int) -> None:
        """The pieces together are all that was added, in order; all but the last are as long as asked for."""
        outbox = Outbox()
        for frame in frames:
            outbox.add(frame)
        pieces = emptied(outbox, size)
        self.assertEqual(b"".join(pieces), b"".join(frames))
        for piece in pieces:
            self.assertIs(type(piece), bytes)
            self.assertLessEqual(len(piece), size)
        for piece in pieces[:-1]:
            self.assertEqual(len(piece), size)

    @law
    @given(st.lists(st.one_of(FRAMES, st.integers(1, 60)), max_size=12))
    def test_turns(self, steps: list[list[bytes] | int]) -> None:
        """Adding and taking in any turns gives the same bytes; `size` always says what is held."""
        outbox, added, taken = Outbox(), b"", b""
        for step in steps:
            if isinstance(step, int):
                taken += outbox.next_piece(step)
            else:
                for frame in step:
                    outbox.add(frame)
                    added += frame
            self.assertEqual(outbox.size, len(added) - len(taken))
        taken += b"".join(emptied(outbox, 7))
        self.assertEqual(taken, added)
        self.assertEqual((outbox.size, outbox.ends_within_frame), (0, False))

    @law
    @given(st.lists(st.sampled_from([b"a", b"bc", b"d" * 30]), max_size=12), st.integers(1, 40))
    def test_ends_within_frame(self, frames: list[bytes], size: int) -> None:
        """`broken` says whether the last piece ended within a frame, or what was added as one."""
        outbox, ends, place = Outbox(), {0}, 0
        for frame in frames:
            outbox.add(frame)
            ends.add(max(ends) + len(frame))
        while outbox.size:
            place += len(outbox.next_piece(size))
            self.assertEqual(outbox.ends_within_frame, place not in ends)


class Cases(SynchronousTestCase):
    def test_empty(self) -> None:
        """An empty outbox holds nothing, and gives nothing."""
        outbox = Outbox()
        self.assertEqual(outbox.size, 0)
        self.assertEqual(outbox.next_piece(10), b"")
        self.assertFalse(outbox.ends_within_frame)

    def test_everything_at_once(self) -> None:
        """What fits into one piece leaves as one, however many frames it is made of."""
        outbox = Outbox()
        for frame in (b"one\n", b"two\n", b"three\n"):
            outbox.add(frame)
        self.assertEqual(outbox.next_piece(14), b"one\ntwo\nthree\n")
        self.assertEqual(outbox.size, 0)

    def test_frame_is_not_copied(self) -> None:
        """A single frame that fits leaves as the very object that came, for a broadcast to thousands."""
        outbox, frame = Outbox(), b"frame" * 100
        outbox.add(frame)
        self.assertIs(outbox.next_piece(1000), frame)

    def test_rest_is_not_copied(self) -> None:
        """What is left of a large frame is a view of it, so that it is not copied once per piece."""
        outbox, frame = Outbox(), b"x" * 1000
        outbox.add(frame)
        for left in (900, 800, 700):
            self.assertEqual(len(outbox.next_piece(100)), 100)
            rest = outbox._frames[0]
            self.assertIsInstance(rest, memoryview)
            self.assertEqual(len(rest), left)
            self.assertIs(memoryview(rest).obj, frame)

    def test_short_frames_are_joined_once(self) -> None:
        """Of thousands of short frames a piece touches those that it is made of, and leaves the others as they are."""
        outbox = Outbox()
        frames = [b"%04d" % number for number in range(1000)]
        for frame in frames:
            outbox.add(frame)
        self.assertEqual(outbox.next_piece(42), b"".join(frames)[:42])
        self.assertEqual(len(outbox._frames), 990)
        self.assertIs(outbox._frames[1], frames[11])

    def test_added_behind_the_rest(self) -> None:
        """What is added while a frame is half out leaves behind its other half, and ends the break."""
        outbox = Outbox()
        outbox.add(b"x" * 15)
        outbox.next_piece(10)
        self.assertTrue(outbox.ends_within_frame)
        outbox.add(b"y\n")
        self.assertTrue(outbox.ends_within_frame)
        self.assertEqual(outbox.next_piece(10), b"xxxxxy\n")
        self.assertFalse(outbox.ends_within_frame)

    def test_nothing_but_its_slots(self) -> None:
        """There is one per client that does not read: it has no dictionary."""
        self.assertFalse(hasattr(Outbox(), "__dict__"))
