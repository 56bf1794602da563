"""The message that a client is let in by: what is one, and what is none."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.auth.sasl import MAX_MESSAGE, MAX_TOKEN_MESSAGE, VERB, InitialResponse, SASLError, parse


def message(mechanism: bytes, response: bytes) -> bytes:
    return VERB + mechanism + b" " + base64.b64encode(response)


class Plain(SynchronousTestCase):
    def test_good(self) -> None:
        """Name and password, with the name again in front or not (RFC 4616)."""
        for response in (b"\0alice\0wonder land", b"alice\0alice\0wonder land"):
            self.assertEqual(parse(message(b"PLAIN", response)), InitialResponse("PLAIN", "alice", b"wonder land"))
        self.assertEqual(
            parse(message(b"PLAIN", "\0ålice\0".encode() + b"\xff")), InitialResponse("PLAIN", "ålice", b"\xff")
        )

    def test_bad(self) -> None:
        """NUL in odd places, parts that are missing, another's name."""
        for response in (
            b"",
            b"\0",
            b"\0\0",
            b"\0\0\0",
            b"alice\0wonder",
            b"\0alice\0",
            b"\0\0wonder",
            b"\0alice\0won\0der",
            b"\0alice\0wonder\0",
            b"\0\0alice\0wonder",
            b"bob\0alice\0wonder",
            b"\0\xff\0wonder",
        ):
            self.assertRaises(SASLError, parse, message(b"PLAIN", response))

    def test_words(self) -> None:
        """A message that is no AUTH, or not in base64, is refused."""
        good = base64.b64encode(b"\0alice\0wonder")
        for text in (
            b"",
            b"hello",
            b"AUTH",
            b"AUTH ",
            b"AUTH PLAIN",
            b"AUTH PLAIN ",
            b"auth PLAIN " + good,
            b"AUTH plain " + good,
            b"AUTH  PLAIN " + good,
            b"AUTH PLAIN " + good + b" ",
            b"AUTH PLAIN " + good + b"=",
            b"AUTH PLAIN " + good[:-1],
            b"AUTH PLAIN " + good[:4] + b"\n" + good[4:],
            b"AUTH PLAIN !" + good,
            b"AUTH PLAIN \xff",
            b"AUTH LOGIN " + good,
            b"AUTH EXTERNAL =",
            message(b"PLAIN", b"\0alice\0" + b"x" * MAX_MESSAGE),
        ):
            self.assertRaises(SASLError, parse, text)


class Bearer(SynchronousTestCase):
    def test_good(self) -> None:
        """A token, with a name or without, and what else RFC 7628 allows."""
        for response, name in (
            (b"n,,\x01auth=Bearer abc.DEF-1_2~+/==\x01\x01", ""),
            (b"y,,\x01auth=bearer abc.DEF-1_2~+/==\x01\x01", ""),
            (
                b"n,a=alice@example.com,\x01host=h\x01port=9\x01auth=Bearer  abc.DEF-1_2~+/==\x01\x01",
                "alice@example.com",
            ),
            (b"n,a=one=2Ctwo=3D,\x01auth=Bearer abc.DEF-1_2~+/==\x01x=a=b\x01\x01", "one,two="),
        ):
            wanted = InitialResponse("OAUTHBEARER", name, b"abc.DEF-1_2~+/==")
            self.assertEqual(parse(message(b"OAUTHBEARER", response)), wanted)

    def test_bad(self) -> None:
        """Channel binding, pairs that are none or are twice, tokens with odd characters, and what has no end."""
        for response in (
            b"",
            b"\x01",
            b"n,,\x01\x01",
            b"n,,\x01auth=Bearer abc\x01",
            b"n,,\x01auth=Bearer abc",
            b"auth=Bearer abc\x01\x01",
            b"p=tls-unique,,\x01auth=Bearer abc\x01\x01",
            b"n,a=,\x01auth=Bearer abc\x01\x01",
            b"n,a=x=y,\x01auth=Bearer abc\x01\x01",
            b"n,a=\xff,\x01auth=Bearer abc\x01\x01",
            b"n,,\x01auth=Basic abc\x01\x01",
            b"n,,\x01auth=Bearer\x01\x01",
            b"n,,\x01auth=Bearer a b\x01\x01",
            b"n,,\x01auth=Bearer a\0b\x01\x01",
            b"n,,\x01auth=Bearer abc\x01auth=Bearer def\x01\x01",
            b"n,,\x01auth=Bearer abc\x01=x\x01\x01",
            b"n,,\x01auth=Bearer abc\x01\x01\x01",
            b"n,,\x01auth=Bearer abc\x01no pair\x01\x01",
            b"n,,\x01auth=Bearer " + b"x" * MAX_TOKEN_MESSAGE + b"\x01\x01",
        ):
            self.assertRaises(SASLError, parse, message(b"OAUTHBEARER", response))


class Laws(SynchronousTestCase):
    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        """Random bytes, also in place of the response, are a response or a SASLError that quotes none of them."""
        for text in (data, VERB + data, message(b"PLAIN", data), message(b"OAUTHBEARER", data)):
            try:
                found = parse(text)
            except SASLError as error:
                self.assertTrue(str(error).isascii())
            else:
                self.assertTrue(found.secret)

    @given(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=100),
        st.binary(min_size=1, max_size=100).filter(lambda password: b"\0" not in password),
    )
    def test_names_and_passwords(self, name: str, password: bytes) -> None:
        """Any name and any password arrive as they were."""
        response = b"\0" + name.encode() + b"\0" + password
        self.assertEqual(parse(message(b"PLAIN", response)), InitialResponse("PLAIN", name, password))

    def test_no_secret_shown(self) -> None:
        """An attempt can be printed without its secret."""
        self.assertNotIn("wonder", repr(parse(message(b"PLAIN", b"\0alice\0wonder"))))
