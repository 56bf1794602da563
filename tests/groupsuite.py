"""
What groups promise, wherever they are kept: one suite for ``memory:`` and for ``nats:``, on fakes and on real nodes.

A test talks to :mod:`tests.rooms` through :class:`Talker`; where its talkers are connected is the case's business. What
others are told of members takes a moment between nodes, so it is asked for until it is so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class Talker(ABC):
    """One client."""

    def __init__(self) -> None:
        #: Messages heard of its groups, in order.
        self.heard: list[str] = []
        #: Changes told of their members.
        self.told: list[str] = []

    @abstractmethod
    def send(self, *lines: str) -> None: ...

    @abstractmethod
    def line(self) -> str:
        """The next line that it is sent; a failure where there is none."""

    @abstractmethod
    def leave(self) -> None:
        """Be gone."""

    def pause(self) -> None:  # noqa: B027 - many read only when they are asked to
        """Read nothing until told to go on."""

    def go_on(self) -> None:  # noqa: B027 - likewise
        """Read again."""

    def ask(self, line: str) -> str:
        """Say this; the answer."""
        self.send(line)
        while self._keep(answer := self.line()):
            pass
        return answer

    def _keep(self, line: str) -> bool:
        if line.startswith("!"):
            self.heard.append(line)
        elif line.startswith("*"):
            self.told.append(line)
        else:
            return False
        return True

    def hear(self, count: int) -> list[str]:
        """Return the next lines of its groups; each is heard once."""
        while len(self.heard) < count:
            line = self.line()
            assert self._keep(line), line
        heard, self.heard = self.heard[:count], self.heard[count:]
        return heard

    def be_told(self, count: int) -> list[str]:
        """Return the next changes of their members; each is told once."""
        while len(self.told) < count:
            line = self.line()
            assert self._keep(line), line
        told, self.told = self.told[:count], self.told[count:]
        return told


class GroupSuite:
    """The tests; mixed into a case that has `talkers`."""

    def talkers(self: Any, count: int) -> list[Talker]:
        """Connect so many clients, on as many nodes as there are."""
        raise NotImplementedError

    def soon(self: Any, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition, for a moment."""
        raise NotImplementedError

    def test_members_hear(self: Any) -> None:
        """Members hear what a group is told, each once, the sender among them; others do not."""
        one, two, three, four = self.talkers(4)
        for talker in (one, two, three):
            self.assertEqual(talker.ask("join a"), "ok")
        self.assertEqual(four.ask("join b"), "ok")
        self.assertEqual(one.ask("say a hello"), "ok")
        self.assertEqual(one.ask("say b end"), "ok")
        self.assertEqual(one.ask("say a end"), "ok")
        for talker in (one, two, three):
            self.assertEqual(talker.hear(2), ["! a hello", "! a end"])
        self.assertEqual(four.hear(1), ["! b end"])

    def test_all_but_one(self: Any) -> None:
        """One may be left out, and anybody may tell a group something without being in it."""
        one, two, three, four = self.talkers(4)
        for talker in (one, two, three):
            talker.ask("join a")
        one.ask("others a 1")
        four.ask("say a 2")
        self.assertEqual(two.hear(2)[0], "! a 1")
        self.assertEqual(three.hear(2)[0], "! a 1")
        self.assertEqual(one.hear(1), ["! a 2"])

    def test_moment(self: Any) -> None:
        """A client that has joined hears what is said then, wherever it is said; one that has left hears no more."""
        talkers = self.talkers(6)
        for number, talker in enumerate(talkers):
            self.assertEqual(talker.ask("join a"), "ok")
            for teller in range(6):
                talkers[teller].ask(f"say a {number}.{teller}")
            # (Who joins while something is on its way may hear that as well.)
            for member in talkers[: number + 1]:
                self.assertEqual(sorted(member.hear(6)), [f"! a {number}.{teller}" for teller in range(6)])
        self.assertEqual(talkers[5].ask("leave a"), "ok")
        talkers[0].ask("say a after")
        for talker in talkers[:5]:
            self.assertEqual(talker.hear(1), ["! a after"])
        for number in range(12):
            joins, tells = talkers[number % 6], talkers[(number + 1) % 6]
            self.assertEqual(joins.ask(f"join c{number}"), "ok")
            self.assertEqual(tells.ask(f"say c{number} first"), "ok")
            self.assertEqual(joins.hear(1), [f"! c{number} first"])
        talkers[5].ask("join b")
        talkers[0].ask("say b end")
        self.assertEqual(talkers[5].hear(1), ["! b end"])

    def test_order(self: Any) -> None:
        """Messages of one sender to one group are heard in their order, however many send at once, and none twice."""
        talkers = self.talkers(6)
        for talker in talkers:
            talker.ask("join a")
        for number, talker in enumerate(talkers[:3]):
            talker.send(*(f"many a {number * 1000 + first} 50" for first in range(0, 500, 50)))
        for talker in talkers:
            while len(talker.heard) < 1500:
                talker._keep(talker.line())
            numbers = [int(line.rpartition(" ")[2]) for line in talker.hear(1500)]
            for number in range(3):
                self.assertEqual(
                    [each for each in numbers if each // 1000 == number], [*range(number * 1000, number * 1000 + 500)]
                )

    def test_names(self: Any) -> None:
        """A name is a name, whatever it means to others: what one is told none of the others hears."""
        names = [
            "*",
            ">",
            "a",
            "a.>",
            "a.*",
            "a.b",
            "é",
            "$SYS",
            "=",
            "=2A",
            "==",
            "..",
            "x" * 128,
            "é" * 127 + "1",
            "é" * 127 + "2",
        ]
        one, two, three = self.talkers(3)
        for name in names:
            self.assertEqual(two.ask(f"join {name}"), "ok")
        for name in names:
            one.ask(f"say {name} hello")
        self.assertEqual(sorted(two.hear(len(names))), sorted(f"! {name} hello" for name in names))
        self.assertEqual(three.ask("join " + "x" * 129), "bad-message the name of a group has 1 to 128 characters")

    def test_large(self: Any) -> None:
        """Messages as large as they may be are heard as they are, however many are said at once."""
        one, two = self.talkers(2)
        two.ask("join a")
        texts = [f"{number}" * 60_000 for number in range(1, 10)]
        one.send(*(f"say a {text}" for text in texts))
        self.assertEqual(two.hear(9), [f"! a {text}" for text in texts])

    def test_wait(self: Any) -> None:
        """A sender that may wait does not, where there is room."""
        one, two = self.talkers(2)
        two.ask("join a")
        for _ in range(20):
            self.assertEqual(one.ask("wait a 1000"), "ok")
        self.assertEqual(two.hear(20), ["!" * 1000] * 20)

    def test_wait_for_room(self: Any) -> None:
        """A sender that may wait does, while a member of its node does not read, which hears it later."""
        # (On three nodes, every third is on the same one.)
        one, _, _, slow, _, _, other = self.talkers(7)
        slow.ask("join a")
        slow.pause()
        one.send(*["wait a 60000"] * 600)
        self.soon(lambda: other.ask("waiting") == "1 wait", "a sender who waits")
        slow.go_on()
        self.assertEqual(slow.hear(600), ["!" * 60000] * 600)
        self.assertEqual([one.line() for _ in range(600)], ["ok"] * 600)
        self.assertEqual(other.ask("waiting"), "0 wait")

    def test_presence(self: Any) -> None:
        """Members are known everywhere, with their labels, and so is that they are gone."""
        talkers = self.talkers(6)
        for number, talker in enumerate(talkers):
            talker.ask(f"join a n{number}")
        for talker in talkers:
            self.assert_labels(talker, "a", {f"n{number}" for number in range(6)})
        talkers[0].ask("join a renamed")
        talkers[1].ask("leave a")
        talkers[2].leave()
        for talker in (talkers[0], talkers[1], talkers[3]):
            self.assert_labels(talker, "a", {"renamed", "n3", "n4", "n5"})
        self.assertEqual(talkers[3].ask("who nobody"), "who")

    def test_watch(self: Any) -> None:
        """A watcher is told of each change, once, wherever it happens, and not of other groups' changes."""
        one, two, three = self.talkers(3)
        one.ask("watch a")
        two.ask("join a bob")
        self.assertRegex(one.be_told(1)[0], r"^\* a - \d+//bob$")
        two.ask("join b x")
        two.ask("join a robert")
        self.assertRegex(one.be_told(1)[0], r"^\* a \d+//bob \d+//robert$")
        three.ask("join a eve")
        self.assertRegex(one.be_told(1)[0], r"^\* a - \d+//eve$")
        two.ask("leave a")
        self.assertRegex(one.be_told(1)[0], r"^\* a \d+//robert -$")
        three.leave()
        self.assertRegex(one.be_told(1)[0], r"^\* a \d+//eve -$")

    def test_connected(self: Any) -> None:
        """A handler can see that the nodes hear each other."""
        (one,) = self.talkers(1)
        self.assertEqual(one.ask("connected"), "True")

    def assert_labels(self: Any, talker: Talker, group: str, labels: set[str]) -> None:
        """Wait until these are in the group."""

        def found() -> bool:
            shown = talker.ask(f"who {group}").split(" ")[1:]
            return sorted(each.rpartition("/")[2] for each in shown) == sorted(labels)

        self.soon(found, f"{sorted(labels)} in {group}: {talker.ask(f'who {group}')}")
