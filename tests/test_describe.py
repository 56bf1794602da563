"""What --describe prints: an AsyncAPI 3 document, true of what the server sends and takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft7Validator
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Ack, App, Client, Handler, Unavailable
from mtserver.apps import collect
from mtserver.errors import ConfigurationError
from mtserver.process.describe import describe
from mtserver.refusals import CODES
from mtserver.settings import Settings
from mtserver.testing import Harness

REFERENCE = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "additionalProperties": False,
}
NAME = "^[A-Za-z0-9_.-]+$"


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """An object of AsyncAPI: what it must and may have, and nothing else but extensions."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "patternProperties": {NAME: schema}, "additionalProperties": False}


TEXT = {"type": "string"}
#: The objects of the specification's version 3.0.0 that are used here.
STRUCTURE = closed(
    ["asyncapi", "info"],
    asyncapi={"const": "3.0.0"},
    info=closed(["title", "version"], title=TEXT, version=TEXT, description=TEXT),
    defaultContentType=TEXT,
    servers=named(
        closed(
            ["host", "protocol"],
            host=TEXT,
            protocol=TEXT,
            variables=named(closed([], default=TEXT, enum={"type": "array"}, description=TEXT)),
            security={"type": "array", "items": REFERENCE},
        )
    ),
    channels=named(
        closed([], address={"type": ["string", "null"]}, title=TEXT, description=TEXT, messages=named(REFERENCE))
    ),
    operations=named(
        closed(
            ["action", "channel"],
            action={"enum": ["send", "receive"]},
            channel=REFERENCE,
            summary=TEXT,
            messages={"type": "array", "items": REFERENCE},
            reply=closed([], channel=REFERENCE, messages={"type": "array", "items": REFERENCE}),
        )
    ),
    components=closed(
        [],
        messages=named(closed([], title=TEXT, contentType=TEXT, payload={"type": ["object", "boolean"]})),
        schemas=named({"type": ["object", "boolean"]}),
        securitySchemes=named(closed(["type"], type={"enum": ["plain", "http"]}, scheme=TEXT, description=TEXT)),
    ),
)


class Leave(Struct, tag=True):
    """Gone."""

    why: str | None = None


class Move(Struct, tag=True):
    to: tuple[int, int]
    then: Move | Leave | None = None


class Seen(Struct):
    moves: int


class Game(Handler):
    """
    A game.

    Of moves.
    """

    async def received(self, message: Move | Leave) -> Seen | None:
        if isinstance(message, Leave):
            raise Unavailable("the door is locked", retry_after=3)
        return Seen(message.to[0])


async def shout(client: Client, message: str) -> str:
    return message.upper()


async def hear(client: Client, message: str) -> None: ...


def references(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        if isinstance(thing.get("$ref"), str):
            yield thing["$ref"]
        for value in thing.values():
            yield from references(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from references(value)


class Case(SynchronousTestCase):
    def describe(self, handler: Any, **settings: Any) -> dict[str, Any]:
        """The document, checked to be one."""
        app = handler if isinstance(handler, App) else App(handler)
        document: dict[str, Any] = json.loads(json.dumps(describe(app, Settings(**settings))))
        Draft7Validator(STRUCTURE).validate(document)
        for reference in references(document):
            self.resolve(document, reference)
        for payload in [message["payload"] for message in document["components"]["messages"].values()]:
            Draft7Validator.check_schema(payload)
        for schema in document["components"]["schemas"].values():
            Draft7Validator.check_schema(schema)
        # A message of an operation is one of its channel's.
        for operation in document["operations"].values():
            for message in [*operation["messages"], *operation.get("reply", {}).get("messages", [])]:
                self.assertTrue(message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/"))
        return document

    def resolve(self, document: Any, reference: str) -> Any:
        self.assertTrue(reference.startswith("#/"), reference)
        for part in reference.removeprefix("#/").split("/"):
            document = document[part]
        return document

    def fits(self, document: dict[str, Any], name: str, value: Any) -> bool:
        """Whether a value is what the document says of that message."""
        schema = {**document, "$ref": f"#/components/messages/{name}/payload"}
        return bool(Draft7Validator(schema).is_valid(value))


class Documents(Case):
    def test_typed(self) -> None:
        """What a typed app takes, answers and refuses fits the document's schemas; what it would refuse does not."""
        for encoding in ("json", "msgpack"):
            document = self.describe(Game, encoding=encoding, framing="int32")
            client = Harness(Game, encoding=encoding, framing="int32").connect()
            good: list[Any] = [
                {"type": "Move", "to": [1, 2]},
                {"type": "Move", "to": [1, 2], "then": {"type": "Leave"}},
            ]
            bad: list[Any] = [
                {"type": "Move", "to": [1, 2, 3]},
                {"type": "Move", "to": [1]},
                {"type": "Move", "to": [1, "x"]},
                {"type": "Run"},
                {},
                5,
            ]
            client.send(*good, *bad, {"type": "Leave"})
            for message in good:
                self.assertTrue(self.fits(document, "message", message), message)
            for message in bad:
                self.assertFalse(self.fits(document, "message", message), message)
            for reply in client.received[:2]:
                self.assertTrue(self.fits(document, "reply", reply), reply)
            for refusal in client.received[2:]:
                self.assertTrue(self.fits(document, "refusal", refusal), refusal)
                self.assertFalse(self.fits(document, "reply", refusal), refusal)
            self.assertEqual(client.received[-1]["retry_after"], 3)
            self.assertEqual(document["defaultContentType"], f"application/{encoding}")

    def test_acknowledgements(self) -> None:
        """A handler that returns what the journal says is described by what a client reads; that there are ids, too."""

        async def keep(client: Client, message: Seen) -> Ack | None:
            return await client.journal(message)

        folder = Path(self.mktemp())
        folder.mkdir()
        harness = Harness(keep, journal=f"sqlite:{folder / 'j.db'}", message_ids=True)
        self.addCleanup(harness.stop)
        client = harness.connect()
        client.send(b"RESUME bob", *[b'@1 {"moves": 3}'] * 2)
        document = self.describe(keep, message_ids=True)
        self.assertEqual(client.received, [{"ok": 0}, {"ok": 1}, {"ok": 1, "dup": True}])
        for reply in client.received:
            self.assertTrue(self.fits(document, "reply", reply), reply)
        self.assertTrue(document["channels"]["connection"]["x-message-ids"])
        self.assertIn("behind @<id> and a space", document["components"]["messages"]["message"]["title"])

    def test_nothing_that_is_not_sent(self) -> None:
        """None is no reply that anybody reads, nor are the server's own words where --quiet keeps them back."""
        document = self.describe(Game)
        self.assertEqual(document["components"]["messages"]["reply"]["payload"], {"$ref": "#/components/schemas/Seen"})
        self.assertEqual(set(self.describe(hear)["components"]["messages"]), {"message", "refusal"})
        quiet = self.describe(hear, quiet=True)
        self.assertEqual(set(quiet["components"]["messages"]), {"message"})
        self.assertEqual(set(quiet["operations"]), {"receive"})
        self.assertNotIn("reply", quiet["operations"]["receive"])

    def test_plain(self) -> None:
        """Bytes and text are described, too."""
        document = self.describe(collect.app, app="collect")
        messages = document["components"]["messages"]
        self.assertEqual(messages["message"]["payload"], {"type": "string", "format": "binary"})
        self.assertEqual(messages["message"]["contentType"], "application/octet-stream")
        document = self.describe(shout)
        self.assertEqual(document["components"]["messages"]["reply"]["payload"], {"type": "string"})
        client = Harness(shout, idle_timeout=5).connect()
        client.send("a", b"\xff")
        self.assertTrue(self.fits(document, "refusal", client.received[1]))
        self.assertFalse(self.fits(document, "refusal", client.received[0]))

    def test_batches(self) -> None:
        """A handler of batches takes messages all the same."""

        class Batches(Handler):
            async def received_batch(self, messages: list[Move]) -> list[Seen | Unavailable | None]:
                return [None for _ in messages]

        document = self.describe(Batches)
        messages = document["components"]["messages"]
        self.assertEqual(messages["message"]["payload"], {"$ref": "#/components/schemas/Move"})
        self.assertEqual(messages["reply"]["payload"], {"$ref": "#/components/schemas/Seen"})

    def test_about(self) -> None:
        """It says which app, what it is for, in which framing and with which limit."""
        document = self.describe(Game, app="game:Game", framing="netstring", max_message=1000)
        self.assertEqual(
            document["info"], {"title": "game:Game", "version": "0", "description": "A game.\n\nOf moves."}
        )
        channel = document["channels"]["connection"]
        self.assertEqual(
            (channel["x-framing"], channel["x-encoding"], channel["x-max-message"]), ("netstring", "json", 1000)
        )
        self.assertNotIn("x-encoding", self.describe(shout)["channels"]["connection"])

    def test_version(self) -> None:
        """The version is that of the app's module, if it has one."""
        module: Any = sys.modules[__name__]
        module.__version__ = "1.2"
        self.addCleanup(delattr, module, "__version__")
        self.assertEqual(self.describe(Game)["info"]["version"], "1.2")

    def test_servers(self) -> None:
        """Ports that have a number are named, nothing else of an endpoint string is."""
        ports = ("9999", "tcp:9998:interface=127.0.0.1", "ssl:port=9997:privateKey=secret.pem", "unix:secret.sock")
        servers = self.describe(shout, port=ports)["servers"]
        found = {name: (server["host"], server["protocol"]) for name, server in servers.items()}
        self.assertEqual(
            found,
            {
                "tcp-9999": ("{host}:9999", "tcp"),
                "tcp-9998": ("{host}:9998", "tcp"),
                "tls-9997": ("{host}:9997", "tls"),
            },
        )
        self.assertNotIn("secret", json.dumps(servers))

    def test_security(self) -> None:
        """Where clients have to say who they are, it says how they may."""
        for auth, schemes in (
            (["passwords:users"], ["plain"]),
            (["jwt:issuer=a"], ["bearer"]),
            (["memory:alice:secret", "introspect:url=a"], ["plain", "bearer"]),
            ([], []),
        ):
            document = self.describe(collect.app, auth=tuple(auth))
            self.assertEqual(list(document["components"].get("securitySchemes", {})), schemes)
            (server,) = document["servers"].values()
            wanted = [f"#/components/securitySchemes/{name}" for name in schemes]
            self.assertEqual([reference["$ref"] for reference in server.get("security", [])], wanted)
            self.assertNotIn("secret", str(document))

    def test_refusals(self) -> None:
        """Each code that the server sends is there."""
        for handler in (Game, shout):
            text = json.dumps(self.describe(handler)["components"]["messages"]["refusal"])
            for code in CODES:
                self.assertIn(f"`{code}`", text)

    def test_any_type(self) -> None:
        """Whatever can be served can be described, also what refers to itself."""
        annotations: list[Any] = [Any, int, None, list[Move], dict[int, set[float]], bytes | None, tuple[int, ...]]
        annotations += [msgspec.Raw, dict, tuple[int, str, tuple[bool]]]
        for annotation in annotations:

            async def handler(client, message, annotation=annotation): ...  # type: ignore[no-untyped-def]

            handler.__annotations__.update({"message": annotation, "return": annotation})
            self.describe(handler)

    def test_no_schema(self) -> None:
        """What MessagePack has and JSON has not cannot be described, and that is told in a line."""

        async def handler(client: Client, message: msgspec.msgpack.Ext) -> None: ...

        settings = Settings(encoding="msgpack", framing="int32")
        error = self.assertRaises(ConfigurationError, describe, App(handler), settings)
        self.assertTrue(str(error).startswith("--describe: "), str(error))


class Control(Case):
    def test_structure(self) -> None:
        """The control of the check: a document with anything left out, or anything more, is none."""
        document = self.describe(Game)
        validator = Draft7Validator(STRUCTURE)
        for part, key in ((document, "info"), (document["operations"]["receive"], "action")):
            broken = dict(part)
            del broken[key]
            whole = broken if part is document else {**document, "operations": {"receive": broken}}
            self.assertFalse(validator.is_valid(whole))
        self.assertFalse(validator.is_valid({**document, "more": 1}))
