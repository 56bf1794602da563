"""Messages: codecs, refusals on the wire, and what makes a peer's words harmless."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from mtserver.codecs import ENCODINGS, REFUSAL_SIZE, BytesCodec, JsonCodec, MsgpackCodec, TextCodec, codec_for
from mtserver.errors import BadMessage, ConfigurationError, HandlerError, Refusal, TooLong, Unavailable
from mtserver.telemetry.escape import escape

law = settings(max_examples=150, deadline=None)


class Escape(SynchronousTestCase):
    """Escaped text cannot forge a line or drive a terminal."""

    @law
    @given(st.one_of(st.binary(max_size=50), st.text(st.characters(codec=None), max_size=50)))
    def test_printable(self, data: bytes | str) -> None:
        """Escaped text is printable and can be encoded, whatever goes in."""
        text = escape(data)
        self.assertTrue(text.isprintable())
        text.encode()

    @law
    @given(st.text(st.characters(min_codepoint=0xA0), max_size=50).filter(str.isprintable))
    def test_printable_stays(self, text: str) -> None:
        """Printable text without a backslash stays as it is, in every script."""
        self.assertEqual(escape(text), text)
        self.assertEqual(escape(text.encode()), text)

    def test_examples(self) -> None:
        """Control characters, bytes that are no UTF-8, and separators are written as escapes."""
        for data, text in (
            (b"plain", "plain"),
            ("müsli".encode(), "müsli"),
            (b"\x1b[2J", "\\x1b[2J"),
            (b"one\r\ntwo", "one\\r\\ntwo"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b"\x7f", "\\x7f"),
            ("\x9b31m", "\\x9b31m"),
            ("\u2028", "\\u2028"),
            ("\u202e", "\\u202e"),
            ("\ud800", "\\ud800"),
            ("", ""),
        ):
            self.assertEqual(escape(data), text)

    def test_backslash(self) -> None:
        """A backslash is doubled, so that nobody can type what looks like an escape."""
        self.assertEqual(escape(b"\\x1b"), "\\\\x1b")
        self.assertNotEqual(escape(b"\\n"), escape(b"\n"))


class Bytes(SynchronousTestCase):
    codec: ClassVar[BytesCodec] = BytesCodec()

    def test_as_it_came(self) -> None:
        """A frame is the message, and a message is the frame."""
        frame = b"\xff\0any"
        self.assertIs(self.codec.decode(frame), frame)
        self.assertIs(self.codec.encode(frame), frame)

    def test_bytes_like(self) -> None:
        """A bytearray and a memoryview are sent as the bytes they hold now, whatever becomes of them."""
        array = bytearray(b"abc")
        frames = [self.codec.encode(array), self.codec.encode(memoryview(array)[1:])]
        array[:] = b"xyz"
        self.assertEqual(frames, [b"abc", b"bc"])
        self.assertEqual([type(frame) for frame in frames], [bytes, bytes])

    def test_subclass(self) -> None:
        """A subclass of bytes is sent as plain bytes."""

        class Own(bytes):
            __slots__ = ()

        frame = self.codec.encode(Own(b"abc"))
        self.assertEqual((type(frame), frame), (bytes, b"abc"))

    def test_other_type(self) -> None:
        """A message of another type is the handler's mistake, sent or returned; the error names the type."""
        for message, name in (("text", "str"), (5, "int"), ([b"a"], "list")):
            error = self.assertRaises(HandlerError, self.codec.encode, message)
            self.assertEqual(str(error), f"a handler of bytes answered with {name}, not bytes")
            self.assertRaises(HandlerError, self.codec.encode_reply, message)


class Text(SynchronousTestCase):
    codec: ClassVar[TextCodec] = TextCodec()

    @law
    @given(st.text(max_size=50))
    def test_identity(self, message: str) -> None:
        """Any text comes back from the frame that carries it."""
        self.assertEqual(self.codec.decode(self.codec.encode(message)), message)

    @law
    @given(st.binary(max_size=50))
    def test_bytes(self, frame: bytes) -> None:
        """Any frame is a text that gives the same frame again, or is refused and the connection stays."""
        try:
            message = self.codec.decode(frame)
        except BadMessage as error:
            self.assertFalse(error.closes)
        else:
            self.assertEqual(self.codec.encode(message), frame)

    def test_not_utf8(self) -> None:
        """A frame that is not UTF-8 is refused with the place where it ceases to be."""
        error = self.assertRaises(BadMessage, self.codec.decode, b"ab\xffcd")
        self.assertEqual((error.code, error.text), ("bad-message", "not UTF-8 at byte 2"))

    def test_strict(self) -> None:
        """Overlong forms and encoded surrogates are no UTF-8."""
        for frame in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
            self.assertRaises(BadMessage, self.codec.decode, frame)

    def test_other_type(self) -> None:
        """Bytes from a handler of text are its mistake."""
        error = self.assertRaises(HandlerError, self.codec.encode, b"bytes")
        self.assertEqual(str(error), "a handler of str answered with bytes, not str")
        self.assertRaises(HandlerError, self.codec.encode_reply, b"bytes")

    def test_surrogate(self) -> None:
        """A lone surrogate is no text that could be sent."""
        error = self.assertRaises(HandlerError, self.codec.encode, "ab\ud800")
        self.assertEqual(str(error), "a lone surrogate at character 2 cannot be sent")


class Refusals(SynchronousTestCase):
    """ERR <code> [retry-after=<seconds>] <text>"""

    def test_words(self) -> None:
        """A refusal reads as documented, with retry-after where there is one, and the same for every codec."""
        for refusal, frame in (
            (TooLong(5), b"ERR too-long a message may have at most 5 bytes"),
            (BadMessage("not UTF-8"), b"ERR bad-message not UTF-8"),
            (Unavailable("no journal", retry_after=7), b"ERR unavailable retry-after=7 no journal"),
            (Refusal("busy", "later", retry_after=0), b"ERR busy retry-after=0 later"),
        ):
            self.assertEqual(BytesCodec().refuse(refusal), frame)
            self.assertEqual(TextCodec().refuse(refusal), frame)

    def test_escaped(self) -> None:
        """A text with newlines is still one line."""
        self.assertEqual(BytesCodec().refuse(Refusal("rate", "a\nOK 5")), b"ERR rate a\\nOK 5")

    @law
    @given(st.text(st.characters(codec=None), max_size=300), st.one_of(st.none(), st.integers(0, 10**6)))
    def test_fits(self, text: str, wait: int | None) -> None:
        """Every refusal is one line of UTF-8 that the framing with the shortest messages carries."""
        frame = BytesCodec().refuse(Refusal("unavailable", text, retry_after=wait))
        self.assertLessEqual(len(frame), REFUSAL_SIZE)
        self.assertTrue(frame.decode().isprintable())
        self.assertTrue(frame.startswith(b"ERR unavailable "))

    def test_cut(self) -> None:
        """A long text is cut between characters, never within one."""
        frame = BytesCodec().refuse(Refusal("internal", "ü" * 200))
        self.assertEqual(frame.decode(), "ERR internal " + "ü" * ((REFUSAL_SIZE - len("ERR internal ")) // 2))


class Codecs(SynchronousTestCase):
    def test_by_type(self) -> None:
        """The type of the message chooses its codec."""
        self.assertIs(type(codec_for(bytes)), BytesCodec)
        self.assertIs(type(codec_for(str)), TextCodec)

    def test_typed(self) -> None:
        """Any other type is JSON, or MessagePack where that was asked for; also of bytes and text with constraints."""
        annotations: list[Any] = [int, Any, None, list[bytes], bytes | None, Annotated[str, Meta(max_length=5)]]
        for annotation in annotations:
            self.assertIs(type(codec_for(annotation)), JsonCodec)
            self.assertIs(type(codec_for(annotation, Any, "msgpack")), MsgpackCodec)
        self.assertIs(type(codec_for(Annotated[str, "a note"])), TextCodec)

    def test_unsupported(self) -> None:
        """A type that cannot be read is named in one line, also one that cannot be a key."""
        annotations: list[tuple[Any, str]] = [(object, "object"), ({"a": int}, "{'a': <class 'int'>}"), (5, "5")]
        for annotation, name in annotations:
            for encoding in ENCODINGS:
                error = self.assertRaises(ConfigurationError, codec_for, annotation, Any, encoding)
                self.assertTrue(str(error).startswith(f"messages of type {name} are not supported"), str(error))
                self.assertNotIn("\n", str(error))
