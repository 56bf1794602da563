"""Chat, as those who talk see it: a line each way."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, Change, Unavailable
from mtserver.apps import chat as module
from mtserver.apps.chat import HELP, HISTORY, NODE, ROOMS
from mtserver.apps.chat import app as chat
from mtserver.journal.sqlite import file
from mtserver.testing import Harness
from tests.authcase import plain


class ChatCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def serve(self, *, anew: bool = True, **settings: Any) -> Harness:
        if anew:
            chat.state.__dict__.clear()
        harness = Harness(chat, journal=f"sqlite:{self.folder / 'journal.db'}", **settings)
        self.addCleanup(harness.stop)
        return harness

    def talk(self, harness: Harness, *lines: str) -> Any:
        """Somebody who has said this, and read the answers."""
        client = harness.connect()
        client.send(*lines)
        client.received.clear()
        return client

    def pause_history(self) -> list[Deferred[None]]:
        """What those who have read the history, and go no further, wait for."""
        pauses: list[Deferred[None]] = []
        read = module.history

        async def read_and_wait(app: App, room: str) -> list[str]:
            found = await read(app, room)
            pauses.append(Deferred())
            await pauses[-1]
            return found

        self.patch(module, "history", read_and_wait)
        return pauses

    def heard(self, client: Any) -> list[str]:
        """Return what it has read since the last time."""
        received = list(client.received)
        client.received.clear()
        return received


class Talking(ChatCase):
    def test_welcome(self) -> None:
        """A client that connects is told what to do."""
        client = self.serve().connect()
        (line,) = self.heard(client)
        self.assertRegex(line, rf"\AWelcome, guest1-{NODE}\. .*/join ROOM.*/help")

    def test_talk(self) -> None:
        """A line is heard by all in the room, once, and by nobody else."""
        harness = self.serve()
        bob = self.talk(harness, "/nick bob", "/join tea")
        eve = self.talk(harness, "/nick eve", "/join tea")
        other = self.talk(harness, "/join coffee")
        self.assertEqual(self.heard(bob), ["[tea] -- eve has come"])
        bob.send("hello", "/me waves", "//join is a command")
        wanted = ["[tea] bob: hello", "[tea] * bob waves", "[tea] bob: /join is a command"]
        for client in (bob, eve):
            self.assertEqual(self.heard(client), wanted)
        self.assertEqual(self.heard(other), [])

    def test_rooms(self) -> None:
        """A person in several rooms talks in the last one joined, also again; after leaving it, in the one before."""
        bob = self.talk(self.serve(), "/nick bob", "/join a", "/join #b")
        bob.send("/rooms", "x", "/join a", "y", "/leave", "z", "/leave #b", "/leave b", "/leave", "w", "/rooms")
        self.assertEqual(
            self.heard(bob),
            [
                *("You are in b, a.", "[b] bob: x", "In a: bob", "[a] bob: y", "You have left a; you talk in b now."),
                *("[b] bob: z", "You have left b.", "You are not in b.", "You are in no room."),
                *("You are in no room; /join one.", "You are in no room."),
            ],
        )

    def test_comings_and_goings(self) -> None:
        """People in a room are told who comes, goes, is cut off, or has another name."""
        harness = self.serve()
        bob = self.talk(harness, "/nick bob", "/join tea")
        eve, mallory = harness.connect(), harness.connect()
        eve.send("/nick eve", "/join tea", "/nick eva", "/leave tea", "/join tea")
        mallory.send("/join tea")
        mallory.reset()
        eve.send("/quit")
        heard = self.heard(bob)  # whenever eve's side ends the connection
        harness.advance(5)
        self.assertEqual(
            heard,
            [
                *("[tea] -- eve has come", "[tea] -- eve is now known as eva", "[tea] -- eva has gone"),
                *("[tea] -- eva has come", f"[tea] -- guest3-{NODE} has come", f"[tea] -- guest3-{NODE} has gone"),
                "[tea] -- eva has gone",
            ],
        )
        self.assertEqual(self.heard(bob), [])
        self.assertEqual(eve.received[-1], "Goodbye, eva.")
        self.assertTrue(eve.disconnected)

    def test_who(self) -> None:
        """The command /who lists the people in a room, one's own or another."""
        harness = self.serve()
        self.talk(harness, "/nick bob", "/join tea")
        eve = self.talk(harness, "/nick eve", "/who", "/who tea", "/who nowhere", "/who not a room")
        eve.send("/who", "/who tea", "/who nowhere", "/join tea", "/who")
        self.assertEqual(
            self.heard(eve),
            ["/who ROOM: of which room?", "In tea: bob", "Nobody is in nowhere.", *["In tea: bob, eve"] * 2],
        )


class Names(ChatCase):
    def test_taken(self) -> None:
        """A name is one person's in a room, however it is written."""
        harness = self.serve()
        self.talk(harness, "/nick bob", "/join tea")
        eve = self.talk(harness, "/nick Bob")
        eve.send("/join tea", "/nick eve", "/join tea", "/nick BOB", "/nick Eve")
        self.assertEqual(
            self.heard(eve),
            [
                "Bob is somebody else in tea; be known by another /nick there.",
                *("You are known as eve.", "In tea: bob, eve", "BOB is somebody else in tea."),
                *("[tea] -- eve is now known as Eve", "You are known as Eve."),
            ][0:6],
        )

    def test_guests(self) -> None:
        """Guests of another node, which counts its clients likewise, are called something else."""
        others = [runpy.run_path(module.__file__)["NODE"] for _ in range(3)]
        self.assertEqual(len({NODE, *others}), 4)

    def test_taken_while_joining(self) -> None:
        """Two people come into a room under one name, the second before the first is done: one is turned away."""
        harness = self.serve()
        pauses = self.pause_history()
        bob, eve = self.talk(harness, "/nick bob"), self.talk(harness, "/nick bob")
        bob.send("/join tea")
        eve.send("/join tea")
        self.assertEqual(self.heard(eve), ["bob is somebody else in tea; be known by another /nick there."])
        harness.fire(pauses[0])
        self.assertEqual(self.heard(bob), ["In tea: bob"])

    def test_taken_elsewhere(self) -> None:
        """A person who finds, having joined, that somebody on another node has the name goes out again."""
        harness = self.serve()
        bob, eve = self.talk(harness), self.talk(harness, "/nick eve", "/join b")
        stop = self.namesake(harness, "tea", "bob")
        bob.send("/nick bob", "/join tea", "/rooms")
        stop()
        refused = "bob is somebody else in tea; be known by another /nick there."
        self.assertEqual(self.heard(bob), ["You are known as bob.", refused, "You are in no room."])
        bob.send("/who tea", "/nick ann", "/join a", "/join b")
        self.assertEqual(self.heard(bob), ["In tea: bob", "You are known as ann.", "In a: ann", "In b: ann, eve"])
        stop = self.namesake(harness, "a", "zoe")
        bob.send("/nick zoe")
        stop()
        self.assertEqual(self.heard(bob)[-1], "zoe is somebody else in a.")
        bob.send("/who a", "/who b", "x")
        self.assertEqual(self.heard(bob), ["In a: ann, zoe", "In b: ann, eve", "[b] ann: x"])
        self.assertEqual(self.heard(eve)[-1], "[b] ann: x")

    def namesake(self, harness: Harness, room: str, name: str) -> Callable[[], None]:
        """As soon as somebody is in a room under this name, somebody else is, too; until what is returned is called."""
        harness.connect()
        (*_, other) = harness.clients

        def changed(change: Change) -> None:
            if change.after is not None and change.after.label == name and change.after.client != other.id:
                other.join(room, label=name)

        return chat.group(room).watch(changed)

    def test_odd(self) -> None:
        """Names of people and rooms are short, and without blanks."""
        bob = self.talk(self.serve())
        bob.send("/nick", "/nick a b", "/nick " + "x" * 33, "/join", "/join a b", "/join " + "x" * 33, "/join #")
        self.assertEqual(
            [re.match(r"/(nick|join) (NAME|ROOM): ", line) is not None for line in self.heard(bob)], [True] * 7
        )

    def test_logged_in(self) -> None:
        """A person who has logged in has that name."""
        harness = self.serve(auth="memory:alice:secret", auth_insecure=True)
        alice = harness.connect()
        alice.send(plain("alice", "secret").decode())
        alice.received.clear()
        alice.send("/nick bob", "/join tea")
        self.assertEqual(self.heard(alice), ["You are alice: that is who you have logged in as.", "In tea: alice"])

    def test_escaped(self) -> None:
        """Text that somebody types moves nobody's cursor."""
        harness = self.serve()
        bob = self.talk(harness, "/join tea\x1b[2J")
        eve = self.talk(harness, "/nick \x1b[31m", "/join tea\x1b[2J")
        eve.send("\x1b]0;title\x07", "/\x1b[2J")
        for client in (bob, eve):
            said = "".join(client.received)
            self.assertNotIn("\x1b", said)
            self.assertIn("\\x1b]0;title\\x07", said)


class Help(ChatCase):
    def test_help(self) -> None:
        """The commands that there are, all of them."""
        bob = self.talk(self.serve())
        bob.send("/help")
        self.assertEqual(self.heard(bob), HELP.splitlines())
        for command in re.findall(r"(?m)^/(\w+)", HELP):
            self.assertTrue(hasattr(chat.handler, f"do_{command}"), command)

    def test_bad(self) -> None:
        """A command that there is not is said to be none; so is one that lacks what it needs; nothing is said by it."""
        bob = self.talk(self.serve(), "/join tea")
        bob.send("/jion tea", "/", "/ join", "/__init__", "/me", "", "  ")
        self.assertEqual(
            self.heard(bob),
            [
                *("There is no /jion; /help lists what there is.", "There is no /; /help lists what there is."),
                *("There is no /; /help lists what there is.", "There is no /__init__; /help lists what there is."),
                "What do you do? /me waves",
            ],
        )

    def test_too_many(self) -> None:
        """Rooms are limited, by the chat or by the server."""
        bob = self.talk(self.serve(), *[f"/join {number}" for number in range(ROOMS)])
        bob.send("/join more")
        self.assertEqual(self.heard(bob), [f"You are in {ROOMS} rooms, which is enough; /leave one."])
        bob = self.talk(self.serve(max_groups=2), "/join 1", "/join 2")
        bob.send("/join 3", "/rooms")
        self.assertEqual(self.heard(bob), ["ERR busy in 2 groups already, which is the most", "You are in 2, 1."])


class History(ChatCase):
    def test_joining(self) -> None:
        """A newcomer reads the last that was said there, and when, also before a restart; nothing of other rooms."""
        harness = self.serve()
        self.talk(harness, "/nick bob", "/join tea", *map(str, range(HISTORY + 5)), "/join b", "other")
        harness.stop()
        eve = self.talk(self.serve(), "/nick eve")
        eve.send("/join tea")
        *old, who = self.heard(eve)
        self.assertEqual(who, "In tea: eve")
        self.assertEqual(
            [line.split(" ", 2)[2] for line in old], [f"[tea] bob: {number}" for number in range(5, HISTORY + 5)]
        )
        self.assertRegex(old[0], r"\A\d{4}-\d\d-\d\d \d\d:\d\d \[tea\]")

    def test_meanwhile(self) -> None:
        """A line said while somebody joins, after the history has been read, is heard."""
        harness = self.serve()
        bob = self.talk(harness, "/nick bob", "/join tea", "before")
        eve = self.talk(harness, "/nick eve")
        pauses = self.pause_history()
        eve.send("/join tea")
        bob.send("meanwhile")
        harness.fire(pauses[0])
        self.assertEqual([line.rpartition(": ")[2] for line in self.heard(eve)], ["meanwhile", "before", "bob, eve"])

    def test_made_anew(self) -> None:
        """Where the journal has been made anew, what was in the old one is not read, and all of the new one is."""
        self.spoken("old", 5)
        remembered = chat.state.recent
        for count in (2, 5, 9):
            for each in self.folder.iterdir():
                each.unlink()
            self.spoken("new", count)
            chat.state.recent = remembered
            eve = self.talk(self.serve(anew=False), "/nick eve")
            eve.send("/join tea")
            read = [line.rpartition(": ")[2] for line in self.heard(eve)]
            self.assertEqual(read, [*(f"new {number}" for number in range(count)), "eve"])

    def spoken(self, what: str, count: int) -> None:
        """Say so many things in a room, have somebody read them there, and stop."""
        harness = self.serve()
        self.talk(harness, "/nick bob", "/join tea", *(f"{what} {number}" for number in range(count)))
        self.talk(harness, "/join tea")
        harness.stop()

    def test_unreadable(self) -> None:
        """Where the journal cannot be read one comes in all the same, and is told."""
        harness = self.serve()
        eve = self.talk(harness, "/nick eve")

        async def away(_app: App, _room: str) -> list[str]:
            raise Unavailable("the journal cannot be read now")

        self.patch(module, "history", away)
        eve.send("/join tea", "/rooms")
        self.assertEqual(
            self.heard(eve), ["What was said before cannot be read now.", "In tea: eve", "You are in tea."]
        )

    def test_others_messages(self) -> None:
        """Messages of other apps in the same journal are left out."""
        harness = self.serve()
        bob = self.talk(harness, "/nick bob", "/join tea", "x")
        for message in (b"\xff", b"5", b'{"room": 5, "text": "x"}', b"[" * 5000, b'{"room": "tea"}'):
            (client,) = harness.clients
            self.assertIsNotNone(client)

            async def store(client: Any = client, message: bytes = message) -> None:
                await client.journal(message)

            Deferred.fromCoroutine(store())
            harness.advance(0)
        harness.advance(2)
        eve = self.talk(harness)
        eve.send("/join tea")
        self.assertEqual([line.split(" ", 2)[2] for line in self.heard(eve)[:-1]], ["[tea] bob: x"])
        self.assertEqual(bob.received[-1], f"[tea] -- guest2-{NODE} has come")

    def test_away(self) -> None:
        """A line that cannot be stored is not heard."""
        self.patch(file, "BUSY_TIMEOUT", 10)
        bob = self.talk(self.serve(), "/join tea")
        with closing(apsw.Connection(str(self.folder / "journal.db"))) as other:
            other.execute("BEGIN IMMEDIATE")
            bob.send("hello")
        bob.send("again")
        (refused, said) = self.heard(bob)
        self.assertRegex(refused, r"\AERR unavailable ")
        self.assertEqual(said, f"[tea] guest1-{NODE}: again")
