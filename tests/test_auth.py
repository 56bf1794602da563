"""Clients that are let in, clients that are not, and what neither of them meets before that."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from msgspec import Struct
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred

from mtserver import App, Client, Handler, Unavailable
from mtserver.auth import checkers, login
from mtserver.auth.gate import Gate
from mtserver.auth.sasl import InitialResponse
from mtserver.auth.throttle import FREE, Failures, network
from mtserver.errors import ConfigurationError, Refusal
from mtserver.testing import Harness
from tests.authcase import HERE, REFUSED, Asked, AuditCase, bearer, plain
from tests.controls import ControlCase

AUTH = "memory:alice:wonder:bob:builder"


class Known(Handler):
    """Says whom it serves."""

    async def connected(self) -> None:
        self.client.send(b"welcome %s" % str(self.client.identity).encode())

    async def received(self, message: bytes) -> bytes:
        return message.upper()


class Door(AuditCase):
    def test_let_in(self) -> None:
        """A client that says who it is is told OK, and its handler knows it from the beginning; then it is served."""
        harness = Harness(Known, auth=AUTH)
        for name, password in (("alice", "wonder"), ("bob", "builder")):
            client = harness.connect(HERE)
            client.send(plain(name, password), b"one", b"two")
            client.send(b"three")
            self.assertEqual(client.received, [b"OK", b"welcome " + name.encode(), b"ONE", b"TWO", b"THREE"])
        self.assertEqual([each.identity for each in harness.clients], ["alice", "bob"])
        self.assertEqual(
            self.recorded("authenticated", "identity", "mechanism"), [("alice", "PLAIN"), ("bob", "PLAIN")]
        )

    def test_refused(self) -> None:
        """Refused clients are told one thing, whatever was wrong, and closed; the handler never hears of them."""
        began: list[Client] = []

        class Counting(Known):
            def __init__(self, client: Client) -> None:
                super().__init__(client)
                began.append(client)

        harness = Harness(Counting, auth=AUTH)
        for first in (
            plain("alice", "builder"),
            plain("nobody", "wonder"),
            plain("bob", "builder", "alice"),
            b"hello",
            b"",
            b"AUTH",
            b"AUTH PLAIN",
            b"AUTH PLAIN !!!",
            b"AUTH LOGIN " + base64.b64encode(b"alice"),
            b"auth plain " + base64.b64encode(b"\0alice\0wonder"),
        ):
            client = harness.connect(HERE)
            client.send(first, b"and more")
            self.assertEqual(client.received, [REFUSED], first)
            self.assertTrue(client.disconnected)
            harness.advance(7)  # so that none of them is one too many
        self.assertEqual((began, list(harness.clients)), ([], []))
        self.assertEqual(len(self.recorded("authentication-failed", "reason")), 10)

    def test_hostile_identity(self) -> None:
        """An identity may be any text; in what is recorded it forges nothing."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        harness.connect(HERE).send(bearer("token"))
        harness.fire(checker.answers[0], b"eve\nevent=\x1b[2J")
        self.assertEqual([each.identity for each in harness.clients], ["eve\nevent=\x1b[2J"])
        self.assertEqual(self.recorded("authenticated", "identity"), ["eve\\nevent=\\x1b[2J"])

    def test_no_secrets(self) -> None:
        """No password is in what is recorded, logged or answered."""
        harness = Harness(Known, auth=AUTH)
        for password in ("wonder", "canary-wrong"):
            client = harness.connect(HERE)
            client.send(plain("alice", password))
            self.assertNotIn(password.encode(), client.received_raw)
        self.assertNotIn("wonder", str(self.events))
        self.assertNotIn("canary", str(self.events))

    def test_waiting(self) -> None:
        """While it is found out who the client is, what it sends is held, and little of it."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        client = harness.connect(HERE)
        client.send(plain("alice", "x"), b"early")
        self.assertEqual((client.received, list(harness.clients)), ([], []))
        for _ in range(40):
            client.send(b"x" * 4000)
        self.assertLess(client.protocol.inbox.size, 80_000)  # type: ignore[union-attr] # it holds some
        harness.fire(checker.answers[0], b"alice")
        self.assertEqual(client.received[:3], [b"OK", b"welcome alice", b"EARLY"])
        self.assertEqual(len(client.received), 43)

    def test_sizes(self) -> None:
        """The first message may have 4 KiB, with a token 16; afterwards --max-message holds."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker], max_message=100_000)
        for message, asked in (
            (plain("alice", "x" * 2900), True),
            (plain("alice", "x" * 3100), False),
            (bearer("x" * 12_000), True),
            (bearer("x" * 12_300), False),
            (b"x" * 20_000, False),
            (bearer("x" * (1 << 20)), False),
        ):
            client = harness.connect(HERE)
            client.send(message)
            self.assertEqual(bool(checker.asked), asked, len(message))
            if asked:
                harness.fire(checker.answers.pop(), b"alice")
                client.send(b"y" * 90_000)
                self.assertEqual(client.received[-1], b"Y" * 90_000)
                checker.asked.clear()
            else:
                self.assertTrue(client.disconnected)

    def test_second_attempt(self) -> None:
        """A second AUTH never reaches the handler, which may write down what it gets: refused and closed."""
        for together in (True, False):
            client = Harness(Known, auth=AUTH).connect(HERE)
            messages = [plain("alice", "wonder"), b"one", plain("bob", "builder"), b"two"]
            if together:
                client.send(*messages)
            else:
                for message in messages:
                    client.send(message)
            self.assertEqual(client.received, [b"OK", b"welcome alice", b"ONE", REFUSED])
            self.assertTrue(client.disconnected)

    def test_second_attempt_while_waiting(self) -> None:
        """Nor does one that comes while the first is looked at."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        client = harness.connect(HERE)
        client.send(plain("alice", "x"), plain("bob", "x"))
        harness.fire(checker.answers[0], b"alice")
        self.assertEqual((client.received, len(checker.asked)), ([b"OK", b"welcome alice", REFUSED], 1))

    def test_deadline(self) -> None:
        """A client that does not say in time who it is is told so and closed; what it sends afterwards is not read."""
        harness = Harness(Known, auth=AUTH, auth_timeout=10)
        silent, slow = harness.connect(HERE), harness.connect(HERE)
        slow.send_raw(plain("alice", "wonder"))
        harness.advance(9)
        self.assertFalse(silent.disconnected or slow.disconnected)
        harness.advance(2.1)
        slow.send_raw(b"\n")
        for client in (silent, slow):
            self.assertEqual(client.received, [b"ERR timeout no authentication within 10 seconds"])
            self.assertTrue(client.disconnected)
        self.assertEqual(self.recorded("authentication-failed", "reason"), ["not in time"] * 2)

    def test_no_deadline(self) -> None:
        """A --auth-timeout of 0 is no limit; and the idle limit is for clients that are in."""
        harness = Harness(Known, auth=AUTH, auth_timeout=0, idle_timeout=5)
        client = harness.connect(HERE)
        harness.advance(100)
        client.send(plain("alice", "wonder"))
        self.assertEqual(client.received, [b"OK", b"welcome alice"])

    def test_deadline_while_waiting(self) -> None:
        """A check that takes too long counts as well."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker], auth_timeout=10)
        client = harness.connect(HERE)
        client.send(plain("alice", "x"))
        harness.advance(12)
        self.assertTrue(client.disconnected)
        self.assertTrue(checker.answers[0].called, "the check is cancelled")
        self.assertEqual(client.received, [b"ERR timeout no authentication within 10 seconds"])
        self.assertEqual(self.recorded("authentication-failed", "reason"), ["not in time"])

    def test_clear_text(self) -> None:
        """Passwords and tokens from other machines are refused in clear text, before they are looked at."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        for message in (plain("alice", "x"), bearer("token")):
            for host in ("192.0.2.9", "10.0.0.1"):
                client = harness.connect(host)
                client.send(message)
                self.assertEqual(client.received, [REFUSED])
        self.assertEqual(checker.asked, [])
        self.assertEqual(set(self.recorded("authentication-failed", "reason")), {"a secret in clear text"})
        insecure = Harness(Known, auth=AUTH, auth_insecure=True).connect("192.0.2.9")
        insecure.send(plain("alice", "wonder"))
        self.assertEqual(insecure.received, [b"OK", b"welcome alice"])

    def test_gone_while_waiting(self) -> None:
        """A client that goes while it is looked at is forgotten, and its check cancelled."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker], max_clients=1)
        client = harness.connect(HERE)
        client.send(plain("alice", "x"), b"never handled")
        client.reset()
        self.assertTrue(checker.answers[0].called)
        self.assertFalse(harness.connect(HERE).disconnected, "its place is free")
        self.assertEqual(self.recorded("authentication-failed", "reason"), ["the connection ended"])

    def test_half_closed(self) -> None:
        """One that says all it has to say and closes its side is answered, if it is let in; else it is told."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        good, silent = harness.connect(HERE), harness.connect(HERE)
        good.send(plain("alice", "x"), b"one")
        for client in (good, silent):
            client.half_close()
        harness.fire(checker.answers[0], b"alice")
        self.assertEqual(good.received, [b"OK", b"welcome alice", b"ONE"])
        self.assertEqual(silent.received, [REFUSED])
        self.assertTrue(good.disconnected and silent.disconnected)

    def test_stop(self) -> None:
        """A stop tells those at the door, and does not wait for their checks."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        silent, waiting = harness.connect(HERE), harness.connect(HERE)
        waiting.send(plain("alice", "x"))
        harness.stop()
        for client in (silent, waiting):
            self.assertEqual(len(client.received), 1)
            self.assertTrue(client.received[0].startswith(b"ERR closing "))
        self.assertFalse(harness.service.failed)

    def test_broadcast(self) -> None:
        """Clients that are not in hear no broadcasts."""
        app = App(Known)
        harness = Harness(app, auth=AUTH)
        outside, inside = harness.connect(HERE), harness.connect(HERE)
        inside.send(plain("alice", "wonder"))
        app.broadcast(b"to all")
        harness.advance(0)
        self.assertEqual((outside.received, inside.received), ([], [b"OK", b"welcome alice", b"to all"]))

    def test_opening(self) -> None:
        """A client that is let in before the app is open is served once it is."""
        from contextlib import asynccontextmanager

        gate = Deferred[None]()

        @asynccontextmanager
        async def lifespan(app: App) -> Any:
            await gate
            yield

        harness = Harness(App(Known, lifespan=lifespan), auth=AUTH)
        client = harness.connect(HERE)
        client.send(plain("alice", "wonder"), b"one")
        self.assertNotIn(b"ONE", client.received)
        harness.fire(gate)
        self.assertEqual(client.received, [b"OK", b"welcome alice", b"ONE"])

    def test_framings(self) -> None:
        """The exchange is in the connection's framing; quiet servers say OK all the same."""
        for framing in ("netstring", "int16", "int32"):
            client = Harness(Known, auth=AUTH, framing=framing, quiet=True).connect(HERE)
            client.send(plain("alice", "wonder"), b"one")
            self.assertEqual(client.received, [b"OK", b"welcome alice", b"ONE"])

    def test_rate(self) -> None:
        """--message-rate is for messages: the exchange is none."""
        harness = Harness(Known, auth=AUTH, message_rate=1)
        client = harness.connect(HERE)
        client.send(plain("alice", "wonder"), b"one", plain("bob", "builder"))
        self.assertEqual(client.received, [b"OK", b"welcome alice", b"ONE"])
        harness.advance(2)
        self.assertEqual(client.received[-1], REFUSED)


class Checkers(AuditCase):
    def test_order(self) -> None:
        """Several checkers are asked until one knows the client."""
        client = Harness(Known, auth=["memory:alice:other", AUTH]).connect(HERE)
        client.send(plain("alice", "wonder"))
        self.assertEqual(client.received, [b"OK", b"welcome alice"])

    def test_none_for_it(self) -> None:
        """A token where only passwords are known is refused."""
        client = Harness(Known, auth=AUTH).connect(HERE)
        client.send(bearer("token"))
        self.assertEqual(client.received, [REFUSED])
        self.assertEqual(self.recorded("authentication-failed", "reason"), ["no --auth takes this mechanism"])

    def test_refusals(self) -> None:
        """A checker's own refusal is passed on: no fault of the client's, which may come again, and no failure."""
        for error, told in (
            (
                Refusal("busy", "too many logins at once", retry_after=3, closes=True),
                b"ERR busy retry-after=3 too many",
            ),
            (Unavailable("the keys are away", retry_after=2), b"ERR unavailable retry-after=2 the keys are away"),
        ):
            checker = Asked()
            harness = Harness(Known, checkers=[checker])
            for _ in range(2 * FREE):
                client = harness.connect(HERE)
                client.send(plain("alice", "x"))
                harness.fire(checker.answers.pop(), error)
                self.assertTrue(client.received[0].startswith(told))

    def test_broken(self) -> None:
        """A checker that raises anything else costs the client an ERR unavailable, and lets nobody in."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        for outcome in (ZeroDivisionError(), b""):
            client = harness.connect(HERE)
            client.send(plain("alice", "x"))
            harness.fire(checker.answers.pop(), outcome)
            self.assertEqual(len(client.received), 1)
            self.assertTrue(client.disconnected)
        self.assertEqual(self.recorded("authentication-failed", "reason"), ["the check failed", "an empty identity"])

    def test_token_of_another(self) -> None:
        """A token comes with the name of whom it is, or with none."""
        for header, inside in (("n,,", True), ("n,a=alice,", True), ("y,a=alice,", True), ("n,a=bob,", False)):
            checker = Asked()
            harness = Harness(Known, checkers=[checker])
            client = harness.connect(HERE)
            client.send(bearer("token", header))
            harness.fire(checker.answers[0], b"alice")
            self.assertEqual(client.received[0], b"OK" if inside else REFUSED)

    def test_failures(self) -> None:
        """A host that fails too often is not looked at any more for a while; others are."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])

        def attempt(host: str, outcome: Any = None) -> Any:
            client = harness.connect(host)
            client.send(plain("alice", "x"))
            if checker.answers:
                harness.fire(checker.answers.pop(), outcome or UnauthorizedLogin())
            return client.received

        for _ in range(FREE):
            self.assertEqual(attempt("127.0.0.9"), [REFUSED])
        for _ in range(50):
            (told,) = attempt("127.0.0.9", b"alice")
            self.assertRegex(told, rb"^ERR busy retry-after=[1-6] too many failed logins from your address$")
        self.assertEqual(len(checker.asked), FREE)
        self.assertEqual(attempt("127.0.0.8", b"alice")[0], b"OK")
        harness.advance(7)
        self.assertEqual(attempt("127.0.0.9", b"alice")[0], b"OK")
        self.assertIn("too many failed logins from your address", self.recorded("authentication-failed", "reason"))

    def test_failures_of_a_neighbour(self) -> None:
        """A client that was let in a moment ago comes in again, whatever others do from the same address."""

        class Recalling(Asked):
            def recalls(self, credentials: Any) -> bool:
                return bool(credentials.username == b"bob")

        checker = Recalling()
        harness = Harness(Known, checkers=[checker])
        for _ in range(2 * FREE):
            harness.connect(HERE).send(plain("alice", "x"))
        self.assertEqual(len(checker.asked), FREE)
        client = harness.connect(HERE)
        client.send(plain("bob", "x"))
        harness.fire(checker.answers[-1], b"bob")
        self.assertEqual(client.received[0], b"OK")
        # And that frees nobody's further guesses.
        client = harness.connect(HERE)
        client.send(plain("alice", "x"))
        self.assertRegex(client.received[0], rb"^ERR busy ")

    def test_long_identity(self) -> None:
        """An identity has a length at which it can stand in a line of the log."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        for length, told in ((1024, b"OK"), (1025, REFUSED)):
            client = harness.connect(HERE)
            client.send(bearer("token"))
            harness.fire(checker.answers.pop(), b"x" * length)
            self.assertEqual(client.received[0], told)

    def test_networks(self) -> None:
        """One host counts as one, however many addresses it has."""
        for first, second, same in (
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:1", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("fe80::1%eth0", "fe80::2", True),
            ("", "192.0.2.1", False),
        ):
            self.assertEqual(network(first) == network(second), same, (first, second))

    def test_many_at_once(self) -> None:
        """A thousand attempts at once are not a thousand tries before the first failure is known."""
        checker = Asked()
        harness = Harness(Known, checkers=[checker])
        for _ in range(100):
            harness.connect(HERE).send(plain("alice", "x"))
        self.assertEqual(len(checker.asked), FREE)

    def test_successes_are_no_failures(self) -> None:
        """A client that is let in again and again is let in."""
        harness = Harness(Known, auth=AUTH)
        for _ in range(10 * FREE):
            client = harness.connect(HERE)
            client.send(plain("alice", "wonder"))
            self.assertEqual(client.received[0], b"OK")

    def test_descriptions(self) -> None:
        """An impossible --auth is one line, in which nothing of its argument stands."""
        for description, text in (
            ("nothing:secret", "--auth nothing: there is no such method; see --help-auth"),
            ("memory:secret", "--auth memory: its argument cannot be used"),
            ("file:secret", "--auth file: there is no such file"),
            ("jwt:secret", "--auth jwt: an argument that is not NAME=VALUE"),
            ("jwt:issuer=a:issuer=secret", "--auth jwt: issuer is there twice"),
            ("jwt:issuer=a", "--auth jwt: audience, key is missing"),
            ("introspect:url=http://example.com/:client=a:secret=/dev/null", "--auth introspect: /dev/null is empty"),
        ):
            error = self.assertRaises(ConfigurationError, checkers, [description])
            self.assertTrue(str(error).startswith(text), str(error))
            self.assertNotIn("secret", str(error).removeprefix(text))


class OwnExchange(AuditCase):
    """A handler's own ``authenticate``."""

    def handler(self, decide: Any) -> type[Handler]:
        class Device(Known):
            async def authenticate(self, message: bytes) -> Any:
                return await decide(self, message)

        return Device

    def test_decides(self) -> None:
        """The identity it returns is the client's; it may send something itself; None refuses."""

        async def decide(device: Handler, message: bytes) -> str | None:
            device.client.send(b"looking")
            return message.decode().removeprefix("IMEI ") if message.startswith(b"IMEI ") else None

        harness = Harness(self.handler(decide))
        client, stranger = harness.connect(), harness.connect()
        client.send(b"IMEI 4711", b"one")
        client.send(b"AUTH is just a message here")
        stranger.send(b"HTTP", b"one")
        self.assertEqual(client.received[:3], [b"looking", b"welcome 4711", b"ONE"])
        self.assertEqual(client.received[3], b"AUTH IS JUST A MESSAGE HERE")
        self.assertEqual(stranger.received, [b"looking", REFUSED])
        self.assertEqual(self.recorded("authenticated", "identity", "mechanism"), [("4711", "handler")])

    def test_waits(self) -> None:
        """The handler may wait in authenticate, and messages that come meanwhile wait with it."""
        gate = Deferred[str]()

        async def decide(device: Handler, message: bytes) -> str:
            return await gate

        harness = Harness(self.handler(decide))
        client = harness.connect()
        client.send(b"login", b"one", b"two")
        self.assertEqual(client.received, [])
        harness.fire(gate, "4711")
        self.assertEqual(client.received, [b"welcome 4711", b"ONE", b"TWO"])

    def test_fails(self) -> None:
        """Where it raises, or returns something else, nobody is let in; its own refusal is a refusal."""

        async def decide(device: Handler, message: bytes) -> Any:
            if message == b"raise":
                raise ZeroDivisionError
            if message == b"refuse":
                raise Unavailable("secret details")
            return 5 if message == b"number" else ""

        harness = Harness(self.handler(decide))
        for message, told in (
            (b"raise", b"ERR unavailable"),
            (b"number", b"ERR unavailable"),
            (b"empty", REFUSED),
            (b"refuse", REFUSED),
        ):
            client = harness.connect()
            client.send(message, b"one")
            self.assertEqual(len(client.received), 1)
            self.assertTrue(client.received[0].startswith(told), message)
            self.assertTrue(client.disconnected)

    def test_blocks(self) -> None:
        """The method authenticate may be a plain def, and one of a handler that takes text."""

        class Device(Handler):
            def authenticate(self, message: str) -> str | None:
                return message or None

            def received(self, message: str) -> str:
                return f"{self.client.identity}: {message}"

        client = Harness(Device).connect()
        client.send("4711", "one")
        self.assertEqual(client.received, ["4711: one"])
        stranger = Harness(Device).connect()
        stranger.send_raw(b"\xff\n")
        self.assertEqual(stranger.received, [REFUSED.decode()])

    def test_closes(self) -> None:
        """The handler may close in authenticate, and the client may leave while it waits; both end the connection."""
        told: list[str] = []
        gate, never = Deferred[str](), Deferred[str]()

        class Device(Handler):
            async def authenticate(self, message: bytes) -> str:
                if message == b"close":
                    self.client.close()
                    return await gate
                return await never

            async def received(self, message: bytes) -> None:
                told.append("received")

            async def disconnected(self, reason: str) -> None:
                told.append(reason)

        harness = Harness(Device)
        closing, leaving = harness.connect(), harness.connect()
        closing.send(b"close", b"one")
        leaving.send(b"login", b"one")
        leaving.reset()
        self.assertTrue(never.called, "nobody waits for it any more")
        harness.fire(gate, "4711")
        harness.advance(10)
        self.assertTrue(closing.disconnected)
        self.assertEqual(list(harness.clients), [])
        harness.stop()
        # The one was let in all the same; who never came in does not leave.
        self.assertEqual(told, ["closed by the handler"])

    def test_too_late(self) -> None:
        """One that has not decided in time is cancelled; a stop does not wait for it, and nothing was lost."""
        never = Deferred[str]()

        async def decide(device: Handler, message: bytes) -> str:
            return await never

        harness = Harness(self.handler(decide), auth_timeout=2)
        client = harness.connect()
        client.send(b"login")
        harness.advance(4)
        self.assertEqual(client.received, [b"ERR timeout no authentication within 2 seconds"])
        self.assertTrue(never.called)
        before = harness.reactor.seconds()
        harness.stop()
        self.assertLess(harness.reactor.seconds() - before, 10)
        self.assertFalse(harness.service.failed)

    def test_failures(self) -> None:
        """Failures of one address are limited here, too."""
        asked: list[bytes] = []

        async def decide(device: Handler, message: bytes) -> str | None:
            asked.append(message)
            return "4711" if message == b"good" else None

        harness = Harness(self.handler(decide))
        for _ in range(3 * FREE):
            harness.connect("192.0.2.8").send(b"bad")
        self.assertEqual(len(asked), FREE)
        client = harness.connect("192.0.2.8")
        client.send(b"good")
        self.assertRegex(client.received[0], rb"^ERR busy retry-after=\d ")
        client = harness.connect("192.0.2.9")
        client.send(b"good")
        self.assertEqual(client.received, [b"welcome 4711"])

    def test_its_own_type(self) -> None:
        """The message for authenticate is of the type of its annotation, whatever that of received is."""

        class Text(Handler):
            async def authenticate(self, message: str) -> str:
                return message

            async def received(self, message: bytes) -> bytes:
                return message + str(self.client.identity).encode()

        class Typed(Handler):
            async def authenticate(self, message: Login) -> str:
                return message.name

            async def received(self, message: list[int]) -> list[int]:
                return message

        client = Harness(Text).connect()
        client.send(b"alice", b"\xff")
        self.assertEqual(client.received, [b"\xffalice"])
        client = Harness(Typed).connect()
        client.send_raw(b'{"name": "alice"}\n[1, 2]\n')
        self.assertEqual(client.received_raw, b"[1,2]\n")

    def test_both(self) -> None:
        """--auth beside it is a mistake, named before the start."""
        from mtserver.process.command_line import Options

        options = Options()
        # Of this one: patched in the class, it would come back as no static method any more.
        self.patch(options, "_install_reactor", lambda: None)
        name = "tests.test_auth:BothWays"
        error = self.assertRaises(SystemExit, options.parseOptions, ["--auth", AUTH, "--app", name])
        self.assertEqual(str(error), f"mtserver: --auth, and authenticate in --app {name}: which one is meant?")

    def test_wrong_signature(self) -> None:
        """One that cannot be called is named."""

        class Device(Known):
            async def authenticate(self) -> str:  # type: ignore[override] # which is the point
                return ""

        self.assertRaisesRegex(ConfigurationError, r"authenticate\(self, message\)", Harness, Device)


class Login(Struct):
    """A function for the test above."""

    name: str


class BothWays(Known):
    async def authenticate(self, message: bytes) -> str:
        return "anybody"


class Controls(ControlCase):
    def test_second_attempt(self) -> None:
        """A second AUTH, with its secret, reaches the handler."""
        with self.noticed_by(Door, "test_second_attempt"):
            self.patch(Gate, "verb", b"")

    def test_clear_text(self) -> None:
        """Secrets from other machines are taken in clear text."""
        with self.noticed_by(Door, "test_clear_text"):
            self.ignore(Gate, "insecure", value=True)

    def test_deadline(self) -> None:
        """P9: who is at the door may take for ever."""
        with self.noticed_by(Door, "test_deadline"):
            self.patch(login.Login, "expire", lambda *_: None)

    def test_failures(self) -> None:
        """Secrets may be guessed for as long as it takes."""
        with self.noticed_by(Checkers, "test_failures"):
            self.patch(Failures, "begin", lambda *_: 0.0)

    def test_many_at_once(self) -> None:
        """An attempt counts as a failure only when it has failed: a thousand at once are one."""
        right = Failures.begin

        def wrong(failures: Failures, host: str, now: float) -> float:
            wait = right(failures, host, now)
            failures.succeeded(host, now)
            return wait

        with self.noticed_by(Checkers, "test_many_at_once"):
            self.patch(Failures, "begin", wrong)

    def test_token_of_another(self) -> None:
        """A token is taken from whoever has it, whatever name comes with it."""
        right = Gate.check

        def wrong(gate: Gate, response: InitialResponse, host: str) -> Any:
            return right(gate, dataclasses.replace(response, username=""), host)

        with self.noticed_by(Checkers, "test_token_of_another"):
            self.patch(Gate, "check", wrong)
