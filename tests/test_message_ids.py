"""Messages with ids: what goes before the handler, what it may store, and what its client is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Ack, App, Client, Duplicate, Handler, Unavailable
from mtserver.apps.collect import app as collect
from mtserver.codecs import BytesCodec, TextCodec
from mtserver.dispatch.message_ids import Numbered, NumberedCodec, Resume
from mtserver.errors import BadMessage
from mtserver.journal import Batch
from mtserver.journal.client_journal import ClientJournal
from mtserver.journal.sqlite import file as file_module
from mtserver.journal.sqlite import journal as sqlite
from mtserver.journal.sqlite.writer import Writer
from mtserver.testing import Harness
from tests.authcase import plain
from tests.controls import ControlCase
from tests.journalcase import Later

FORM = b"ERR bad-message a message begins with @<id> and a space; an id, like a name, is 1 to 64 printable characters"
NO_NAME = b"ERR bad-message RESUME <name>: an id, like a name, is 1 to 64 printable characters"
NAMELESS = b"ERR bad-message say RESUME <name> first: ids are known by it"
AWAY = b"ERR unavailable retry-after=1 the journal cannot store this now"
GRAPHIC = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


class Reading(Struct):
    celsius: float


class IdsCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "journal.db"
        self.patch(file_module, "BUSY_TIMEOUT", 10)

    def serve(self, handler: Any, **settings: Any) -> Harness:
        harness = Harness(handler, journal=f"sqlite:{self.path}", **{"message_ids": True, **settings})
        self.addCleanup(harness.stop)
        return harness

    def named(self, harness: Harness, name: str = "bob") -> Any:
        client = harness.connect()
        client.send(f"RESUME {name}".encode())
        return client

    def looked(self, sql: str) -> list[Any]:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return list(connection.execute(sql))
        finally:
            connection.close()

    def stored(self) -> list[Any]:
        return self.looked("SELECT id, message FROM messages ORDER BY seq")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, the journal is away."""
        other = apsw.Connection(str(self.path))
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()


class Forms(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = NumberedCodec(BytesCodec())

    @given(GRAPHIC, st.binary(max_size=50))
    def test_message(self, number: str, rest: bytes) -> None:
        """``@<id> `` and whatever the message is."""
        self.assertEqual(self.codec.decode(f"@{number} ".encode() + rest), Numbered(number, rest, rest))

    @given(GRAPHIC)
    def test_resume(self, name: str) -> None:
        """``RESUME`` and a name."""
        self.assertEqual(self.codec.decode(f"RESUME {name}".encode()), Resume(name))

    @given(st.one_of(st.binary(max_size=80), st.from_regex(rb"\A(@|RESUME )?[ -~]{0,70}\Z")))
    def test_anything(self, frame: bytes) -> None:
        """Whatever comes is one of them, or a bad message."""
        try:
            decoded = self.codec.decode(frame)
        except BadMessage:
            return
        if isinstance(decoded, Resume):
            self.assertTrue(frame.startswith(b"RESUME " + decoded.name.encode()))
        else:
            self.assertEqual(frame, b"@" + decoded.id.encode() + b" " + decoded.frame)

    def test_not(self) -> None:
        """Too long, empty, not printable, or something else."""
        for frame in (
            *(
                b"",
                b"@",
                b"@1",
                b"@ x",
                b"1 x",
                b" @1 x",
                b"@1\tx",
                b"@\xc3\xa9 x",
                b"@\x00 x",
                b"@" + b"1" * 65 + b" x",
            ),
            *(b"RESUME", b"resume a"),
        ):
            with self.assertRaises(BadMessage):
                self.codec.decode(frame)
        for frame in (b"RESUME ", b"RESUME a b", b"RESUME \x00", b"RESUME " + b"a" * 65, b"RESUME a\n"):
            self.assertEqual(self.codec.decode(frame), Resume(""))

    def test_of_the_handler(self) -> None:
        """The rest is the handler's to decode: what does not fit is a bad message, whose id is known."""
        codec = NumberedCodec(TextCodec())
        self.assertEqual(codec.decode("@1 é".encode()), Numbered("1", "é".encode(), "é"))
        bad: Any = codec.decode(b"@1 \xff")
        self.assertEqual((bad.id, bad.message), ("1", None))
        self.assertRegex(str(bad.error), "not UTF-8")


class Collect(IdsCase):
    def test_once(self) -> None:
        """Sent again, on the same connection, on another, after a restart: the first number, and stored once."""
        harness = self.serve(collect)
        client = self.named(harness)
        client.send(b"@1 a", b"@2 b", b"@1 a")
        client.send(b"@2 b")
        self.assertEqual(client.received, [b"OK 0", b"OK 1", b"OK 2", b"OK 1 dup", b"OK 2 dup"])
        client = self.named(harness)
        client.send(b"@2 b", b"@3 c")
        self.assertEqual(client.received, [b"OK 2 @2", b"OK 2 dup", b"OK 3"])
        harness.stop()
        client = self.named(self.serve(collect))
        client.send(b"@3 c", b"@4 d")
        self.assertEqual(client.received, [b"OK 3 @3", b"OK 3 dup", b"OK 4"])
        self.assertEqual(self.stored(), [("1", b"a"), ("2", b"b"), ("3", b"c"), ("4", b"d")])

    def test_names(self) -> None:
        """Each name has ids of its own; a client may change its own."""
        harness = self.serve(collect)
        bob, eve = self.named(harness), self.named(harness, "eve")
        bob.send(b"@1 bob's")
        eve.send(b"@1 eve's", b"RESUME bob", b"@1 eve's", b"@2 x", b"RESUME eve")
        self.assertEqual(bob.received, [b"OK 0", b"OK 1"])
        self.assertEqual(eve.received, [b"OK 0", b"OK 2", b"OK 1 @1", b"OK 1 dup", b"OK 3", b"OK 2 @1"])

    def test_identities(self) -> None:
        """An identity needs no name, and nobody else has its ids, whatever he calls himself."""
        harness = self.serve(collect, auth="memory:alice:secret:mallory:secret", auth_insecure=True)

        def login(name: str) -> Any:
            client = harness.connect()
            client.send(plain(name, "secret"))
            return client

        alice, mallory = login("alice"), login("mallory")
        alice.send(b"@1 x", b"@1 x")
        mallory.send(b"@1 x", b"RESUME alice", b"@1 x")
        self.assertEqual(alice.received, [b"OK", b"OK 1", b"OK 1 dup"])
        self.assertEqual(mallory.received, [b"OK", b"OK 2", b"OK 0", b"OK 3"])
        rows = self.looked("SELECT identity, name FROM messages JOIN sources USING (source) ORDER BY seq")
        self.assertEqual(rows, [("alice", ""), ("mallory", ""), ("mallory", "alice")])

    def test_nameless(self) -> None:
        """Without a name nothing is stored; it may still be said."""
        client = self.serve(collect).connect()
        client.send(b"@1 a")
        client.send(b"RESUME bob", b"@1 a")
        self.assertEqual(client.received, [NAMELESS, b"OK 0", b"OK 1"])

    def test_bad(self) -> None:
        """What has no id is a bad message; others in the same segment are stored all the same."""
        client = self.named(self.serve(collect))
        client.send(b"@1 a", b"b", b"@2 c")
        self.assertEqual(client.received, [b"OK 0", b"OK 1", FORM, b"OK 2"])

    def test_bad_name(self) -> None:
        """A RESUME that says no name is refused, and what comes behind it is not stored under the name before."""
        client = self.named(self.serve(collect))
        client.send(b"@1 a", b"RESUME no name", b"@2 b")
        client.send(b"RESUME eve", b"@2 b")
        behind = b"ERR unavailable retry-after=1 RESUME was refused: say it again first"
        self.assertEqual(client.received, [b"OK 0", b"OK 1", NO_NAME, behind, b"OK 0", b"OK 2"])

    def test_without(self) -> None:
        """Without the option these are messages as any other."""
        client = self.serve(collect, message_ids=False).connect()
        client.send(b"RESUME bob", b"@1 a", b"@1 a")
        self.assertEqual(client.received, [b"OK 1", b"OK 2", b"OK 3"])
        self.assertEqual([message for _, message in self.stored()], [b"RESUME bob", b"@1 a", b"@1 a"])

    def test_level(self) -> None:
        """An ack that is not durable says so."""
        self.path = Path(f"{self.path}?durability=fast")
        client = self.named(self.serve(collect, ack="accepted"))
        client.send(b"@1 a", b"@1 a", b"RESUME bob")
        self.assertEqual(client.received, [b"OK 0", b"OK 1 accepted", b"OK 1 accepted dup", b"OK 1 accepted @1"])


class Order(IdsCase):
    def test_not_overtaken(self) -> None:
        """What could not be stored is not overtaken by what comes behind it, until it has come again."""
        client = self.named(self.serve(collect))
        client.send(b"@1 a")
        with self.locked():
            client.send(b"@2 b", b"@3 c")
        client.send(b"@4 d", b"@3 c")
        client.send(b"@5 e", b"@2 b", b"@3 c")
        client.send(b"@4 d")
        behind = b"ERR unavailable retry-after=1 @2 was refused: send it again first, or say RESUME"
        self.assertEqual(
            client.received,
            [b"OK 0", b"OK 1", AWAY, AWAY, behind, behind, behind, b"OK 2", b"OK 3", b"OK 4"],
        )
        self.assertEqual([number for number, _ in self.stored()], ["1", "2", "3", "4"])

    def test_resume(self) -> None:
        """Or until the client has asked where to go on."""
        client = self.named(self.serve(collect))
        client.send(b"@1 a")
        with self.locked():
            client.send(b"@2 b")
            client.send(b"RESUME bob", b"@2 b")
        client.send(b"@9 z")
        client.send(b"RESUME bob", b"@9 z")
        behind = b"ERR unavailable retry-after=1 @2 was refused: send it again first, or say RESUME"
        self.assertEqual(client.received, [b"OK 0", b"OK 1", AWAY, b"OK 1 @1", AWAY, behind, b"OK 1 @1", b"OK 2"])

    def test_resume_that_fails(self) -> None:
        """What was sent behind a RESUME without an answer is not stored under the name that came before, or none."""
        with self.locked():  # since before the server has come to open it
            client = self.serve(collect, auth="memory:alice:secret", auth_insecure=True).connect()
            client.send(plain("alice", "secret"), b"RESUME bob", b"@1 a")
        client.send(b"@2 b")
        behind = b"ERR unavailable retry-after=1 RESUME was refused: say it again first"
        self.assertEqual(client.received, [b"OK", AWAY, behind, behind])
        client.send(b"RESUME bob", b"@1 a")
        self.assertEqual(client.received[4:], [b"OK 0", b"OK 1"])
        self.assertEqual(self.looked("SELECT identity, name FROM sources"), [("alice", "bob")])


class Handlers(IdsCase):
    def test_journal(self) -> None:
        """A handler's message is stored under its id; a handler may see the id, and whether it is a duplicate."""

        class Noting(Handler):
            async def received(self, message: bytes) -> bytes:
                number = self.client.message_id
                ack = await self.client.journal(message.upper())
                return b"%s %s %s %s" % (bytes(ack), str(number).encode(), self.client.name.encode(), message)

        client = self.named(self.serve(Noting))
        client.send(b"@1 a", b"@2 b", b"@1 c")
        self.assertEqual(client.received, [b"OK 0", b"OK 1 1 bob a", b"OK 2 2 bob b", b"OK 1 dup 1 bob c"])
        self.assertEqual(self.stored(), [("1", b"A"), ("2", b"B")])

    def test_ack_returned(self) -> None:
        """An acknowledgement may be returned as it is, also by a function, and of text."""

        async def keep(client: Client, message: str) -> Ack:
            return await client.journal(message)

        client = self.named(self.serve(keep))
        client.send("@1 é", "@1 é")
        self.assertEqual(client.received, ["OK 0", "OK 1", "OK 1 dup"])
        self.assertEqual(self.stored(), [("1", "é".encode())])

    def test_typed(self) -> None:
        """Where messages are typed, so are acknowledgements; what does not fit is never stored, nor overtaken."""

        async def keep(client: Client, message: Reading) -> Ack:
            return await client.journal(message)

        client = self.named(self.serve(keep))
        client.send(b'@1 {"celsius": 21}', b'@1 {"celsius": 21}', b'@2 {"celsius": "warm"}', b'@3 {"celsius": 22}')
        client.send(b'@2 {"celsius": 21}', b'@3 {"celsius": 22}')
        said = [each.get("error", each) for each in client.received]
        good = [{"ok": 0}, {"ok": 1}, {"ok": 1, "dup": True}]
        self.assertEqual(said, [*good, "bad-message", "unavailable", {"ok": 2}, {"ok": 3}])
        self.assertEqual([number for number, _ in self.stored()], ["1", "2", "3"])

    def test_in_one_go(self) -> None:
        """What is stored for one message is stored in one go: the half of it would be a duplicate next time."""

        async def twice(client: Client, message: bytes) -> bytes:
            await client.journal(message)
            await client.journal(message)
            return b"not reached"

        async def other_id(client: Client, message: bytes) -> bytes:
            await client.journal(message)
            await client.journal(message, id="")
            await client.journal(message, id="other")
            return b"done"

        client = self.named(self.serve(twice))
        client.send(b"@1 a")
        self.assertEqual(client.received, [b"OK 0", b"ERR internal the handler failed"])
        client = self.named(self.serve(other_id), "eve")
        client.send(b"@1 a", b"@1 a")
        self.assertEqual(client.received, [b"OK 0", b"done", b"done"])
        rows = self.looked("SELECT id FROM messages ORDER BY seq")
        self.assertEqual([number for (number,) in rows], ["1", "1", None, "other", None])

    def test_one_transaction(self) -> None:
        """So it is with transactions: one for a message, whatever came first, in tasks as well."""

        async def twice(client: Client, message: bytes) -> bytes:
            if message == b"after journal":
                await client.journal(message)
            else:
                async with client.transaction():
                    pass
            async with client.transaction():
                entered.append(message)
            return b"entered"

        entered: list[bytes] = []
        for message in (b"after journal", b"after a transaction"):
            client = self.named(self.serve(twice), "eve")
            client.send(b"@" + message[-7:] + b" " + message)
            client.send(b"@" + message[-7:] + b" " + message)
            self.assertEqual(client.received[1], b"ERR internal the handler failed")
        self.assertEqual(entered, [])
        self.assertEqual(len(self.stored()), 2)

    def test_refused_for_good(self) -> None:
        """What a handler refuses, or fails over, is not overtaken either, by itself or in a batch."""

        async def one(client: Client, message: bytes) -> Any:
            if message == b"bad":
                raise BadMessage("no")
            if message == b"fail":
                raise ZeroDivisionError
            return await client.journal(message)

        class Batches(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[Any]:
                return [await one(self.client, messages[0])]

        for handler in (one, Batches):
            for word in (b"bad", b"fail"):
                client = self.named(self.serve(handler), f"{handler.__name__}-{word.decode()}")
                client.send(b"@1 a")
                client.send(b"@2 " + word)
                client.send(b"@3 c")
                client.send(b"@2 b")
                client.send(b"@3 c")
                kinds = [answer.split(b" ")[:2] for answer in client.received[1:]]
                refused = [b"ERR", b"bad-message" if word == b"bad" else b"internal"]
                self.assertEqual(kinds[1:3], [refused, [b"ERR", b"unavailable"]])
                self.assertEqual([kind for kind, _ in kinds], [b"OK", b"ERR", b"ERR", b"OK", b"OK"])

    def test_batches(self) -> None:
        """A handler of batches stores them under their ids, or some of them under those that it names."""

        class Odd(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[Any]:
                ids = list(self.client.own_journal.ids)
                kept = [place for place, message in enumerate(messages) if message != b"even"]
                acks = await self.client.journal_batch(
                    [messages[place] for place in kept], ids=[ids[place] for place in kept]
                )
                replies: list[Any] = [None] * len(messages)
                for place, ack in zip(kept, acks, strict=True):
                    replies[place] = ack
                return replies

        client = self.named(self.serve(Odd))
        client.send(b"@1 odd", b"@2 even", b"@3 odd", b"RESUME bob", b"@1 odd")
        self.assertEqual(client.received, [b"OK 0", b"OK 1", b"OK 2", b"OK 2 @3", b"OK 1 dup"])

    def test_a_batch_that_fails(self) -> None:
        """What a batch raises is what each of its messages is answered; those that are not in it are."""

        class Broken(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                if b"raise" in messages:
                    raise ZeroDivisionError
                return [b"1"]

        client = self.named(self.serve(Broken))
        client.send(b"@1 raise", b"@2 x", b"RESUME bob", b"@3 x", b"RESUME bob", b"@4 x", b"@5 y")
        failed = b"ERR internal the handler failed"
        self.assertEqual(client.received, [b"OK 0", failed, failed, b"OK 0", b"1", b"OK 0", failed, failed])

    def test_one_of_a_batch_is_away(self) -> None:
        """What a batch's handler refuses as unavailable by itself is not overtaken by later batches either."""

        class Some(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[Any]:
                return [Unavailable("not now") if message == b"away" else message for message in messages]

        client = self.named(self.serve(Some))
        client.send(b"@1 a", b"@2 away")
        client.send(b"@3 c")
        client.send(b"@2 b", b"@3 c")
        behind = b"ERR unavailable retry-after=1 @2 was refused: send it again first, or say RESUME"
        self.assertEqual(client.received, [b"OK 0", b"a", b"ERR unavailable retry-after=1 not now", behind, b"b", b"c"])

    def test_blocking(self) -> None:
        """A handler that may block gets its messages in a thread, and sees no ids."""

        class Blocking(Handler):
            def received(self, message: bytes) -> bytes:
                return message.upper()

        def function(client: Client, message: bytes) -> bytes:
            return message * 2

        class Batches(Handler):
            def received_batch(self, messages: list[bytes]) -> list[bytes]:
                return messages[::-1]

        for handler, replies in ((Blocking, [b"A", b"B"]), (function, [b"aa", b"bb"]), (Batches, [b"b", b"a"])):
            client = self.named(self.serve(handler))
            client.send(b"@1 a", b"@2 b")
            self.assertEqual(client.received[1:], replies)

    def test_outside_of_messages(self) -> None:
        """What is stored when no message is handled has no id, unless it is said."""

        class Greeting(Handler):
            async def connected(self) -> None:
                await self.client.journal(b"hello")

            async def received(self, message: bytes) -> Ack:
                return await self.client.journal(message)

            async def disconnected(self, reason: str) -> None:
                await self.client.journal(b"bye", id="")

        harness = self.serve(Greeting)
        client = self.named(harness)
        client.send(b"@1 a")
        client.half_close()
        self.assertEqual(client.received, [b"OK 0", b"OK 2"])
        self.assertEqual(self.stored(), [(None, b"hello"), ("1", b"a"), (None, b"bye")])

    def test_app(self) -> None:
        """Whoever holds the app has the journal."""
        harness = self.serve(App(lambda _client, message: message), message_ids=False)
        journal = harness.app.journal
        self.assertEqual(journal.level, "durable")
        stored = Deferred.fromCoroutine(self.append(journal))
        harness.advance(0)
        self.assertEqual(list(self.successResultOf(stored).sequences), [1])

    @staticmethod
    async def append(journal: Any) -> Any:
        return await journal.append(Batch(0, 0, "", [b"x"]))


class Transactions(IdsCase):
    def counting(self) -> Any:
        class Counting(Handler):
            async def received(self, message: bytes) -> bytes:
                async with self.client.transaction() as db:
                    await db.execute("CREATE TABLE IF NOT EXISTS sums (n)")
                    await db.execute("INSERT INTO sums VALUES (?)", (int(message),))
                return b"done %d" % db.sequence if db.sequence else b"done"

        return Counting

    def test_once(self) -> None:
        """What a handler does in its message's transaction is done once, however often the message comes."""
        harness = self.serve(self.counting())
        client = self.named(harness)
        client.send(b"@1 5", b"@2 6", b"@1 5")
        self.assertEqual(client.received, [b"OK 0", b"done 1", b"done 2", b"OK 1 dup"])
        harness.stop()
        client = self.named(self.serve(self.counting()))
        client.send(b"@2 6")
        self.assertEqual(client.received, [b"OK 2 @2", b"OK 2 dup"])
        self.assertEqual(self.looked("SELECT n FROM sums"), [(5,), (6,)])
        self.assertEqual(self.stored(), [("1", b"5"), ("2", b"6")])

    def test_failed(self) -> None:
        """One that fails leaves nothing, so the message may come again."""
        client = self.named(self.serve(self.counting()))
        client.send(b"@1 no number", b"@1 5")
        self.assertEqual(client.received, [b"OK 0", b"ERR internal the handler failed", b"done 1"])
        self.assertEqual(self.looked("SELECT n FROM sums"), [(5,)])

    def test_away(self) -> None:
        """Where the journal is away it is refused, and not overtaken."""
        client = self.named(self.serve(self.counting()))
        client.send(b"@1 1")
        with self.locked():
            client.send(b"@2 2", b"@3 3")
        client.send(b"@2 2")
        behind = b"ERR unavailable retry-after=1 @2 was refused: send it again first, or say RESUME"
        self.assertEqual(client.received, [b"OK 0", b"done 1", AWAY, behind, b"done 2"])

    def test_duplicate_caught(self) -> None:
        """A handler may answer a duplicate in its own way."""

        async def handle(client: Client, message: bytes) -> bytes:
            try:
                async with client.transaction():
                    return b"new"
            except Duplicate as duplicate:
                return b"again: %d" % duplicate.sequence

        client = self.named(self.serve(handle))
        client.send(b"@1 x", b"@1 x")
        self.assertEqual(client.received, [b"OK 0", b"new", b"again: 1"])

    def test_without_ids(self) -> None:
        """Without ids a message is in the transaction if it is given."""

        async def handle(client: Client, message: str) -> bytes:
            async with client.transaction(message) as db:
                first = db.sequence
            async with client.transaction() as db:
                return f"{first} {db.sequence}"  # type: ignore[return-value]

        client = self.serve(handle, message_ids=False).connect()
        client.send("x", "y")
        self.assertEqual(client.received, ["1 None", "2 None"])

    def test_batches(self) -> None:
        """A transaction is for one message."""

        class Batches(Handler):
            async def received_batch(self, messages: list[bytes]) -> list[bytes]:
                async with self.client.transaction():
                    return messages

        client = self.named(self.serve(Batches))
        client.send(b"@1 x", b"@2 y")
        self.assertEqual(client.received[1:], [b"ERR internal the handler failed"] * 2)
        client.send(b"@1 x")
        self.assertEqual(client.received[3:], [b"x"])


class Pushing(IdsCase):
    def test_back(self) -> None:
        """When too much waits for the disk, clients who send more are not read any further until theirs is stored."""
        self.patch(sqlite, "QUEUE_SIZE", 1000)
        harness = self.serve(collect, message_ids=False)
        clients = [harness.connect() for _ in range(5)]
        clients[0].send(b"first")
        journal: Any = harness.app.journal
        jobs: list[Any] = []
        worker, journal._writer_thread = journal._writer_thread, Later(jobs)
        for client in clients:
            client.send(b"x" * 900)
        readers = harness.reactor.getReaders()
        self.assertEqual([client.transport in readers for client in clients], [True, True, True, False, False])
        for client in clients:
            client.send(b"more")
        while jobs:
            jobs.pop(0)()
            harness.advance(0)
        journal._writer_thread = worker
        readers = harness.reactor.getReaders()
        self.assertEqual([client.transport in readers for client in clients], [True] * 5)
        self.assertEqual([len(client.received) for client in clients], [3, 2, 2, 2, 2])
        self.assertEqual(journal._queued_bytes, 0)

    def test_unavailable(self) -> None:
        """Who is refused is read again as well."""
        harness = self.serve(collect, message_ids=False)
        client = harness.connect()
        client.send(b"first")
        with self.locked():
            client.send(b"x" * 900)
        self.assertEqual(client.received, [b"OK 1", AWAY])
        self.assertIn(client.transport, harness.reactor.getReaders())


class Controls(ControlCase):
    def test_effect_twice(self) -> None:
        """P2: a transaction is begun although its message was stored before."""
        right = Writer.begin

        def wrong(writer: Writer, batch: Batch | None) -> Any:
            return right(writer, batch and batch._replace(ids=["new" + each for each in batch.ids]))

        with self.noticed_by(Transactions, "test_once"):
            self.patch(Writer, "begin", wrong)

    def test_overtaken(self) -> None:
        """P3: what was refused is overtaken by what comes behind it."""
        with self.noticed_by(Order, "test_not_overtaken"):
            self.ignore(ClientJournal, "behind", "")

    def test_says_more_than_it_is(self) -> None:
        """P1: an acknowledgement is called durable that is not."""
        right = Ack.__bytes__
        with self.noticed_by(Collect, "test_level"):
            self.patch(Ack, "__bytes__", lambda ack: right(ack._replace(level="durable")))
