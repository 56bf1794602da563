"""Acknowledgements: what each says, in text and in the encodings of typed messages."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.acks import ACCEPTED, DURABLE, LEVELS, REPLICATED, Ack, Acks
from mtserver.codecs import BytesCodec, JsonCodec, MsgpackCodec, TextCodec

SAID = {
    Ack(7): (b"OK 7", {"ok": 7}),
    Ack(7, True): (b"OK 7 dup", {"ok": 7, "dup": True}),
    Ack(7, level=ACCEPTED): (b"OK 7 accepted", {"ok": 7, "level": "accepted"}),
    Ack(7, level=REPLICATED): (b"OK 7 replicated", {"ok": 7, "level": "replicated"}),
    Ack(7, id="a.1"): (b"OK 7 @a.1", {"ok": 7, "id": "a.1"}),
    Ack(7, True, ACCEPTED): (b"OK 7 accepted dup", {"ok": 7, "level": "accepted", "dup": True}),
    Ack(7, False, ACCEPTED, "x"): (b"OK 7 accepted @x", {"ok": 7, "level": "accepted", "id": "x"}),
}


class Telling(SynchronousTestCase):
    def test_text(self) -> None:
        """The number, and behind it what there is to say beyond it; durable goes without saying."""
        for ack, (text, _) in SAID.items():
            self.assertEqual(bytes(ack), text)

    def test_codecs(self) -> None:
        """A handler of whatever type may return one: text where messages are text, an object where they are typed."""
        for ack, (text, said) in SAID.items():
            for plain in (BytesCodec(), TextCodec()):
                self.assertEqual(plain.encode_reply(ack), text)
                self.assertEqual(plain.encode(ack), text)
            self.assertEqual(msgspec.json.decode(JsonCodec(int, str).encode_reply(ack)), said)
            self.assertEqual(msgspec.msgpack.decode(MsgpackCodec(int, str).encode(ack)), said)


class Several(SynchronousTestCase):
    @given(
        st.lists(st.integers(1, 1 << 62), max_size=20),
        st.frozensets(st.integers(0, 19)),
        st.sampled_from(LEVELS),
    )
    def test_sequence(self, sequences: list[int], duplicates: frozenset[int], level: str) -> None:
        """Acks are a sequence of acknowledgements, and their words are those of each."""
        acks = Acks(sequences, duplicates, level)
        wanted = [Ack(number, place in duplicates, level) for place, number in enumerate(sequences)]
        self.assertEqual(list(acks), wanted)
        self.assertEqual([acks[place] for place in range(len(acks))], wanted)
        self.assertEqual(acks[:], wanted)
        self.assertEqual(acks[1::2], wanted[1::2])
        self.assertEqual(acks.words(), [bytes(ack) for ack in wanted])
        if wanted:
            self.assertEqual(acks[-1], wanted[-1])

    def test_usual(self) -> None:
        """The usual ones, all durable and new, take a shorter way to the same words."""
        acks = Acks([7, 9], frozenset(), DURABLE)
        self.assertEqual(acks.words(), [b"OK 7", b"OK 9"])
        self.assertEqual(repr(acks), f"<Acks {[Ack(7), Ack(9)]}>")

    def test_outside(self) -> None:
        """An index beyond the last is an error."""
        with self.assertRaises(IndexError):
            Acks(range(3), frozenset(), DURABLE)[3]
