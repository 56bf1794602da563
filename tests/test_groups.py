"""Groups of one process: who hears what, in which order, in how many writes; who is told of whom."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel

from mtserver import Client, Refusal
from mtserver.errors import BadMessage, ConfigurationError, HandlerError
from mtserver.groups import Change, check_groups, open_groups
from mtserver.groups.fan_out import FanOut
from mtserver.groups.memory import MemoryGroups
from mtserver.groups.unknown_messages import MOST, WINDOW, UnknownMessages
from mtserver.settings import Settings
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.groupsuite import GroupSuite, Talker
from tests.logcase import LogCase
from tests.rooms import Blocking, Rooms


def in_thread(call: Callable[[], Any]) -> Any:
    """Call a function in another thread; return or raise what it does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


class GroupsCase(LogCase):
    def serve(self, handler: Any = Rooms, **more: Any) -> Harness:
        harness = Harness(handler, **more)
        self.addCleanup(harness.stop)
        return harness

    def clients(self, harness: Harness, count: int, *commands: str) -> list[Any]:
        clients = [harness.connect() for _ in range(count)]
        for client in clients:
            if commands:
                client.send(*commands)
            client.received.clear()
        return clients


class OnHarness(Talker):
    """A client of the harness."""

    def __init__(self, harness: Harness, client: Any) -> None:
        super().__init__()
        self._harness = harness
        self._client = client

    def send(self, *lines: str) -> None:
        self._client.send(*lines)

    def line(self) -> str:
        line: str = self._client.received.pop(0)
        return line

    def leave(self) -> None:
        self._client.reset()

    def pause(self) -> None:
        self._client.read(0)

    def go_on(self) -> None:
        self._client.read(None)
        self._harness.advance(5)


class Promises(GroupSuite, GroupsCase):
    """The suite of all groups."""

    def talkers(self, count: int) -> list[Talker]:
        harness = self.serve()
        return [OnHarness(harness, harness.connect()) for _ in range(count)]

    def soon(self, condition: Any, what: str) -> None:
        self.assertTrue(condition(), what)


class Hearing(GroupsCase):
    def test_members(self) -> None:
        """Members hear what a group is told, the sender among them; others do not."""
        harness = self.serve()
        one, two = self.clients(harness, 2, "join a")
        (three,) = self.clients(harness, 1, "join b")
        one.send("say a hello")
        self.assertEqual([one.received, two.received, three.received], [["! a hello", "ok"], ["! a hello"], []])

    def test_exclude(self) -> None:
        """All but one."""
        one, two = self.clients(self.serve(), 2, "join a")
        one.send("others a hello")
        self.assertEqual([one.received, two.received], [["ok"], ["! a hello"]])

    def test_not_a_member(self) -> None:
        """A client may tell a group something without being in it, also a group that nobody is in."""
        harness = self.serve()
        one, two = self.clients(harness, 2)
        two.send("join a")
        one.send("say a hello", "say nobody x")
        self.assertEqual([one.received, two.received], [["ok", "ok"], ["ok", "! a hello"]])

    def test_moment(self) -> None:
        """A member hears what is said from then on, one that leaves what was said until then, in one segment too."""
        one, two = self.clients(self.serve(), 2, "join a")
        two.send("say a 1", "leave a", "say a 2", "join a", "say a 3", "leave a")
        self.assertEqual(one.received, ["! a 1", "! a 2", "! a 3"])
        self.assertEqual([each for each in two.received if each != "ok"], ["! a 1", "! a 3"])

    def test_one_iteration(self) -> None:
        """Members that come and go hear so also where the loop has not gone round meanwhile."""

        async def handle(client: Client, message: str) -> None:
            group = client.app.group("a")
            first, second = client.app.clients
            await first.join("a")
            for other, what in ((second, "1"), (first, "2")):
                await group.send(f"before {what}")
                await other.join("a")
                await group.send(f"in {what}")
                await other.leave("a")
                await group.send(f"after {what}")

        one, two = self.clients(self.serve(handle), 2)
        one.send("x")
        self.assertEqual(one.received, ["before 1", "in 1", "after 1", "before 2", "in 2"])
        self.assertEqual(two.received, ["in 1"])

    def test_order(self) -> None:
        """Groups, broadcasts, replies and messages to one client are heard by it in the order of sending."""
        one, two = self.clients(self.serve(), 2, "join a", "join b")
        one.send("say a 1", "say b 2", "broadcast 3", "rooms", "say a 4")
        self.assertEqual(one.received, ["! a 1", "ok", "! b 2", "ok", "! 3", "ok", "a b", "! a 4", "ok"])
        self.assertEqual(two.received, ["! a 1", "! b 2", "! 3", "! a 4"])

    def test_one_write(self) -> None:
        """One write for each member however many messages, and however many of its groups they are for."""
        harness = self.serve()
        one, two = self.clients(harness, 2, "join a", "join b")
        (three,) = self.clients(harness, 1, "join b")
        before = [client.transport.writes for client in (two, three)]
        one.send("many a 1 5", "many b 1 5", "many a 6 5", "others b x")
        self.assertEqual([client.transport.writes for client in (two, three)], [before[0] + 1, before[1] + 1])
        self.assertEqual(len(two.received), 16)
        self.assertEqual(len(three.received), 6)

    def test_gone(self) -> None:
        """A client that is gone has left all its groups."""
        harness = self.serve()
        one, two = self.clients(harness, 2, "join a", "join b")
        two.reset()
        one.send("who a", "say a x", "who b")
        self.assertEqual(one.received, ["who 1//", "! a x", "ok", "who 1//"])
        one.half_close()
        self.assertEqual(harness.service._groups._groups, {})  # type: ignore[attr-defined]

    def test_names(self) -> None:
        """Any text is a name and no more than that; one that cannot be is refused."""
        (one,) = self.clients(self.serve(framing="int16"), 1)
        for name in ("*", "a.>", "é", "..", "$SYS", "\n", "x" * 128):
            one.send(f"join {name}", f"say {name} hello", f"leave {name}")
            self.assertEqual(one.received[-4:], ["ok", f"! {name} hello", "ok", "ok"])
        one.send("join ", "join " + "x" * 129, "say  x", "join a " + "x" * 129)
        refused = "bad-message the name of a group has 1 to 128 characters"
        self.assertEqual(one.received[-4:], [refused] * 3 + ["bad-message a label has 128 characters at most"])

    def test_most(self) -> None:
        """A client is in --max-groups of them at most; to join one again is no matter."""
        (one,) = self.clients(self.serve(max_groups=2), 1, "join a", "join b")
        one.send("join c", "join a", "leave a", "join c", "rooms")
        self.assertEqual(one.received, ["busy in 2 groups already, which is the most", "ok", "ok", "ok", "b c"])

    def test_threads(self) -> None:
        """A handler that blocks joins and tells without waiting, in its order."""
        one, two = self.clients(self.serve(Blocking), 2)
        two.send("join a")
        one.send("join a", "say a 1", "leave a", "say a 2", "join ")
        self.assertEqual(two.received, ["ok", "1", "2"])
        self.assertEqual(one.received[-1], "the name of a group has 1 to 128 characters")
        self.assertEqual([each for each in one.received if each in ("1", "2")], ["1"])

    def test_refused_in_threads(self) -> None:
        """A thread is told of what cannot be before it goes on: a group too many, a message that no frame can carry."""
        harness = self.serve(max_groups=1)
        self.clients(harness, 1, "join a")
        (one,) = harness.clients
        with self.assertRaisesRegex(Refusal, "in 1 groups already, which is the most"):
            in_thread(partial(one.join, "b"))
        with self.assertRaisesRegex(HandlerError, "newline"):
            in_thread(partial(harness.app.group("a").send, "a\nb"))
        in_thread(partial(one.join, "a", label="x"))
        in_thread(partial(harness.app.group("a").send, "fits"))
        harness.advance(0)
        self.assertEqual([member.label for member in harness.app.group("a").members()], ["x"])
        self.assertEqual(self.logged(LogLevel.critical), [])

    def test_looking_from_threads(self) -> None:
        """Members may be asked for in any thread; watching is for the loop's, which is said."""
        harness = self.serve()
        self.clients(harness, 1, "join a")
        (one,) = harness.clients
        group = harness.app.group("a")
        self.assertEqual([member.client for member in in_thread(group.members)], [one.id])
        self.assertEqual(list(in_thread(lambda: one.groups)), ["a"])
        with self.assertRaisesRegex(HandlerError, "is for those who run in the loop: async def"):
            in_thread(partial(group.watch, print))

    def test_mistakes(self) -> None:
        """Arguments that exclude nobody, watch nothing or name no group are refused where they stand in the app."""
        harness = self.serve()
        harness.connect()
        (client,) = harness.app.clients
        group = harness.app.group("a")
        for tell in (group.send, harness.app.broadcast):
            for exclude in ("bob", client.id):
                with self.assertRaisesRegex(HandlerError, "exclude is a client, and no"):
                    tell("x", cast("Any", exclude))

        async def changed(_: object) -> None: ...

        for watcher in (5, None, changed):
            with self.assertRaisesRegex(HandlerError, r"group.watch\(\) takes a function of the change"):
                group.watch(cast("Any", watcher))
        with self.assertRaisesRegex(BadMessage, "the name of a group"):
            client.leave(cast("Any", 5))

    def test_unfit(self) -> None:
        """A message that the framing cannot carry is its sender's mistake, and nobody else's."""

        async def handle(client: Client, message: str) -> str:
            await client.join("a")
            await client.app.group("a").send(message.replace("_", "\n"))
            return "ok"

        one, two = self.clients(self.serve(handle), 2, "x")
        one.received.clear()
        one.send("a_b", "fine")
        self.assertEqual(one.received, ["ERR internal the handler failed", "fine", "ok"])
        self.assertEqual(two.received[-1:], ["fine"])

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3), st.sampled_from(["join", "leave", "say", "others"]), st.sampled_from(["a", "b"])
            ),
            max_size=40,
        )
    )
    def test_model(self, steps: list[tuple[int, str, str]]) -> None:
        """Each client hears what its groups were told while it was in them, once and in order, whatever is done."""
        harness = self.serve()
        clients = self.clients(harness, 4)
        rooms: dict[str, set[int]] = {"a": set(), "b": set()}
        wanted: list[list[str]] = [[] for _ in clients]
        for number, (who, verb, room) in enumerate(steps):
            clients[who].send(f"{verb} {room} {number}" if verb in ("say", "others") else f"{verb} {room}")
            if verb == "join":
                rooms[room].add(who)
            elif verb == "leave":
                rooms[room].discard(who)
            else:
                for member in rooms[room] - ({who} if verb == "others" else set()):
                    wanted[member].append(f"! {room} {number}")
        self.assertEqual([[each for each in client.received if each != "ok"] for client in clients], wanted)
        harness.stop()


class Seeing(GroupsCase):
    def test_members(self) -> None:
        """Members have an identity and a label; joining again changes the label."""
        harness = self.serve()
        one, two = self.clients(harness, 2)
        one.send("join a bob", "who a", "join a robert", "who a", "who nobody")
        two.send("join a", "who a")
        self.assertEqual(one.received, ["ok", "who 1//bob", "ok", "who 1//robert", "who"])
        self.assertEqual(two.received, ["ok", "who 1//robert 2//"])

    def test_watch(self) -> None:
        """A watcher is told of each change, until it stops."""
        harness = self.serve()
        one, two = self.clients(harness, 2)
        one.send("watch a")
        two.send("join a bob", "join a bob", "join a robert", "join b", "leave a", "join a")
        two.reset()
        one.send("unwatch", "join a")
        self.assertEqual(
            one.received,
            [
                *("ok", "* a - 2//bob", "* a 2//bob 2//robert", "* a 2//robert -", "* a - 2//", "* a 2// -"),
                *("ok", "ok"),
            ],
        )

    def test_watcher_fails(self) -> None:
        """A watcher that raises is logged, and costs nobody anything."""

        async def handle(client: Client, message: str) -> str:
            def changed(change: Change) -> None:
                raise ZeroDivisionError

            client.app.group("a").watch(changed)
            await client.join("a")
            return "ok"

        (one,) = self.clients(self.serve(handle), 1)
        one.send("x")
        self.assertEqual(one.received, ["ok"])
        (line,) = self.logged(LogLevel.error, namespace="mtserver.groups")
        self.assertRegex(line, "(?s)a watcher of the group a failed.*ZeroDivisionError")


class Limits(GroupsCase):
    def test_slow(self) -> None:
        """A member that does not read is treated as everyone who does not; the others hear all."""
        harness = self.serve(send_buffer=100_000)
        one, two = self.clients(harness, 2, "join a")
        two.read(0)
        for _ in range(60):
            one.send("say a " + "x" * 10_000)
        harness.advance(5)
        self.assertTrue(two.disconnected)
        self.assertEqual(len([each for each in one.received if each.startswith("!")]), 60)

    def test_wait(self) -> None:
        """A sender that waits is held up while a member is behind, and goes on when it has read, or is gone."""
        harness = self.serve(send_buffer=100_000, send_timeout=1000)
        one, two, three = self.clients(harness, 3, "join a")
        for slow in (two, three):
            slow.read(0)
        for _ in range(40):
            one.send("wait a 9000")
            harness.advance(0.1)
        done = one.received.count("ok")
        self.assertGreater(done, 5)
        self.assertLess(done, 40)
        self.assertFalse(two.disconnected)
        two.read(None)
        harness.advance(1)
        self.assertEqual(one.received.count("ok"), done)
        three.reset()
        harness.advance(5)
        self.assertEqual(one.received.count("ok"), 40)
        self.assertEqual(len([each for each in two.received if each.startswith("!")]), 40)

    def test_stopped_while_waiting(self) -> None:
        """A stop ends the wait."""
        harness = self.serve(send_buffer=100_000, send_timeout=1000, drain_timeout=2)
        one, two = self.clients(harness, 2, "join a")
        two.read(0)
        for _ in range(40):
            one.send("wait a 9000")
        harness.stop()
        self.assertTrue(one.disconnected)


class OtherNodes(GroupsCase):
    def test_odd(self) -> None:
        """Unknown messages of other nodes are logged a few times a minute, with the count of the others."""
        unknown = UnknownMessages()
        for _ in range(1000):
            unknown.add("odd\n", 5)
        lines = self.logged(LogLevel.warn, namespace="mtserver.groups")
        self.assertEqual(lines, ["a message of another node is not understood: odd\\n"] * MOST)
        unknown.turn(5 + WINDOW / 2)
        self.assertEqual(len(self.events), MOST)
        unknown.turn(5 + WINDOW)
        unknown.turn(5 + 2 * WINDOW)
        unknown.add("odd", 6 + 2 * WINDOW)
        self.assertEqual(
            self.logged(LogLevel.warn, namespace="mtserver.groups")[MOST:],
            [
                f"{1000 - MOST} more messages of other nodes were not understood",
                "a message of another node is not understood: odd",
            ],
        )

    def test_presence(self) -> None:
        """Unknown messages about presence are limited likewise."""
        groups: Any = open_groups(Settings(groups="nats://127.0.0.1:1"))
        presence = groups._presence
        heard = (presence._receive_beat, presence._receive_sheet, presence._receive_question, presence._receive_answer)
        for _ in range(1000):
            for hear in heard:
                hear("odd", "", b"odd")
        self.assertEqual(len(self.logged(LogLevel.warn, namespace="mtserver.groups")), MOST)


class Descriptions(GroupsCase):
    def test_wrong(self) -> None:
        """A --groups that cannot be is named."""
        with self.assertRaisesRegex(ConfigurationError, "--groups redis:x: neither memory: nor of the form nats"):
            check_groups(Settings(groups="redis:x"))

    def test_connected(self) -> None:
        """Groups in memory are always connected: there are no other nodes."""
        (one,) = self.clients(self.serve(), 1)
        one.send("connected")
        self.assertEqual(one.received, ["True"])


class Controls(ControlCase):
    def test_heard_by_others(self) -> None:
        """Everyone hears what a group is told."""
        right = FanOut.add
        with self.noticed_by(Hearing, "test_moment"):
            self.patch(FanOut, "add", lambda said, frame, exclude, *_: right(said, frame, exclude))

    def test_heard_before_joining(self) -> None:
        """Who joins hears what was said before, and who leaves not what was said until then."""
        right = MemoryGroups.begin
        with self.noticed_by(Hearing, "test_one_iteration"):
            self.patch(MemoryGroups, "begin", lambda groups, tell, _flush: right(groups, tell, lambda: None))

    def test_overtaken_by_a_reply(self) -> None:
        """P3: a reply is heard before what was said before it."""
        with self.noticed_by(Hearing, "test_order"):
            self.patch(FanOut, "catch_up", lambda *_: None)

    def test_the_departed_stay(self) -> None:
        """Who is gone is still in its groups."""
        with self.noticed_by(Hearing, "test_gone"):
            self.patch(MemoryGroups, "forget", lambda *_: None)

    def test_groups_without_end(self) -> None:
        """P8: a client is in as many groups as it likes."""
        with self.noticed_by(Hearing, "test_most"):
            self.ignore(MemoryGroups, "_max_groups", 1000)
