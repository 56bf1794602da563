"""Messages of nodes about groups: subjects, packets, what waits to be sent, who is where. Nothing is sent."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError, HandlerError
from mtserver.groups import NAME_SIZE, Change, Member, check_groups, nats, open_groups, outgoing
from mtserver.groups import members as members_module
from mtserver.groups.barriers import RECENT, ReturnBarrier
from mtserver.groups.members import SHEET, SILENCE, OtherNodes, OwnMembers, Sheet
from mtserver.groups.nats import NatsGroups
from mtserver.groups.outgoing import COST, MAX_HELD, Outgoing
from mtserver.groups.wire import TOKEN_SIZE, name_with, pack, room_for, token_of, unpack
from mtserver.settings import Settings
from tests.controls import ControlCase
from tests.journalcase import started
from tests.logcase import LogCase

NODE = b"12345678"
NAMES = st.one_of(
    st.text(min_size=1, max_size=NAME_SIZE, alphabet=st.characters(exclude_categories=["Cs"])),
    st.text(min_size=1, max_size=8, alphabet="=*.>aA23DE é\n"),
)


class Subjects(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(NAMES, NAMES)
    def test_injective(self, one: str, two: str) -> None:
        """Different names have different tokens, legal in a subject, and short."""
        self.assertEqual(token_of(one) == token_of(two), one == two)
        for token in (token_of(one), token_of(two)):
            self.assertRegex(token, r"\A[A-Za-z0-9_=-]+\Z")
            self.assertLessEqual(len(token), TOKEN_SIZE)

    def test_tokens(self) -> None:
        """A name that can be its own token is; a name that is too long is sent along."""
        for name, token in (("a-B_9", "a-B_9"), ("*", "=2A"), ("a.>", "a=2E=3E"), ("=", "=3D"), ("é", "=C3=A9")):
            self.assertEqual(token_of(name), token)
            self.assertEqual(name_with(name), "")
        self.assertTrue(token_of("x" * 128).startswith("=="))
        self.assertEqual(name_with("x" * 128), "x" * 128)


class Packets(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(NAMES, st.lists(st.binary(max_size=60), max_size=12), st.integers(0, 200))
    def test_round_trip(self, name: str, messages: list[bytes], more: int) -> None:
        """Messages that are packed are unpacked, in order; no packet is longer than it may be."""
        most = 2000 - room_for(name, 2000) + max(map(len, messages), default=0) + more
        found: list[bytes] = []
        for count, packet in pack(NODE, name, messages, most):
            self.assertLessEqual(len(packet), most)
            unpacked = unpack(packet)
            self.assertEqual((unpacked.node, unpacked.name), (NODE, name_with(name)))
            self.assertEqual(len(unpacked.messages), count)
            found += unpacked.messages
        self.assertEqual(found, messages)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60), st.integers(0, 40))
    def test_anything(self, data: bytes, cut: int) -> None:
        """Any bytes are a packet or a ValueError."""
        ((_, packet),) = pack(NODE, "é" * 128, [b"abc", b""], 10_000)
        for each in (data, b"\x01" + data, packet[:cut], packet + data, packet[: len(packet) - 1]):
            try:
                unpack(each)
            except ValueError:
                continue
        self.assertRaises(ValueError, unpack, packet[:-1])
        self.assertRaises(ValueError, unpack, b"\x02" + packet[1:])


class Sending(SynchronousTestCase):
    def test_together(self) -> None:
        """All that is said to a group meanwhile is taken together, in its order; groups in theirs."""
        outgoing = Outgoing()
        outgoing.connected = True
        for group, message in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            outgoing.add(group, message, waits=False)
        self.assertEqual(outgoing.take(), ("a", [b"1", b"3"]))
        outgoing.sent(2)
        self.assertEqual(outgoing.take(), ("b", [b"2"]))
        outgoing.sent(1)
        self.assertFalse(outgoing)
        self.assertEqual(outgoing.dropped, 0)

    def test_bounded(self) -> None:
        """Messages are held up to a limit, those being sent included; the rest is counted, and senders wait before."""
        outgoing = Outgoing()
        outgoing.connected = True
        size = MAX_HELD // 10 - COST
        for _ in range(5):
            outgoing.add("a", b"x" * size, waits=False)
        self.assertTrue(outgoing.has_room)
        outgoing.add("a", b"x" * size, waits=False)
        self.assertFalse(outgoing.has_room)
        outgoing.take()
        for _ in range(6):
            outgoing.add("a", b"x" * size, waits=True)
        self.assertEqual(outgoing.dropped, 2)
        outgoing.sent(6)
        self.assertTrue(outgoing.has_room)

    def test_away(self) -> None:
        """While the others are away, only what its sender waits for is kept for them; the rest is counted."""
        outgoing = Outgoing()
        outgoing.connected = True
        outgoing.add("a", b"1", waits=False)
        outgoing.add("a", b"2", waits=True)
        outgoing.add("b", b"3", waits=False)
        outgoing.lost(0)
        outgoing.add("a", b"4", waits=False)
        outgoing.add("a", b"5", waits=True)
        self.assertFalse(outgoing.has_room)
        self.assertEqual(outgoing.dropped, 3)
        outgoing.connected = True
        self.assertEqual(outgoing.take(), ("a", [b"2", b"5"]))
        self.assertFalse(outgoing)

    def test_not_sent(self) -> None:
        """Messages taken and not sent, whose sender waits, are taken again, before those added since."""
        outgoing = Outgoing()
        outgoing.connected = True
        for message, waits in ((b"1", False), (b"2", False), (b"3", True), (b"4", True)):
            outgoing.add("a", message, waits=waits)
        outgoing.add("b", b"5", waits=False)
        outgoing.take()
        outgoing.add("a", b"6", waits=False)
        outgoing.sent(1)
        self.assertEqual(outgoing.dropped, 1)
        self.assertEqual(outgoing.take(), ("a", [b"3", b"4", b"6"]))

    def test_doubtful(self) -> None:
        """Messages sent without an answered ping, when the connection is lost, are counted; others have arrived."""
        outgoing = Outgoing()
        for count, asked, answered in ((1, 0, 0), (10, 1, 0), (100, 1, 1), (1000, 2, 1)):
            outgoing.sending(count, asked, answered)
        outgoing.lost(1)
        self.assertEqual(outgoing.doubtful, 1110)
        outgoing.lost(1)
        self.assertEqual((outgoing.doubtful, outgoing.dropped), (1110, 0), "it is counted once")

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.booleans(), st.sampled_from(["add", "take", "half", "lost", "up"])),
            max_size=60,
        )
    )
    def test_nothing_disappears(self, steps: list[tuple[str, bool, str]]) -> None:
        """Each message is sent once, in its group's order, or counted as dropped."""
        outgoing = Outgoing()
        added, sent = 0, {"a": [0], "b": [0]}
        for group, waits, step in [*steps, *[("a", False, "take")] * 2]:
            if step == "add":
                added += 1
                outgoing.add(group, b"%d" % added, waits=waits)
            elif step == "lost":
                outgoing.lost(0)
            elif step == "up":
                outgoing.connected = True
            elif outgoing:
                taken, messages = outgoing.take()
                count = len(messages) // 2 if step == "half" else len(messages)
                outgoing.sent(count)
                sent[taken] += map(int, messages[:count])
        for numbers in sent.values():
            self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(len(sent["a"]) + len(sent["b"]) - 2 + outgoing.dropped, added)
        self.assertEqual(outgoing._size, 0)


def member(client: int, label: str = "", node: str = "n") -> Member:
    return Member(node, client, "", label)


class Sheets(SynchronousTestCase):
    def test_few(self) -> None:
        """Changes at the same time are written together: many joins fill sheets, each written once."""
        own = OwnMembers()
        for client in range(10 * SHEET):
            own.change("a", None, member(client))
        self.assertEqual(len(own.take()), 10)
        self.assertFalse(own.changed)
        own.change("a", member(3), member(3, "x"))
        own.change("a", member(4), None)
        own.change("b", None, member(1000))
        (sheet,) = own.take()
        self.assertEqual(len(sheet.entries), SHEET)
        self.assertEqual(own.sum, 11)

    def test_not_there(self) -> None:
        """Leaving a group that one is not in changes nothing."""
        own = OwnMembers()
        own.change("a", member(1), None)
        own.change("a", None, None)
        self.assertFalse(own.changed)


class Nodes(SynchronousTestCase):
    def test_alive(self) -> None:
        """A node's members are shown from its sign of life on, until it is silent for too long, or says goodbye."""
        others = OtherNodes()
        sheet = Sheet(0, 1, [("a", 1, "", "x"), ("b", 1, "", "x")])
        self.assertEqual(list(others.receive_sheet("n", sheet, 0)), [])
        self.assertEqual(others.members("a"), [])
        self.assertEqual(len(list(others.receive_beat("n", 1, 1))), 2)
        self.assertEqual(others.members("a"), [member(1, "x")])
        self.assertEqual(others.alive(), {"n"})
        self.assertEqual(list(others.expire(1 + SILENCE)), [])
        gone = list(others.expire(1 + SILENCE + 0.1))
        self.assertEqual(gone, [Change("a", member(1, "x"), None), Change("b", member(1, "x"), None)])
        self.assertEqual((others.members("a"), others.alive(), others._groups), ([], set(), {}))
        list(others.receive_beat("n", 0, 5))
        list(others.receive_sheet("n", sheet, 5))
        self.assertEqual(len(list(others.remove_node("n"))), 2)
        self.assertEqual(list(others.remove_node("n")), [])

    def test_our_own_sleep(self) -> None:
        """Silence while this node did not listen does not count."""
        others = OtherNodes()
        list(others.receive_beat("n", 0, 0))
        others.excuse_silence(10)
        list(others.expire(10 + SILENCE))
        self.assertEqual(others.alive(), {"n"})

    def test_behind(self) -> None:
        """A node that has missed a sheet notices, and an old one changes nothing."""
        others = OtherNodes()
        list(others.receive_beat("n", 0, 0))
        list(others.receive_sheet("n", Sheet(0, 2, [("a", 1, "", "new")]), 0))
        list(others.receive_sheet("n", Sheet(0, 1, [("a", 1, "", "old")]), 0))
        self.assertEqual(others.members("a"), [member(1, "new")])
        for total, behind in ((2, 0), (3, 1), (3, 2), (2, 0)):
            list(others.receive_beat("n", total, 0))
            self.assertEqual(others.behind("n"), behind)
        self.assertEqual(others.versions("n"), {0: 2})
        self.assertEqual((others.versions("m"), others.behind("m")), ({}, 0))

    def test_moved(self) -> None:
        """A member that has moved to another sheet is there, whichever of the two arrives first."""
        others = OtherNodes()
        list(others.receive_beat("n", 0, 0))
        one, two, left = Sheet(0, 1, [("a", 1, "", "")]), Sheet(1, 1, [("a", 1, "", "")]), Sheet(0, 2, [])
        for sheet in (one, two, left):
            list(others.receive_sheet("n", sheet, 0))
        self.assertEqual(others.members("a"), [member(1)])

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_converge(self, data: Any) -> None:
        """However sheets are lost, repeated and reordered, equal sums are equal members; each change is told, once."""
        own, others = OwnMembers(), OtherNodes()
        there: dict[tuple[str, int], Member] = {}
        told: dict[tuple[str, int], Member] = {}
        flying: list[Sheet] = []

        def arrives(changes: Any) -> None:
            for group, before, after in changes:
                key = group, (before or after).client
                self.assertEqual(told.get(key), before)
                if after is None:
                    del told[key]
                else:
                    told[key] = after

        arrives(others.receive_beat("n", 0, 0))
        step = st.tuples(st.sampled_from("ab"), st.integers(0, 90), st.sampled_from(["", "x", None]))
        for changes in data.draw(st.lists(st.lists(step, max_size=90), max_size=8)):
            for group, client, label in changes:
                before = there.pop((group, client), None)
                after = None if label is None else member(client, label)
                if after is not None:
                    there[group, client] = after
                own.change(group, before, after)
            flying += own.take()
            for sheet in data.draw(st.lists(st.sampled_from(flying), max_size=6)) if flying else ():
                arrives(others.receive_sheet("n", sheet, 0))
            arrives(others.receive_beat("n", own.sum, 0))
            if not others.behind("n"):
                self.assertEqual(told, there)
        for number, version in own.versions().items():
            if others.versions("n").get(number) != version:
                arrives(others.receive_sheet("n", own.sheet(number), 0))
        arrives(others.receive_beat("n", own.sum, 0))
        self.assertEqual(others.behind("n"), 0)
        self.assertEqual(told, there)
        shown = {(group, each.client): each for group in "ab" for each in others.members(group)}
        self.assertEqual(shown, there)


class HereAlready:
    """A client of this node."""

    client: Any = SimpleNamespace(id=1, identity=None)
    is_behind = False


class Hearing(LogCase):
    """A node that is not connected, told what NATS would tell it."""

    def setUp(self) -> None:
        super().setUp()
        self.groups: Any = open_groups(Settings(groups="nats://127.0.0.1:1"))
        self.told: list[bytes] = []
        self.groups.begin(lambda members, message, exclude: self.told.append(message), lambda: None)
        self.listener = HereAlready()

    def hear(self, group: str, node: bytes, name: str, *messages: bytes) -> None:
        for _, packet in pack(node, name, messages, 1000):
            self.groups._receive(group, "", "", packet)

    def test_others(self) -> None:
        """Messages of other nodes are delivered to members here; own ones have been delivered before."""
        self.groups.join(self.listener, "a", "")
        self.hear("a", NODE, "a", b"1", b"2")
        self.hear("a", self.groups._id, "a", b"3")
        self.assertEqual(self.told, [b"1", b"2"])

    def test_names(self) -> None:
        """Groups with one hash, if there ever are two, each hear their own."""
        one, two = "x" * 127 + "1", "x" * 127 + "2"
        self.groups.join(self.listener, one, "")
        self.hear(one, NODE, two, b"1")
        self.hear(one, NODE, one, b"2")
        self.assertEqual(self.told, [b"2"])

    def test_odd(self) -> None:
        """Bytes that are no packet, or cannot be sent on, are logged, and cost nobody anything."""
        self.groups.join(self.listener, "a", "")
        self.groups._receive("a", "", "", b"odd")

        def tell(members: Any, message: bytes, exclude: Any) -> None:
            raise HandlerError("no frame for it")

        self.groups.begin(tell, lambda: None)
        self.hear("a", NODE, "a", b"1")
        one, two = self.logged(LogLevel.warn, namespace="mtserver.groups")
        self.assertIn("not understood", one)
        self.assertIn("cannot be sent on: no frame for it", two)

    def test_goodbye(self) -> None:
        """Members of another node are shown, and gone with its goodbye; what is no message of one is logged."""
        presence = self.groups._presence
        changes: list[Change] = []
        self.groups.watch("a", changes.append)
        presence._receive_beat("", "", msgpack.encode(["n", 1]))
        presence._receive_sheet("$KV.mtserver-presence.n.0", "", msgpack.encode([1, [["a", 5, "", "x"]]]))
        self.assertEqual(self.groups.members("a"), [member(5, "x")])
        presence._receive_beat("", "", msgpack.encode(["n", -1]))
        self.assertEqual(self.groups.members("a"), [])
        self.assertEqual(changes, [Change("a", None, member(5, "x")), Change("a", member(5, "x"), None)])
        for hear in (
            presence._receive_beat,
            presence._receive_sheet,
            presence._receive_question,
            presence._receive_answer,
        ):
            hear("odd", "", b"odd")
        presence._receive_answer("", "", msgpack.encode(["sheet", "n", 1, 1, [["a"]]]))
        self.assertEqual(len(self.logged(LogLevel.warn, namespace="mtserver.groups")), 5)

    def test_too_large(self) -> None:
        """A message that NATS would not take is refused, and nobody hears it, here neither."""
        self.groups.join(self.listener, "a", "")
        with self.assertRaisesRegex(HandlerError, "has 1048576 bytes, and 1048561 is what NATS takes"):
            self.groups.send("a", b"x" * 1048576, None, wait=False)
        self.assertEqual(self.told, [])

    def test_missed(self) -> None:
        """Messages that others have missed, or may have missed, are counted, and the counts logged once."""
        self.groups.join(self.listener, "a", "")
        for _ in range(3):
            self.groups.send("a", b"x", None, wait=False)
        self.groups._outgoing.sending(2, 0, 0)
        self.groups._down()
        self.groups._missed(7)
        self.groups._log_missed()
        self.groups._log_missed()
        self.assertEqual(
            self.logged(LogLevel.warn, namespace="mtserver.groups"),
            [
                "members on other nodes have missed 3 messages to groups, and may have missed 2 more",
                "members here have missed 7 packets of messages from other nodes",
            ],
        )
        self.assertEqual(self.told, [b"x"] * 3)

    def test_waited_for(self) -> None:
        """After NATS was lost, whoever was there before is waited for, but for those who have said goodbye."""
        presence = self.groups._presence
        return_barrier = presence.return_barrier
        return_barrier.up(0)
        self.assertTrue(return_barrier.is_complete, "nobody was there")
        for name in ("n", "m", "late"):
            presence._receive_beat("", "", msgpack.encode([name, 0]))
        self.groups._down()
        self.groups._down()
        presence._receive_beat("", "", msgpack.encode(["late", 0]))
        self.assertFalse(return_barrier.is_complete, "NATS is not back")
        return_barrier.up(0)
        presence._receive_beat("", "", msgpack.encode(["n", 0]))
        presence._receive_beat("", "", msgpack.encode(["o", 0]))
        self.assertFalse(return_barrier.is_complete)
        presence._receive_beat("", "", msgpack.encode(["m", -1]))
        self.assertTrue(return_barrier.is_complete)

    def test_waited_for_in_vain(self) -> None:
        """A node that does not come back is not waited for for long, nor is one that was gone before."""
        completed: list[bool] = []
        return_barrier = ReturnBarrier(lambda: completed.append(True))
        return_barrier.seen("gone", 0)
        return_barrier.seen("n", RECENT)
        return_barrier.down(RECENT + 1)
        return_barrier.up(20)
        return_barrier.tick(20 + SILENCE)
        self.assertEqual(completed, [])
        return_barrier.tick(20.1 + SILENCE)
        return_barrier.tick(30)
        self.assertEqual(completed, [True])

    def test_wait(self) -> None:
        """A sender that waits for room waits while the others are away; others do not."""
        waiting = self.groups.send("a", b"x", None, wait=True)
        self.assertTrue(self.groups.tick())
        self.groups._outgoing.connected = True
        self.assertFalse(self.groups.tick())
        self.assertIsNone(self.successResultOf(started(waiting)))


class Descriptions(SynchronousTestCase):
    def test_wrong(self) -> None:
        """A --groups that cannot be is named, with what is wrong with it."""
        for groups, pattern in (
            ("nats:", "--groups nats:: not of the form nats://HOST:4222"),
            ("nats://a:x", "'a:x' is not a server's HOST:PORT"),
            ("nats://a/b.c", "the name 'b.c' is not made of"),
            ("nats://a:1,nats://b:2", "nats:// stands once, before the first of several servers"),
        ):
            with self.assertRaisesRegex(ConfigurationError, re.escape(pattern)):
                check_groups(Settings(groups=groups))

    def test_node(self) -> None:
        """A node's name is new with each start; nothing is opened before the loop runs."""
        opened: list[Any] = [open_groups(Settings(groups="nats://127.0.0.1:1/rooms")) for _ in range(2)]
        for groups in opened:
            self.assertIsInstance(groups, NatsGroups)
            self.assertFalse(groups.connected)
        self.assertNotEqual(opened[0]._node, opened[1]._node)


class Controls(ControlCase):
    def test_ones_own_words_come_back(self) -> None:
        """Members hear what their own node has said twice."""
        with self.noticed_by(Hearing, "test_others"):
            self.patch(nats, "unpack", lambda data: unpack(data)._replace(node=NODE))

    def test_out_of_order(self) -> None:
        """P3: other nodes hear the last first."""
        right = Outgoing.take

        def wrong(outgoing: Outgoing) -> Any:
            group, messages = right(outgoing)
            return group, messages[::-1]

        with self.noticed_by(Sending, "test_together"):
            self.patch(Outgoing, "take", wrong)

    def test_held_without_end(self) -> None:
        """P8: as much waits for the other nodes as is said."""
        with self.noticed_by(Sending, "test_bounded"):
            self.patch(outgoing, "MAX_HELD", 1 << 40)

    def test_the_dead_stay(self) -> None:
        """Members of a node that is silent are there for ever."""
        with self.noticed_by(Nodes, "test_alive"):
            self.patch(members_module, "SILENCE", 1e9)

    def test_a_stop_leaves_members(self) -> None:
        """Who was on a node that has said goodbye is still there."""
        with self.noticed_by(Hearing, "test_goodbye"):
            self.patch(OtherNodes, "remove_node", lambda *_: iter(()))
