"""Typed messages: what fits a type, what does not, what it costs, and that nothing else comes out."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Never, TypedDict

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct
from twisted.trial.unittest import SynchronousTestCase

from mtserver.codecs import ENCODINGS, REFUSAL_SIZE, JsonCodec, MsgpackCodec, TypedCodec, typed
from mtserver.codecs.typed import DEPTH, HASHED_SIZE, too_deep
from mtserver.errors import BadMessage, ConfigurationError, HandlerError, Refusal, TooLong, Unavailable
from tests.controls import ControlCase

law = settings(max_examples=150, deadline=None)


class Reading(Struct, frozen=True):
    celsius: int
    name: str = ""


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Film(TypedDict, total=False):
    title: str
    year: int


class Sit(Struct, tag=True):
    on: str


class Walk(Struct, tag=True):
    to: Sit | Walk | None = None
    path: list[tuple[int, int]] = []


class Color(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int


class Fragile(Struct):
    """A type whose author's code refuses some values, and is mistaken about others."""

    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError("not below 0")
        _ = 1 // self.value


TYPES: list[Any] = [
    Any,
    int,
    float,
    bool,
    None,
    list[int],
    list[Any],
    dict[str, Any],
    dict[int, float],
    set[int],
    frozenset[tuple[int, ...]],
    bytes | None,
    Decimal,
    uuid.UUID,
    Color,
    Literal["a", 1],
    Pair,
    Point,
    Film,
    Reading,
    Sit | Walk,
    list[Reading] | Reading,
    Fragile,
    msgspec.Raw,
    Annotated[list[int], Meta(max_length=3)],
]
CODECS: list[TypedCodec] = [make(annotation) for annotation in TYPES for make in ENCODINGS.values()]

#: JSON of any kind; integers as MessagePack has them, too.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
READINGS = st.builds(Reading, st.integers(-(2**63), 2**63 - 1), st.text(max_size=10))
WALKS = st.recursive(
    st.builds(Sit, st.text(max_size=5)),
    lambda inner: st.builds(Walk, st.none() | inner, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)))),
    max_leaves=5,
)


class Laws(SynchronousTestCase):
    """Laws of each type in each encoding."""

    def only_expected(self, frame: bytes) -> None:
        for codec in CODECS:
            try:
                message = codec.decode(frame)
            except BadMessage as error:
                self.assertFalse(error.closes)
                self.assertLessEqual(len(codec.refuse(error)), REFUSAL_SIZE)
                continue
            except HandlerError:
                self.assertIs(codec._type, Fragile)
                continue
            try:
                codec.encode(message)
            except HandlerError:  # an integer that JSON may have, and MessagePack may not
                self.assertIs(type(codec), MsgpackCodec)

    @law
    @given(st.binary(max_size=60))
    def test_random_bytes(self, frame: bytes) -> None:
        """Any bytes are a message, or refused, or a mistake of the author's own code; nothing else is raised."""
        self.only_expected(frame)

    @law
    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        """Any JSON, and the same in MessagePack, is a message, refused, or a mistake of the author's own code."""
        self.only_expected(json.dumps(value).encode())
        self.only_expected(msgspec.msgpack.encode(value))

    @law
    @given(
        st.lists(st.sampled_from([*'[]{}",:\\ue\n-+.0159', "null", "NaN", "\\ud800", '"celsius":', '"type":"Walk",']))
    )
    def test_nearly_json(self, pieces: list[str]) -> None:
        """Text that is nearly JSON is a message, refused, or a mistake of the author's own code."""
        self.only_expected("".join(pieces).encode())

    @law
    @given(JSON)
    def test_identity_of_anything(self, value: Any) -> None:
        """A message that is encoded and decoded again is the same, and JSON holds no newline."""
        for make in ENCODINGS.values():
            codec = make(Any)
            self.assertEqual(codec.decode(codec.encode(value)), value)
        self.assertNotIn(b"\n", JsonCodec(Any).encode(value))

    @law
    @given(READINGS, WALKS)
    def test_identity_of_structs(self, reading: Reading, walk: Any) -> None:
        """Structs are the same after encoding and decoding, within a tagged union too."""
        for make in ENCODINGS.values():
            for codec, message in (
                (make(Reading), reading),
                (make(Sit | Walk), walk),
                (make(list[Reading]), [reading]),
            ):
                self.assertEqual(codec.decode(codec.encode(message)), message)

    @law
    @given(st.text(st.characters(codec=None), max_size=300), st.one_of(st.none(), st.floats(0, 1e308)))
    @example("x" * 300, None)
    @example('"\x00' * 150, 1e308)
    def test_refusals_fit(self, text: str, wait: float | None) -> None:
        """Every refusal is whole JSON, or MessagePack, that the framing with the shortest messages carries."""
        refusal = Refusal(text or "internal", text, retry_after=wait)
        for make in ENCODINGS.values():
            codec = make(Any)
            frame = codec.refuse(refusal)
            self.assertLessEqual(len(frame), REFUSAL_SIZE)
            self.assertLessEqual(set(codec.decode(frame)), {"error", "retry_after", "text"})
            self.assertTrue(codec.decode(frame)["text"].isprintable())


class Decoding(SynchronousTestCase):
    def test_types(self) -> None:
        """A Struct, a dataclass, a TypedDict, a union by its tag: decoded and validated in one step."""
        cases: list[tuple[Any, bytes, Any]] = [
            (Reading, b'{"celsius": 21}', Reading(21)),
            (Point, b'{"x": 1, "y": 2}', Point(1, 2.0)),
            (Film, b'{"title": "M"}', {"title": "M"}),
            (Sit | Walk, b'{"to": {"on": "a", "type": "Sit"}, "type": "Walk"}', Walk(Sit("a"))),
            (list[int], b"[1,2]", [1, 2]),
            (dict[int, bool], b'{"1": true}', {1: True}),
            (int | None, b"null", None),
            (Any, b'{"a": [1.5]}', {"a": [1.5]}),
        ]
        for annotation, frame, message in cases:
            self.assertEqual(JsonCodec(annotation).decode(frame), message)
            packed = msgspec.msgpack.encode(msgspec.json.decode(frame))
            if annotation != dict[int, bool]:
                self.assertEqual(MsgpackCodec(annotation).decode(packed), message)

    def test_refused(self) -> None:
        """A message that does not fit is refused with what was expected, and where, in msgspec's words."""
        for annotation, value, names in (
            (Reading, {"celsius": "x"}, ["int", "str", "$.celsius"]),
            (Reading, {}, ["celsius"]),
            (list[Reading], [{"celsius": 1}, 5], ["int", "$[1]"]),
            (Sit | Walk, {"type": "Run"}, ["Run", "$.type"]),
            (Fragile, {"value": -1}, ["not below 0"]),
        ):
            for make in ENCODINGS.values():
                frame = make(Any).encode(value)
                error = self.assertRaises(BadMessage, make(annotation).decode, frame)
                self.assertEqual(error.code, "bad-message")
                for name in names:
                    self.assertIn(name, error.text)

    def test_author(self) -> None:
        """A mistake in the type's own code is its author's, and the client is not blamed."""
        for make in ENCODINGS.values():
            codec = make(Fragile)
            error = self.assertRaises(HandlerError, codec.decode, make(Any).encode({"value": 0}))
            self.assertIn("making a Fragile failed: ZeroDivisionError", str(error))
            self.assertIsInstance(error.__cause__, ZeroDivisionError)


class Bounds(SynchronousTestCase):
    """Messages that could be expensive are refused before they are."""

    def refused(self, frame: bytes, annotation: Any = Any) -> str:
        error = self.assertRaises(BadMessage, JsonCodec(annotation).decode, frame)
        return str(error)

    def test_depth(self) -> None:
        """JSON nested too deep is refused, also where the type does not look, or it never ends."""
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":[', b"]}]")):
            self.assertEqual(self.refused(opening * 100_000), "nested more than 64 deep")
            self.assertEqual(self.refused(opening * 100_000 + b"1" + closing * 100_000), "nested more than 64 deep")
        deep = b"[" * DEPTH + b"]" * DEPTH
        self.assertEqual(self.refused(b'{"celsius": 1, "more": ' + deep + b"}", Reading), "nested more than 64 deep")
        JsonCodec(Any).decode(deep)

    def test_depth_of_msgpack(self) -> None:
        """MessagePack that nests too deep is refused, where Python's own limit is met."""
        for annotation in (Any, Reading, list[Any]):
            frame = b"\x91" * 16_000 + b"\x01"
            if annotation is Reading:
                frame = b"\x82\xa7celsius\x01\xa4more" + frame
            error = self.assertRaises(BadMessage, MsgpackCodec(annotation).decode, frame)
            self.assertEqual(error.text, "nested too deep")

    @law
    @given(JSON)
    def test_depth_is_exact(self, value: Any) -> None:
        """Brackets count as they nest: not those in text, nor those side by side."""

        def depth(value: Any) -> int:
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
            return 0 if inner is None else 1 + max(map(depth, inner), default=0)

        around = DEPTH - depth(value)
        frame = b'"[[{{\\"", ' * DEPTH + b"[" * around + json.dumps(value).encode() + b"]" * around
        self.assertFalse(too_deep(frame))
        self.assertTrue(too_deep(b"[" + frame + b"]"))
        self.assertFalse(too_deep(b"[]" * 1000 + b'"' + b"[" * 1000))

    def test_digits(self) -> None:
        """Integers have 4,300 digits at most, floats are finite."""
        self.refused(b"9" * 5000)
        self.assertIn("$[0]", self.refused(b"[" + b"9" * 4301 + b"]", list[int]))
        self.assertEqual(JsonCodec(Any).decode(b"9" * 4300), 10**4300 - 1)
        for frame in (b"1e999", b"9" * 5000 + b".0"):
            self.refused(frame)

    def test_numbers_that_are_none(self) -> None:
        """NaN and the infinities are not JSON. MessagePack has them."""
        for frame in (b"NaN", b"Infinity", b"-Infinity"):
            self.refused(frame)
        self.assertTrue(math.isnan(MsgpackCodec(float).decode(msgspec.msgpack.encode(math.nan))))

    def test_surrogates(self) -> None:
        """Lone surrogates are refused however they are written, and where the type does not look."""
        for text in (b'"\\ud800"', b'"\\ud800\\ud800"', b'"\\udc00"', b'"\\ud800x"', b'"\xed\xa0\x80"'):
            self.refused(text)
            self.refused(b'{"celsius": 1, "more": ' + text + b"}", Reading)
        self.assertEqual(JsonCodec(Any).decode(b'"\\ud83d\\ude00"'), "\U0001f600")

    def test_utf8(self) -> None:
        """A frame that is not UTF-8 is refused, also where nobody looks; of MessagePack, text that is kept."""
        self.assertEqual(self.refused(b'{"celsius": 1, "x": "\xff"}', Reading), "not UTF-8 at byte 21")
        for frame in (b"\xff", b'"\xc0\xaf"', b"\xff\xfe1\0"):
            self.assertEqual(self.refused(frame)[:9], "not UTF-8")
        error = self.assertRaises(BadMessage, MsgpackCodec(Any).decode, b"\xa1\xff")
        self.assertEqual(error.code, "bad-message")

    def test_same_key_twice(self) -> None:
        """The last of two equal keys counts."""
        frame = b'{"celsius": 1, "celsius": 2}'
        self.assertEqual(JsonCodec(Reading).decode(frame), Reading(2))
        self.assertEqual(JsonCodec(Any).decode(frame), {"celsius": 2})
        self.refused(b'{"celsius": "x", "celsius": 2}', Reading)

    def test_one_value(self) -> None:
        """A frame holds one value, and nothing but."""
        for frame in (b"", b" ", b"1 2", b"1,", b"[1] x", b"\xef\xbb\xbf1", b"01", b"'a'"):
            self.refused(frame)

    def test_hashes(self) -> None:
        """Values whose hashes could be chosen to collide are bounded in size; text and unhashed values are not."""
        long = b"[" + b"1," * HASHED_SIZE + b"1]"
        annotations: list[Any] = [set[int], frozenset[uuid.UUID], list[int | set[Decimal]], set[Any], dict[int, str]]
        annotations += [set[tuple[int, ...]], dict[str, set[int]], set[Reading], dict[Decimal, int]]
        for annotation in annotations:
            self.assertIn("may have at most 16384 bytes", self.refused(long, annotation))
        safe: list[Any] = [list[int], Any, dict[str, int], list[set[str]], set[Color | None], dict[Literal["a"], int]]
        for annotation in safe:
            self.assertFalse(JsonCodec(annotation)._hashes, annotation)
        for annotation in (Any, dict, list[Any], dict[str, dict[Any, int]]):
            self.assertTrue(MsgpackCodec(annotation)._hashes, annotation)
        self.assertFalse(MsgpackCodec(dict[str, list[Reading]])._hashes)


class Sending(SynchronousTestCase):
    def test_replies(self) -> None:
        """A reply is an instance of what the handler says it returns; of each kind of type."""
        cases: list[tuple[Any, list[Any], list[Any]]] = [
            (Reading, [Reading(1)], [{"celsius": 1}, 5, Sit("a")]),
            (Point, [Point(1, 2)], [(1, 2)]),
            (Film, [{"title": "M"}, {}], ["M"]),
            (Sit | Walk, [Sit("a"), Walk()], [Reading(1)]),
            (Reading | None, [Reading(1)], [5]),
            (list[int] | Refusal, [[1], (1,)], [1, "x"]),
            (Sequence[int], [[1], (1,)], [1]),
            (int, [5], [True, 5.0, "5"]),
            (float, [5.0, 5], [True, "5"]),
            (bool, [True], [1]),
            (Literal["a", 1], ["a", 1], [1.5]),
            (Color, [Color.RED], ["red"]),
            (Pair, [Pair(1, 2)], [(1, 2)]),
            (None, [], [1, "x"]),
            (None | Unavailable, [], [1]),
            (Never, [], [1]),
            (Any, [1, "x", None, Reading(1)], []),
            (Annotated[int, Meta(ge=0)], [5], ["x"]),
            (int | Any, ["x"], []),
        ]
        for annotation, good, bad in cases:
            for make in ENCODINGS.values():
                codec = make(Any, annotation)
                for reply in good:
                    self.assertEqual(codec.encode_reply(reply), codec.encode(reply))
                for reply in bad:
                    error = self.assertRaises(HandlerError, codec.encode_reply, reply)
                    self.assertIn(f"answered with {type(reply).__name__}", str(error))

    def test_words(self) -> None:
        """The error names what the handler says it returns."""
        error = self.assertRaises(HandlerError, JsonCodec(Any, Reading | None).encode_reply, 5)
        self.assertEqual(str(error), f"a handler of {__name__}.Reading | None answered with int")
        error = self.assertRaises(HandlerError, JsonCodec(Any, None).encode_reply, 5)
        self.assertEqual(str(error), "a handler of None answered with int")

    def test_subclass(self) -> None:
        """An instance of a subclass is one."""

        class Later(Reading, frozen=True):
            at: int = 0

        self.assertEqual(JsonCodec(Any, Reading).encode_reply(Later(1)), b'{"celsius":1,"name":"","at":0}')

    def test_cannot_be_sent(self) -> None:
        """A value without a form in an encoding is the handler's mistake, whatever msgspec raises."""
        endless: list[Any] = []
        endless.append(endless)
        for make in ENCODINGS.values():
            for message in (object(), "\ud800", endless, {"a": 1j}, 10**5000):
                self.assertRaises(HandlerError, make(Any).encode, message)
        self.assertRaises(HandlerError, MsgpackCodec(Any).encode, 2**64)
        self.assertRaises(HandlerError, JsonCodec(Any).encode, {(1, 2): 3})

    def test_no_number(self) -> None:
        """A float that is no number is null in JSON."""
        self.assertEqual(JsonCodec(float, float).encode_reply(math.nan), b"null")

    def test_refusals(self) -> None:
        """A refusal has the same keys in both encodings, retry_after only where there is one."""
        for refusal, said in (
            (TooLong(5), {"error": "too-long", "text": "a message may have at most 5 bytes"}),
            (Unavailable("away", retry_after=7), {"error": "unavailable", "retry_after": 7, "text": "away"}),
            (BadMessage("a\nb"), {"error": "bad-message", "text": "a\\nb"}),
        ):
            for make in ENCODINGS.values():
                self.assertEqual(make(Any).decode(make(int).refuse(refusal)), said)
        self.assertEqual(JsonCodec(Any).refuse(BadMessage("no")), b'{"error":"bad-message","text":"no"}')


class Mistakes(SynchronousTestCase):
    """Types that cannot be served."""

    def refused(self, annotation: Any, make: type[TypedCodec] = JsonCodec, reply: Any = Any) -> str:
        text = str(self.assertRaises(ConfigurationError, make, annotation, reply))
        self.assertNotIn("\n", text)
        return text

    def test_inside(self) -> None:
        """A type that nobody can read is found within others, once, also where a type refers to itself."""

        class Node(Struct):
            next: list[Node] | None
            value: complex

        Node.__annotations__["next"] = list[Node] | None
        self.assertIn("nobody knows how to read a complex", self.refused(Node))
        self.assertIn("nobody knows how to read a object", self.refused(dict[str, list[object]]))
        self.assertIn("replies of type list[complex]", self.refused(int, reply=list[complex]))

    def test_untagged(self) -> None:
        """A union that cannot be told apart is refused with the reason."""
        self.assertIn("must be tagged", self.refused(Reading | Sit))

    def test_nowhere(self) -> None:
        """A type with a field of a type that is not there is refused."""

        class Lost(Struct):
            field: Nowhere  # type: ignore[name-defined]  # noqa: F821

        self.assertIn("Nowhere", self.refused(Lost))

    def test_keys(self) -> None:
        """A dict whose keys are arrays is MessagePack, and not JSON."""
        annotation = dict[tuple[int, int], int]
        self.assertIn("are not JSON: a key is text there", self.refused(annotation))
        codec = MsgpackCodec(annotation)
        self.assertEqual(codec.decode(codec.encode({(1, 2): 3})), {(1, 2): 3})


class Controls(ControlCase):
    def test_any_depth(self) -> None:
        """P8: JSON may be nested as deep as its sender likes."""
        with self.noticed_by(Bounds, "test_depth"):
            self.patch(typed, "too_deep", lambda _frame: False)
