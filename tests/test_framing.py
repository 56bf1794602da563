"""Framing: the laws that every framing keeps, each told to hypothesis, and what is particular to one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import BadMessage, ConfigurationError, HandlerError, Refusal, TooLong
from mtserver.framing import FRAMINGS, Framing, framing_named
from mtserver.framing.lengths import Int8Framing, Int16Framing, Int32Framing, LengthFraming
from mtserver.framing.line import LineFraming
from mtserver.framing.netstring import NetstringFraming
from tests.controls import ControlCase

# The laws stand in one class and run in one subclass per framing: that is what `differing_executors` asks about.
law = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])

#: Rich in what framings are made of, so that random bytes are often nearly right.
TELLING = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\0", b"\1", b"\3", b"\xff", b"0", b"1", b"9", b":", b",", b"-", b"a"]),
    max_size=30,
).map(b"".join)
NOISE = st.one_of(TELLING, st.binary(max_size=40))


def drained(framing: Framing, limit: int = 1000) -> list[bytes]:
    """All that can be taken now, `limit` at a time."""
    messages: list[bytes] = []
    while taken := framing.take(limit):
        assert len(taken) <= limit
        messages += taken
    return messages


def fed(framing: Framing, pieces: Iterable[bytes], limit: int = 1000) -> list[bytes]:
    """Feed pieces and take after each; return all messages."""
    messages: list[bytes] = []
    for piece in pieces:
        framing.feed(piece)
        messages += drained(framing, limit)
    return messages


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` in pieces, cut at these places; empty pieces too, where two cuts coincide."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


def outcome(framing: Framing) -> tuple[str, str, bool] | None:
    error = framing.error
    return None if error is None else (error.code, error.text, error.closes)


CUTS = st.lists(st.integers(0, 120), max_size=12)


# The laws themselves are not a test case, so that neither runner runs them without a framing.
if TYPE_CHECKING:
    _Laws = SynchronousTestCase
else:
    _Laws = object


class Laws(_Laws):
    """Laws of every framing: those of the package's docstring, and those that the session builds on."""

    make: ClassVar[type[Framing]]
    #: The most bytes of framing that may have to be held with an unfinished message of `max_message` bytes.
    overhead: ClassVar[int]

    def messages(self, most: int) -> st.SearchStrategy[list[bytes]]:
        """Messages of up to `most` bytes that this framing carries."""
        return st.lists(st.one_of(st.binary(max_size=most), st.binary(min_size=most, max_size=most)), max_size=8)

    def streams(self, most: int) -> st.SearchStrategy[bytes]:
        """Streams of a client: good messages, too long ones, and rubbish before, between and after them."""
        good = self.messages(most).map(self.make(most).encode)
        long = self.messages(most + 3).map(self.make(most).encode)
        return st.lists(st.one_of(good, good, long, NOISE), max_size=4).map(b"".join)

    @law
    @given(st.data(), st.integers(1, 20), CUTS, st.integers(1, 5))
    def test_splits(self, data: Any, most: int, cuts: list[int], limit: int) -> None:
        """Any split of the same bytes gives the same messages, and the same refusal if there is one."""
        stream = data.draw(self.streams(most))
        whole, dribbled, pieces = self.make(most), self.make(most), self.make(most)
        expected = fed(whole, [stream])
        self.assertEqual(fed(pieces, split(stream, cuts), limit), expected)
        self.assertEqual(fed(dribbled, split(stream, range(len(stream)))), expected)
        self.assertEqual(outcome(pieces), outcome(whole))
        self.assertEqual(outcome(dribbled), outcome(whole))
        self.assertEqual(pieces.unfinished, whole.unfinished)
        self.assertEqual(dribbled.unfinished, whole.unfinished)

    @law
    @given(st.data(), st.integers(1, 20), CUTS, st.lists(st.integers(1, 3), max_size=20))
    def test_limits(self, data: Any, most: int, cuts: list[int], limits: list[int]) -> None:
        """However many are taken at a time, and however late, the messages are the same."""
        stream = data.draw(self.streams(most))
        whole, late = self.make(most), self.make(most)
        expected = fed(whole, [stream])
        taken: list[bytes] = []
        pieces = iter(split(stream, cuts))
        for limit in limits:
            late.feed(next(pieces, b""))
            some = late.take(limit)
            self.assertLessEqual(len(some), limit)
            taken += some
        for piece in pieces:
            late.feed(piece)
        self.assertEqual(taken + drained(late, 2), expected)
        self.assertEqual(outcome(late), outcome(whole))

    @law
    @given(st.data(), st.integers(1, 300), CUTS)
    def test_identity(self, data: Any, most: int, cuts: list[int]) -> None:
        """Messages that one side encodes are those that the other side takes."""
        messages = data.draw(self.messages(min(most, 255)))
        framing = self.make(most)
        self.assertEqual(fed(framing, split(framing.encode(messages), cuts)), messages)
        self.assertIsNone(framing.error)
        self.assertFalse(framing.unfinished)
        self.assertEqual(framing.buffered, 0)

    @law
    @given(st.data(), st.integers(1, 20))
    def test_together(self, data: Any, most: int) -> None:
        """Messages encoded together are the same bytes as messages encoded one by one."""
        messages = data.draw(self.messages(most))
        framing = self.make(most)
        self.assertEqual(framing.encode(messages), b"".join(framing.encode([message]) for message in messages))

    @law
    @given(st.lists(NOISE, max_size=8), st.integers(1, 20))
    def test_noise(self, pieces: list[bytes], most: int) -> None:
        """Random bytes lead to messages within the limit, or to one refusal that closes, and never to an exception."""
        framing = self.make(most)
        for message in fed(framing, pieces):
            self.assertLessEqual(len(message), most)
        if framing.error is not None:
            self.assertIsInstance(framing.error, Refusal)
            self.assertIn(framing.error.code, ("too-long", "bad-message"))
            self.assertTrue(framing.error.closes)

    @law
    @given(st.lists(st.one_of(NOISE, st.binary(min_size=100, max_size=200)), max_size=8), st.integers(1, 20))
    def test_memory(self, pieces: list[bytes], most: int) -> None:
        """Bytes held are those fed and not taken; when all is taken, at most one unfinished message."""
        framing = self.make(most)
        for piece in pieces:
            before = framing.buffered
            framing.feed(piece)
            self.assertLessEqual(framing.buffered, before + len(piece))
            drained(framing)
            self.assertLessEqual(framing.buffered, most + self.overhead)

    @law
    @given(st.lists(NOISE, max_size=8), NOISE, st.integers(1, 20))
    def test_after_refusal(self, pieces: list[bytes], more: bytes, most: int) -> None:
        """After a refusal nothing is held, nothing more is taken, and the refusal stays."""
        framing = self.make(most)
        fed(framing, [*pieces, self.make(most).encode([b"x" * (most + 1)])])
        error = framing.error
        assume(error is not None)
        framing.feed(more)
        self.assertEqual(framing.take(10), [])
        self.assertEqual(framing.buffered, 0)
        self.assertFalse(framing.unfinished)
        self.assertTrue(framing.error is error)

    @law
    @given(st.lists(NOISE, max_size=4), st.data(), st.integers(1, 20))
    def test_clear(self, pieces: list[bytes], data: Any, most: int) -> None:
        """After clear() nothing is held, and what comes next is read as if nothing had been before."""
        framing = self.make(most)
        for piece in pieces:
            framing.feed(piece)
            framing.take(1)
        framing.clear()
        self.assertEqual(framing.buffered, 0)
        self.assertFalse(framing.unfinished)
        self.assertEqual(framing.take(10), [])
        if framing.error is None:
            messages = data.draw(self.messages(most))
            self.assertEqual(fed(framing, [framing.encode(messages)]), messages)

    @law
    @given(st.data(), st.integers(1, 20), st.integers(1, 8))
    def test_split_complete(self, data: Any, most: int, limit: int) -> None:
        """split_complete() gives what feed and take would, where they would hold nothing after it; else None."""
        stream = data.draw(st.one_of(self.streams(most), self.messages(most).map(self.make.encode), NOISE))
        messages = self.make.split_complete(stream, most, limit)
        if messages is None:
            return
        framing = self.make(most)
        framing.feed(stream)
        self.assertEqual(framing.take(limit), messages)
        self.assertEqual(framing.take(limit), [])
        self.assertTrue(framing.is_idle)
        self.assertIsNone(framing.error)
        self.assertEqual(framing.buffered, 0)
        self.assertLessEqual(len(messages), limit)

    @law
    @given(st.lists(NOISE, max_size=8), st.integers(1, 20), st.integers(1, 3))
    def test_idle(self, pieces: list[bytes], most: int, limit: int) -> None:
        """One that is idle reads on as a new one would: it may be dropped, and made again when it is needed."""
        framing, new = self.make(most), self.make(most)
        for piece in pieces:
            framing.feed(piece)
            while framing.take(limit):
                pass
            if framing.is_idle:
                self.assertEqual((framing.buffered, framing.unfinished, framing.error), (0, False, None))
                break
        else:
            return
        for piece in pieces:
            self.assertEqual(fed(framing, [piece]), fed(new, [piece]))
        self.assertEqual((outcome(framing), framing.buffered), (outcome(new), new.buffered))

    def test_not_idle(self) -> None:
        """A framing is idle once all is taken: not with a message begun, one not taken, or an error."""
        data = self.make.encode([b"one", b"two"])
        framing = self.make(10)
        self.assertTrue(framing.is_idle)
        framing.feed(data[:-1])
        self.assertFalse(framing.is_idle)
        self.assertEqual(drained(framing), [b"one"])
        self.assertFalse(framing.is_idle)
        self.assertEqual(fed(framing, [data[-1:]]), [b"two"])
        self.assertTrue(framing.is_idle)
        fed(framing, [self.make.encode([b"x" * 11])])
        self.assertIsNotNone(framing.error)
        self.assertFalse(framing.is_idle)

    def test_encode_needs_no_instance(self) -> None:
        """Encoding needs no instance."""
        self.assertEqual(self.make.encode([b"a", b"b"]), self.make(1).encode([b"a", b"b"]))

    def test_slots(self) -> None:
        """Many connections may be in the middle of a message: theirs has no dictionary."""
        self.assertFalse(hasattr(self.make(10), "__dict__"))

    def test_nothing(self) -> None:
        """A framing that was fed nothing has no message, no error, and nothing begun."""
        framing = self.make(10)
        framing.feed(b"")
        self.assertEqual(framing.take(10), [])
        self.assertIsNone(framing.error)
        self.assertFalse(framing.unfinished)
        self.assertEqual(framing.encode([]), b"")

    def test_limit_of_size(self) -> None:
        """A message of exactly max_message bytes is taken; one byte more is refused, after those before it."""
        framing = self.make(10)
        self.assertEqual(fed(framing, [framing.encode([b"a", b"b" * 10, b"c"])]), [b"a", b"b" * 10, b"c"])
        self.assertEqual(fed(framing, [framing.encode([b"a", b"b" * 11, b"c"])]), [b"a"])
        self.assertIsInstance(framing.error, TooLong)
        self.assertEqual(outcome(framing), ("too-long", "a message may have at most 10 bytes", True))

    def test_error_waits_for_its_turn(self) -> None:
        """The messages before a violation can be taken one by one; until the last has been, there is no error."""
        framing = self.make(3)
        framing.feed(framing.encode([b"a", b"b", b"long"]))
        self.assertEqual(framing.take(1), [b"a"])
        self.assertIsNone(framing.error)
        self.assertEqual(framing.take(1), [b"b"])
        self.assertEqual(framing.take(1), [])
        self.assertIsInstance(framing.error, TooLong)

    def test_unfinished(self) -> None:
        """A message has begun with its first byte and ended with its last."""
        framing = self.make(10)
        data = framing.encode([b"message"])
        for index in range(len(data) - 1):
            self.assertEqual(fed(framing, [data[index : index + 1]]), [])
            self.assertTrue(framing.unfinished)
            self.assertEqual(framing.buffered, index + 1)
        self.assertEqual(fed(framing, [data[-1:]]), [b"message"])
        self.assertFalse(framing.unfinished)
        self.assertEqual(framing.buffered, 0)

    def test_many_empty(self) -> None:
        """A million empty messages in one piece are a million messages."""
        framing = self.make(10)
        framing.feed(framing.encode([b""]) * 1_000_000)
        count = 0
        while messages := framing.take(50_000):
            self.assertFalse(any(messages))
            count += len(messages)
        self.assertEqual(count, 1_000_000)
        self.assertEqual(framing.buffered, 0)


def _one_line(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r").rstrip(b"\r")


class Line(Laws, SynchronousTestCase):
    make = LineFraming
    overhead = 1  # what may be the CR of a CRLF

    def messages(self, most: int) -> st.SearchStrategy[list[bytes]]:
        """No LF within a line; and no CR at its end, since CRLF ends a line too."""
        line = st.one_of(TELLING.map(lambda data: data[:most]), st.binary(max_size=most)).map(_one_line)
        long = st.binary(min_size=most, max_size=most).map(lambda data: _one_line(data[:-1]) + b"$")
        return st.lists(st.one_of(line, long), max_size=8)

    def test_crlf(self) -> None:
        """LF and CRLF both end a line; the CR is no part of it."""
        self.assertEqual(fed(LineFraming(10), [b"one\r\ntwo\nthree\r\n"]), [b"one", b"two", b"three"])

    def test_cr_before(self) -> None:
        """A CR that came with the previous segment is dropped all the same."""
        self.assertEqual(fed(LineFraming(10), [b"one\r", b"\n", b"two\r", b"\nthree\n"]), [b"one", b"two", b"three"])

    def test_other_cr(self) -> None:
        """A CR elsewhere belongs to the message: of two at the end one, and any that no LF follows."""
        self.assertEqual(fed(LineFraming(10), [b"a\rb\n\rc\nd\r\r\n\r\n"]), [b"a\rb", b"\rc", b"d\r", b""])
        self.assertEqual(fed(LineFraming(10), [b"a\r", b"b\n"]), [b"a\rb"])

    def test_cr_of_a_reply(self) -> None:
        """A reply that ends with CR is sent as it is: a handler whose clients want CRLF gives it to them so."""
        self.assertEqual(LineFraming(10).encode([b"OK\r", b""]), b"OK\r\n\n")

    def test_exact_with_cr(self) -> None:
        """The CR of a CRLF does not count: max_message bytes and CRLF fit, whole and byte by byte."""
        for data in (b"12345\n", b"12345\r\n"):
            for pieces in ([data], split(data, range(len(data)))):
                framing = LineFraming(5)
                self.assertEqual(fed(framing, pieces), [b"12345"])
                self.assertIsNone(framing.error)

    def test_one_more(self) -> None:
        """One byte more than max_message is refused, with LF, with CRLF, whole and byte by byte."""
        for data in (b"123456\n", b"123456\r\n", b"12345\r\r\n", b"12345\r6\n"):
            for pieces in ([data], split(data, range(len(data)))):
                framing = LineFraming(5)
                self.assertEqual(fed(framing, pieces), [])
                self.assertIsInstance(framing.error, TooLong)

    def test_dribbled_without_end(self) -> None:
        """A line that never ends is refused as soon as it cannot fit any more, and is not kept."""
        framing = LineFraming(5)
        self.assertEqual(fed(framing, [b"x"] * 5), [])
        self.assertIsNone(framing.error)
        self.assertEqual(fed(framing, [b"x"]), [])
        self.assertIsInstance(framing.error, TooLong)
        self.assertEqual(framing.buffered, 0)

    def test_cr_that_was_none(self) -> None:
        """A byte over the limit is forgiven while it may be a CRLF's CR, and not once something else follows."""
        framing = LineFraming(5)
        self.assertEqual(fed(framing, [b"12345\r"]), [])
        self.assertIsNone(framing.error)
        self.assertEqual(framing.buffered, 6)
        self.assertEqual(fed(framing, [b"6"]), [])
        self.assertIsInstance(framing.error, TooLong)

    def test_tail_after_lines(self) -> None:
        """An over-long line without its end is refused also where whole lines came with it, and they are delivered."""
        framing = LineFraming(5)
        self.assertEqual(fed(framing, [b"one\ntwo\n1234567"]), [b"one", b"two"])
        self.assertIsInstance(framing.error, TooLong)

    def test_long_after_limit(self) -> None:
        """A line that is too long is refused also where more lines follow it than are taken at a time."""
        framing = LineFraming(5)
        framing.feed(b"a\n1234567\nb\nc\n")
        self.assertEqual(framing.take(2), [b"a"])
        self.assertIsInstance(framing.error, TooLong)
        self.assertEqual(framing.take(2), [])

    def test_split_complete_lines(self) -> None:
        """The shortcut sees whole lines, with LF and CRLF, also empty ones."""
        self.assertEqual(LineFraming.split_complete(b"one\n", 10, 5), [b"one"])
        self.assertEqual(
            LineFraming.split_complete(b"a\r\n\n\r\nb\r\r\nc\rd\n", 20, 5), [b"a", b"", b"", b"b\r", b"c\rd"]
        )

    def test_split_incomplete(self) -> None:
        """The shortcut leaves the beginning of a line to an instance, and the CR whose LF has not come."""
        for data in (b"one", b"one\ntwo", b"one\n\r", b"\r"):
            self.assertIsNone(LineFraming.split_complete(data, 10, 5), data)

    def test_split_complete_limit(self) -> None:
        """The shortcut gives at most the lines asked for, and leaves all to an instance where there are more."""
        self.assertEqual(LineFraming.split_complete(b"a\n" * 5, 10, 5), [b"a"] * 5)
        self.assertIsNone(LineFraming.split_complete(b"a\n" * 6, 20, 5))

    def test_split_complete_too_long(self) -> None:
        """The shortcut takes no line of more than max_message bytes, wherever it stands and however it ends."""
        for data in (b"123456\n", b"123456\r\n", b"a\n123456\n", b"123456\na\n", b"12345\r\r\n"):
            self.assertIsNone(LineFraming.split_complete(data, 5, 5), data)
        self.assertEqual(LineFraming.split_complete(b"1234\n", 5, 5), [b"1234"])

    def test_newline_refused(self) -> None:
        """A reply with a newline is refused, since its reader would see two; the error says what to do."""
        framing = LineFraming(10)
        for messages in ([b"a\nb"], [b"\n"], [b"ok", b"a\n"]):
            error = self.assertRaises(HandlerError, framing.encode, messages)
            said = "this framing cannot carry the message: a line cannot hold a newline; send one message per line"
            self.assertEqual(str(error), said)

    def test_linear(self) -> None:
        """A line in one-byte segments is searched once: each take leaves no byte that the next would search."""
        framing = LineFraming(10_000)
        for _ in range(10_000):
            framing.feed(b"x")
            self.assertEqual(framing.take(10), [])
            self.assertEqual(len(framing._fresh), 0)
        self.assertEqual(fed(framing, [b"\n"]), [b"x" * 10_000])

    def test_pieces_are_not_copied(self) -> None:
        """Behind a slow handler each piece is appended to those before it, which are not copied once more."""
        framing = LineFraming(10)
        framing.feed(b"one\n")
        framing.feed(b"two\n")
        held = framing._fresh
        for _ in range(10):
            framing.feed(b"more\n")
            self.assertIs(framing._fresh, held)

    def test_one_read_is_not_copied(self) -> None:
        """A single piece is kept as it came; only a second one makes a copy."""
        framing = LineFraming(10)
        data = b"one\n"
        framing.feed(data)
        self.assertIs(framing._fresh, data)
        framing.feed(b"two\n")
        self.assertEqual(framing.take(10), [b"one", b"two"])


class _Netstring(NetstringFraming):
    """Counts how often it looks at a header."""

    __slots__ = ("looks",)

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        self.looks = 0

    def _header(self, data: bytes, position: int) -> tuple[int, int] | None:
        self.looks += 1
        return super()._header(data, position)


class _Int32(Int32Framing):
    """Counts how often it looks at a header."""

    __slots__ = ("looks",)

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        self.looks = 0

    def _header(self, data: bytes, position: int) -> tuple[int, int] | None:
        self.looks += 1
        return super()._header(data, position)


class Lengths(SynchronousTestCase):
    """Laws of framings with a length before the message."""

    def test_linear(self) -> None:
        """A long message in one-byte segments is looked at once per byte of its header and once when complete."""
        for framing, header in ((_Netstring(20_000), 6), (_Int32(20_000), 4)):
            message = b"x" * 20_000
            data = framing.encode([message])
            self.assertEqual(fed(framing, split(data, range(1, len(data)))), [message])
            self.assertEqual(framing.looks, header + 1)

    def test_linear_after_others(self) -> None:
        """The same holds for a message whose beginning came together with whole ones."""
        for framing in (_Netstring(20_000), _Int32(20_000)):
            before, data = framing.encode([b"a", b"b"]), framing.encode([b"x" * 20_000])
            self.assertEqual(fed(framing, [before + data[:10]]), [b"a", b"b"])
            looks = framing.looks
            self.assertEqual(fed(framing, split(data[10:], range(1, len(data)))), [b"x" * 20_000])
            self.assertEqual(framing.looks, looks + 1)

    def test_waiting_ends_with_the_message(self) -> None:
        """Having waited for a long message, a framing reads the short one behind it at once."""
        for make in (NetstringFraming, Int8Framing, Int16Framing, Int32Framing):
            framing: LengthFraming = make(100)
            data = framing.encode([b"x" * 100])
            self.assertEqual(fed(framing, [data[:5], data[5:], framing.encode([b"y"])]), [b"x" * 100, b"y"])

    def test_clear_forgets_what_it_waits_for(self) -> None:
        """clear() within a message makes the next byte the first of a header."""
        framing = Int8Framing(100)
        self.assertEqual(fed(framing, [b"\x64abc"]), [])
        framing.clear()
        self.assertEqual(fed(framing, [b"\0"]), [b""])


class Headers(SynchronousTestCase):
    def test_incomplete_behind_messages(self) -> None:
        """Behind a message, an incomplete header is waited for and no more: a short message behind it is not kept."""
        framing = Int16Framing(10)
        self.assertEqual(fed(framing, [b"\x00\x03abc\x00"]), [b"abc"])
        self.assertEqual(fed(framing, [b"\x01x"]), [b"x"])


class Netstring(Laws, SynchronousTestCase):
    make = NetstringFraming
    overhead = 3  # two digits and the colon; without the comma the message is not complete

    def test_wire(self) -> None:
        """The bytes are those of the specification."""
        self.assertEqual(NetstringFraming(20).encode([b"hello world!", b""]), b"12:hello world!,0:,")

    def test_invalid(self) -> None:
        """Bytes that are no netstring lose the framing at the first byte that shows it, whole and byte by byte."""
        for data in (b"00:,", b"03:abc,", b":,", b"-1:a,", b"+1:a,", b" 1:a,", b"1 :a,", b"a", b"1;a,", b"\n", b","):
            for pieces in ([data], split(data, range(len(data)))):
                framing = NetstringFraming(20)
                self.assertEqual(fed(framing, [b"2:ok,", *pieces]), [b"ok"])
                self.assertIsInstance(framing.error, BadMessage)
                self.assertEqual(outcome(framing), ("bad-message", "the framing is lost", True))

    def test_no_colon(self) -> None:
        """A length that something else than a colon follows is refused without waiting for the message."""
        framing = NetstringFraming(20)
        self.assertEqual(fed(framing, [b"5"]), [])
        self.assertIsNone(framing.error)
        self.assertEqual(fed(framing, [b"x"]), [])
        self.assertIsInstance(framing.error, BadMessage)

    def test_wrong_comma(self) -> None:
        """Another byte in place of the comma loses the framing; the message before it is not delivered."""
        framing = NetstringFraming(20)
        self.assertEqual(fed(framing, [b"1:a,3:abcd3:abc,"]), [b"a"])
        self.assertIsInstance(framing.error, BadMessage)

    def test_huge_digits(self) -> None:
        """A length of a million digits is too long, and is refused without being parsed."""
        framing = NetstringFraming(65536)
        self.assertEqual(fed(framing, [b"9" * 1_000_000]), [])
        self.assertIsInstance(framing.error, TooLong)

    def test_refused_before_colon(self) -> None:
        """Digits that are over the limit are refused before the colon: more of them can only make it worse."""
        framing = NetstringFraming(65536)
        self.assertEqual(fed(framing, [b"6", b"5", b"5", b"3", b"6"]), [])
        self.assertIsNone(framing.error)
        self.assertEqual(fed(framing, [b"0"]), [])
        self.assertIsInstance(framing.error, TooLong)


class Int8(Laws, SynchronousTestCase):
    make = Int8Framing
    overhead = 0  # the header makes up for the byte that is missing

    def test_wire(self) -> None:
        """One byte of length, then the message."""
        self.assertEqual(Int8Framing(255).encode([b"abc", b"", b"x" * 255]), b"\3abc\0\xff" + b"x" * 255)

    def test_too_long_to_send(self) -> None:
        """More than 255 bytes cannot be sent; the error says how many can."""
        error = self.assertRaises(HandlerError, Int8Framing(1000).encode, [b"a", b"x" * 256])
        self.assertIn("more than 255 bytes", str(error))


class Int16(Laws, SynchronousTestCase):
    make = Int16Framing
    overhead = 1

    def test_wire(self) -> None:
        """Two bytes of length, the high one first."""
        self.assertEqual(Int16Framing(300).encode([b"abc", b"x" * 258]), b"\0\3abc\1\2" + b"x" * 258)

    def test_too_long_to_send(self) -> None:
        """More than 65535 bytes cannot be sent."""
        self.assertRaises(HandlerError, Int16Framing(100_000).encode, [b"x" * 65536])
        self.assertEqual(len(Int16Framing(100_000).encode([b"x" * 65535])), 65537)


class Int32(Laws, SynchronousTestCase):
    make = Int32Framing
    overhead = 3

    def test_wire(self) -> None:
        """Four bytes of length, the highest first."""
        self.assertEqual(Int32Framing(70_000).encode([b"abc"]), b"\0\0\0\3abc")
        self.assertEqual(Int32Framing(70_000).encode([b"x" * 66_051])[:4], b"\0\1\2\3")

    def test_four_gigabytes(self) -> None:
        """A header that announces 4 GiB is refused by itself; nothing is waited for or held."""
        framing = Int32Framing(65536)
        self.assertEqual(fed(framing, [b"\xff\xff\xff"]), [])
        self.assertIsNone(framing.error)
        self.assertEqual(fed(framing, [b"\xff"]), [])
        self.assertIsInstance(framing.error, TooLong)
        self.assertEqual(framing.buffered, 0)


class Names(SynchronousTestCase):
    """The choices of --framing."""

    def test_named(self) -> None:
        """Each name means its framing, and each of them can be made."""
        self.assertEqual(list(FRAMINGS), ["line", "netstring", "int8", "int16", "int32"])
        for name, make in FRAMINGS.items():
            self.assertIs(framing_named(name), make)
            self.assertEqual(make(10).max_message, 10)

    def test_unknown(self) -> None:
        """Another name is the operator's mistake; the error lists those there are."""
        error = self.assertRaises(ConfigurationError, framing_named, "json")
        self.assertEqual(str(error), "no framing is called 'json'; there are line, netstring, int8, int16, int32")


class Controls(ControlCase):
    def test_over_long_in_one_read(self) -> None:
        """P8: the shortcut for whole lines takes any length."""
        right = LineFraming.split_complete
        with self.noticed_by(Line, "test_split_complete_too_long"):
            self.patch(LineFraming, "split_complete", lambda data, _most, limit: right(data, 1 << 40, limit))

    def test_over_long_announced(self) -> None:
        """P8: as much is waited for as a peer announces in binary."""
        with self.noticed_by(Int32, "test_limit_of_size"):
            self.ignore(Framing, "max_message", 1 << 40)
