"""Bearer tokens: those verified here, and those that their issuer is asked about."""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred

from mtserver.auth import BearerToken, introspection
from mtserver.auth import jwt as module
from mtserver.auth import keys as keys_module
from mtserver.auth.credentials import identity_from
from mtserver.auth.http import FetchError, checked_url
from mtserver.auth.introspection import Introspection
from mtserver.auth.jwt import LEEWAY, Tokens
from mtserver.auth.keys import BETWEEN, FRESH, FileKeys, PublishedKeys, algorithms, keys, without_warnings
from mtserver.errors import ConfigurationError, Refusal
from tests.authcase import AuditCase
from tests.controls import ControlCase

ISSUER, AUDIENCE = "https://issuer.example", "collector"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp"})


def claims(**other: Any) -> dict[str, Any]:
    """Claims of a good token, but for `other`; None: without that claim."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 60} | other
    return {name: value for name, value in good.items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **other: Any) -> str:
    kid = {"kid": key.kid} if key.kid else {}
    with without_warnings():
        return jwt.encode({"alg": algorithm, **kid, **(header or {})}, claims(**other), key, algorithms=[algorithm])


def by_hand(header: dict[str, Any], payload: Any, secret: bytes = b"") -> str:
    """A token that no library would make."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(payload).encode())
    signature = hmac.digest(secret, signed, hashlib.sha256) if secret else b""
    return (signed + b"." + part(signature)).decode()


def short_key() -> RSAKey:
    with without_warnings():
        return RSAKey.generate_key(1024)


class Answers:
    """An authorization server whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.waiting: list[Deferred[Any]] = []

    def __call__(self, url: str, **request: Any) -> Deferred[Any]:
        self.asked.append((url, request))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def give(self, answer: Any) -> None:
        waiting = self.waiting.pop(0)
        waiting.errback(answer) if isinstance(answer, Exception) else waiting.callback(answer)


class TokenCase(AuditCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.write(RSA, EC, OKP)

    def write(self, *public: Any) -> None:
        self.path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in public]}))

    def ask(self, checker: Any, text: str) -> Deferred[Any]:
        asked: Deferred[Any] = checker.requestAvatarId(BearerToken(text))
        return asked

    def checker(self, more: str = "") -> Tokens:
        return module.checker(f"issuer={ISSUER}:audience={AUDIENCE}:key={self.path}{more}")

    def clock(self) -> list[float]:
        """Time as the test sets it."""
        now = [1000.0]
        self.patch(time, "monotonic", lambda: now[0])
        return now


class Verifying(TokenCase):
    def test_good(self) -> None:
        """A token by one of the keys is its subject's; aud may be a list, and there may be an nbf."""
        checker = self.checker()
        for text in (
            token(),
            token(algorithm="PS384"),
            token(EC, "ES256"),
            token(OKP, "EdDSA"),
            token(aud=["other", AUDIENCE]),
            token(nbf=int(time.time()) - 5, iat=int(time.time())),
            token(header={"typ": "at+jwt"}),
        ):
            self.assertEqual(self.successResultOf(self.ask(checker, text)), b"alice")

    def test_identity(self) -> None:
        """Another claim may be the identity."""
        checker = self.checker(":identity=client_id")
        self.assertEqual(self.successResultOf(self.ask(checker, token(client_id="meter 7"))), b"meter 7")
        self.failureResultOf(self.ask(checker, token()), UnauthorizedLogin)
        self.failureResultOf(self.ask(self.checker(), token(sub=5)), UnauthorizedLogin)

    def test_claims(self) -> None:
        """Wrong or missing iss, aud, exp, sub; expired; not valid yet."""
        now = int(time.time())
        wrong: tuple[dict[str, Any], ...] = (
            {"iss": None},
            {"iss": "https://other.example"},
            {"iss": [ISSUER]},
            {"aud": None},
            {"aud": "other"},
            {"aud": ["other"]},
            {"aud": []},
            {"exp": None},
            {"exp": now - LEEWAY - 5},
            {"exp": "tomorrow"},
            {"exp": True},
            {"nbf": now + LEEWAY + 60},
            {"sub": None},
            {"sub": ""},
            {"sub": {"a": 1}},
        )
        for other in wrong:
            failure = self.failureResultOf(self.ask(self.checker(), token(**other)), UnauthorizedLogin)
            (claim,) = other
            self.assertRegex(str(failure.value), rf"the token's {claim} is missing|has no {claim}|is no text")

    def test_no_text(self) -> None:
        """A lone surrogate is no part of an identity: what stood for it might be another's."""
        self.assertRaises(UnauthorizedLogin, identity_from, "ad\ud800in", "")
        self.assertEqual(identity_from("ådmin", ""), "ådmin".encode())

    def test_leeway(self) -> None:
        """Clocks may differ by half a minute."""
        text = token(exp=int(time.time()) - LEEWAY + 10)
        self.assertEqual(self.successResultOf(self.ask(self.checker(), text)), b"alice")

    def test_algorithms(self) -> None:
        """`none`, an HMAC with the public RSA key, an algorithm of another kind of key: each refused."""
        pem = RSA.as_pem(private=False)
        good = token()
        for text in (
            by_hand({"alg": "none", "kid": "rsa"}, claims()),
            by_hand({"alg": "None"}, claims()),
            by_hand({"kid": "rsa"}, claims()),
            by_hand({"alg": "HS256", "kid": "rsa"}, claims(), pem),
            by_hand({"alg": "HS256"}, claims(), pem),
            by_hand({"alg": "ES256", "kid": "rsa"}, claims(), pem),
            by_hand({"alg": ["RS256"], "kid": "rsa"}, claims(), pem),
            by_hand({"alg": {"a": 1}, "kid": "rsa"}, claims(), pem),
            good.rpartition(".")[0] + ".",
            token(RSAKey.generate_key(2048, {"kid": "rsa"})),
        ):
            self.failureResultOf(self.ask(self.checker(), text), UnauthorizedLogin)

    def test_headers_are_not_followed(self) -> None:
        """Neither jku nor x5u nor jwk bring a key along; a path as kid opens no file; crit is not ignored."""
        stranger = RSAKey.generate_key(2048)
        for header in (
            {"jku": "https://evil.example/keys"},
            {"x5u": "https://evil.example/keys"},
            {"jwk": stranger.as_dict(private=False)},
            {"kid": "../../../../dev/null"},
            {"kid": "/etc/passwd\0"},
        ):
            text = token(stranger, header=header)
            self.failureResultOf(self.ask(self.checker(), text), UnauthorizedLogin)
        self.failureResultOf(self.ask(self.checker(), by_hand({"alg": "RS256", "kid": 5}, claims())), UnauthorizedLogin)
        unknown = by_hand({"alg": "RS256", "kid": "rsa", "crit": ["exp"], "exp": 1}, claims())
        self.failureResultOf(self.ask(self.checker(), unknown), UnauthorizedLogin)

    def test_keys_restrict_themselves(self) -> None:
        """A key that says what it is for is for that only; short ones, and those of unknown curves, are for nothing."""
        for parameters, able in (
            ({}, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
            ({"alg": "PS256"}, ("PS256",)),
            ({"alg": "HS256"}, ()),
            ({"use": "enc"}, ()),
        ):
            member: Any = {**RSA.as_dict(private=False), "use": "sig", **parameters}
            self.assertEqual(algorithms(RSAKey.import_key(member)), able)
        self.assertEqual(algorithms(short_key()), ())
        self.assertEqual(algorithms(ECKey.generate_key("secp256k1")), ())

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Text that is no token is refused, and nothing else happens."""
        part = base64.urlsafe_b64encode(data).decode()
        good = token()  # made once: it has the time in it
        for text in (data.decode("latin-1"), part, f"{part}.{part}.{part}", good + part):
            if text != good:
                self.failureResultOf(self.ask(self.checker(), text), UnauthorizedLogin)

    def test_deep(self) -> None:
        """Neither a header nor claims nested very deep do harm."""
        deep = b"[" * 6000 + b"]" * 6000
        part = base64.urlsafe_b64encode(deep).decode()
        head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"rsa"}').decode()
        for text in (f"{part}.{part}.x", f"{head}.{part}.x"):
            self.failureResultOf(self.ask(self.checker(), text), UnauthorizedLogin)


class Keys(TokenCase):
    def test_files(self) -> None:
        """A key may be PEM, a JWK or a JWKS; a shared secret may be in a file."""
        shared = OctKey.generate_key(256, {"alg": "HS256"})
        for text, signed in (
            (RSA.as_pem(private=False).decode(), token()),
            (EC.as_pem(private=False).decode(), token(EC, "ES256")),
            (OKP.as_pem(private=False).decode(), token(OKP, "EdDSA")),
            (json.dumps(RSA.as_dict(private=False)), token()),
            (json.dumps(shared.as_dict()), token(shared, "HS256")),
        ):
            self.path.write_text(text)
            self.assertEqual(self.successResultOf(self.ask(self.checker(), signed)), b"alice")

    def test_bad_files(self) -> None:
        """A file without a key, or with a private or too short one, is named at the start."""
        for text, problem in (
            ("", "it is no public key"),
            ("{", "holds no key"),
            ('{"keys": 5}', "its keys are no list"),
            ('{"keys": []}', "holds no key that can verify"),
            ('{"keys": [{"kty": "RSA"}, 5, {"kty": "new"}]}', "holds no key that can verify"),
            (RSA.as_pem(private=True).decode(), "a private key"),
            (short_key().as_pem(private=False).decode(), "or too short"),
        ):
            self.path.write_text(text)
            self.assertRaisesRegex(ConfigurationError, problem, keys, str(self.path))
        self.assertRaisesRegex(ConfigurationError, os.strerror(errno.ENOENT), keys, str(self.path) + "x")

    def test_file_changes(self) -> None:
        """A file is read again when it has changed; one that has become bad changes nothing."""
        checker = self.checker()
        self.path.write_text("{")
        self.successResultOf(self.ask(checker, token()))
        self.write(EC)
        self.failureResultOf(self.ask(checker, token()), UnauthorizedLogin)
        self.successResultOf(self.ask(checker, token(EC, "ES256")))
        self.assertEqual((len(self.recorded("keys-refused")), self.recorded("keys-reloaded", "keys")), (1, [1]))

    def published(self) -> tuple[Tokens, Answers]:
        answers = Answers()
        return Tokens(ISSUER, AUDIENCE, PublishedKeys("https://issuer.example/keys", answers)), answers

    @staticmethod
    def jwks(*public: Any) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in public]}

    def test_fetched_when_needed(self) -> None:
        """Published keys are fetched with the first token, once for all who wait, and not again."""
        self.clock()
        checker, answers = self.published()
        asked = [self.ask(checker, token()) for _ in range(3)]
        self.assertEqual(len(answers.asked), 1)
        answers.give(self.jwks(RSA))
        self.assertEqual([self.successResultOf(each) for each in asked], [b"alice"] * 3)
        self.successResultOf(self.ask(checker, token()))
        self.assertEqual(len(answers.asked), 1)

    def test_rotation(self) -> None:
        """A token by a key not seen before has the keys fetched again; made-up names do so once in a while only."""
        now = self.clock()
        checker, answers = self.published()
        first = self.ask(checker, token())
        answers.give(self.jwks(RSA))
        self.successResultOf(first)
        now[0] += BETWEEN
        rotated = self.ask(checker, token(EC, "ES256"))
        answers.give(self.jwks(RSA, EC))
        self.assertEqual(self.successResultOf(rotated), b"alice")
        for _ in range(100):
            self.failureResultOf(self.ask(checker, token(header={"kid": "made up"})), UnauthorizedLogin)
        self.assertEqual(len(answers.asked), 2)

    def test_outage(self) -> None:
        """The last good keys are good while the issuer cannot be reached; without any, waiting helps."""
        now = self.clock()
        checker, answers = self.published()
        lost = self.ask(checker, token())
        answers.give(FetchError("connection refused"))
        self.assertEqual(self.failureResultOf(lost, Refusal).value.code, "unavailable")
        now[0] += BETWEEN
        found = self.ask(checker, token())
        answers.give(self.jwks(RSA))
        self.successResultOf(found)
        now[0] += FRESH
        self.successResultOf(self.ask(checker, token()))  # at once, with the old ones
        answers.give({"keys": []})
        self.successResultOf(self.ask(checker, token()))
        self.assertEqual(len(self.recorded("keys-unreachable")), 2)

    def test_no_published_secrets(self) -> None:
        """A shared secret that is published is none, and no key of ours."""
        self.clock()
        shared = OctKey.generate_key(256, {"kid": "s"})
        checker, answers = self.published()
        asked = self.ask(checker, token(shared, "HS256"))
        answers.give({"keys": [shared.as_dict(), RSA.as_dict(private=False)]})
        self.failureResultOf(asked, UnauthorizedLogin)

    def test_addresses(self) -> None:
        """Keys come by https, or by http from this machine."""
        for url in ("https://issuer.example/keys", "http://127.0.0.1:8/keys", "http://localhost/", "http://[::1]:8/"):
            self.assertEqual(checked_url(url), url)
        for url in (
            "http://issuer.example/keys",
            "http://127.0.0.1.evil.example/",
            "ftp://issuer.example/",
            "https://",
            "https://user:secret@issuer.example/",
            "https://issuer.example:port/",
        ):
            self.assertRaises(ConfigurationError, checked_url, url)
        self.assertIsInstance(keys("https://issuer.example/keys"), PublishedKeys)
        self.assertIsInstance(keys(str(self.path)), FileKeys)


class Asking(AuditCase):
    """Introspection."""

    def setUp(self) -> None:
        super().setUp()
        self.answers = Answers()
        self.now = [1000.0]
        self.patch(time, "time", lambda: self.now[0])

    def checker(self, audience: str | None = None, **other: Any) -> Introspection:
        return Introspection("https://issuer.example/ask", ("us", "secret"), audience, ask=self.answers, **other)

    def outcome(self, checker: Introspection, answer: Any, text: str = "token") -> Deferred[Any]:
        asked: Deferred[Any] = checker.requestAvatarId(BearerToken(text))
        if self.answers.waiting:
            self.answers.give(answer)
        return asked

    def test_active(self) -> None:
        """A token that the issuer says is active is its subject's; we ask as ourselves."""
        outcome = self.outcome(self.checker(), {"active": True, "sub": "alice"})
        self.assertEqual(self.successResultOf(outcome), b"alice")
        ((url, request),) = self.answers.asked
        self.assertEqual((url, request["auth"]), ("https://issuer.example/ask", ("us", "secret")))
        self.assertEqual(request["data"]["token"], "token")

    def test_refused(self) -> None:
        """All else is not: not active, expired, for others, without a name."""
        for answer in (
            {"active": False},
            {},
            {"active": "true", "sub": "alice"},
            {"active": 1, "sub": "alice"},
            {"active": True, "sub": "alice", "exp": 999},
            {"active": True, "sub": "alice", "exp": "later"},
            {"active": True, "sub": "alice", "exp": int("9" * 4000)},
            {"active": True, "sub": "al\udfffice"},
            {"active": True, "sub": "alice", "aud": "other"},
            {"active": True, "sub": "alice", "aud": ["other"]},
            {"active": True, "sub": "alice"},  # no aud, and one is wanted
            {"active": True, "aud": AUDIENCE},
            {"active": True, "aud": AUDIENCE, "sub": ""},
        ):
            self.failureResultOf(self.outcome(self.checker(AUDIENCE), answer), UnauthorizedLogin)
        good = {"active": True, "sub": "alice", "aud": ["other", AUDIENCE], "exp": 1100}
        self.assertEqual(self.successResultOf(self.outcome(self.checker(AUDIENCE), good)), b"alice")

    def test_cached(self) -> None:
        """An answer is good until the token expires, at most as long as said; refusals are not kept."""
        checker = self.checker(cache=100)
        self.successResultOf(self.outcome(checker, {"active": True, "sub": "alice", "exp": 1050}, "short"))
        self.successResultOf(self.outcome(checker, {"active": True, "sub": "bob", "exp": 9999}, "long"))
        for _ in range(5):
            self.assertEqual(self.successResultOf(self.outcome(checker, None, "short")), b"alice")
        self.assertEqual(len(self.answers.asked), 2)
        self.now[0] = 1060
        self.failureResultOf(self.outcome(checker, {"active": False}, "short"), UnauthorizedLogin)
        self.assertEqual(self.successResultOf(self.outcome(checker, None, "long")), b"bob")
        self.now[0] = 1101
        self.failureResultOf(self.outcome(checker, {"active": False}, "long"), UnauthorizedLogin)
        self.assertNotIn("short", str(vars(checker)))

    def test_not_cached(self) -> None:
        """Each token is asked about with cache=0, even where the answer has no end."""
        checker = self.checker(cache=0)
        for _ in range(3):
            self.assertEqual(self.successResultOf(self.outcome(checker, {"active": True, "sub": "alice"})), b"alice")
        self.assertEqual(len(self.answers.asked), 3)

    def test_bounded(self) -> None:
        """Answers are kept, and questions asked, up to a bound."""
        self.patch(introspection, "ANSWERS", 2)
        checker = self.checker()
        for number in range(4):
            self.successResultOf(self.outcome(checker, {"active": True, "sub": "alice"}, str(number)))
        self.assertEqual(len(checker._known), 2)
        waiting = [checker.requestAvatarId(BearerToken(f"x{n}")) for n in range(introspection.AT_ONCE)]
        refused = self.failureResultOf(checker.requestAvatarId(BearerToken("more")), Refusal)
        self.assertEqual(refused.value.code, "busy")
        self.answers.give({"active": True, "sub": "alice"})
        self.assertEqual(self.successResultOf(waiting[0]), b"alice")

    def test_outage(self) -> None:
        """While the issuer cannot be asked nobody new comes in, and waiting helps."""
        outcome = self.outcome(self.checker(), FetchError("timeout"))
        self.assertEqual(self.failureResultOf(outcome, Refusal).value.code, "unavailable")
        self.assertEqual(self.recorded("introspection-failed", "reason"), ["timeout"])

    def test_arguments(self) -> None:
        """The secret is in a file; what cannot be is named."""
        path = Path(self.mktemp())
        path.write_text("secret\n")
        good = f"url=https://a.example/x:client=us:secret={path}"
        self.assertEqual(introspection.checker(good)._client, ("us", "secret"))
        for argument, problem in (
            (good + ":cache=long", "cache=long is no number"),
            (good + ":cache=-1", "cache=-1 is no number"),
            (good + ":cache=nan", "cache=nan is no number"),
            (good + "x", "cannot be read"),
            ("url=https://a.example/x:client=us", "secret is missing"),
        ):
            self.assertRaisesRegex(ConfigurationError, problem, introspection.checker, argument)


class Controls(ControlCase):
    def test_claims(self) -> None:
        """A token that is signed is good, whoever it is for."""
        with self.noticed_by(Verifying, "test_claims"):
            self.patch(jwt.JWTClaimsRegistry, "validate", lambda *_: None)

    def test_published_secrets(self) -> None:
        """A shared secret that anybody can read is a key."""
        right = keys_module._from_jwks
        with self.noticed_by(Keys, "test_no_published_secrets"):
            self.patch(keys_module, "_from_jwks", lambda found, **_: right(found, shared=True))
