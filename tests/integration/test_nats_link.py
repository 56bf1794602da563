"""Links to real nats-servers, in this process: which of them are there, what is heard, and what is said of it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any

from nats.aio.client import PING_PROTO
from twisted.logger import LogLevel

from mtserver.errors import BadMessage
from mtserver.groups.nats import NatsGroups
from mtserver.nats import Link, connection, parse_address
from mtserver.nats.connection import Connection
from mtserver.nats.link_log import LINES
from tests.logcase import LogCase

from .nats import Nats, old_server
from .peer import DEADLINE


async def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
    """Wait for something that happens in this loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - anything may
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(*ports: int, needs: str = "", missed: Callable[[int], Any] = lambda _: None) -> Any:
    """A link to servers at these ports."""
    link = Link(parse_address("nats://" + ",".join(f"127.0.0.1:{port}" for port in ports)), "test", needs, missed)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


class LinkCase(LogCase):
    def run_in_loop(self, work: Callable[[], Awaitable[None]]) -> None:
        """In a loop of its own, in a thread: the tests' reactor may be an asyncio loop itself."""

        async def bounded() -> None:
            async with asyncio.timeout(3 * DEADLINE):
                await work()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, bounded()).result()


class Links(LinkCase):
    def test_one_of_two_dead(self) -> None:
        """With one of two servers dead, in whichever way, the other one is all that it takes, and it stays."""
        with Nats() as nats, Nats() as stopped, old_server() as old, closing(socket.socket()) as refused:
            refused.bind(("127.0.0.1", 0))
            stopped.stop()

            async def work() -> None:
                for dead in (refused.getsockname()[1], stopped.ports[0], old):
                    for _ in range(2):  # whichever is tried first
                        await self.stays(dead, nats.ports[0])

            self.run_in_loop(work)

    async def stays(self, *ports: int) -> None:
        async with opened(*ports) as link:
            downs: list[int] = []
            link.watch(lambda: None, lambda: downs.append(1))
            await until(lambda: link.connected)
            asked = link.pings
            await until(lambda: link.pongs > asked + 1)
            self.assertEqual(downs, [])

    def test_subjects_while_connecting(self) -> None:
        """What is subscribed to, or not any more, while a connection is being made is so when it is there."""
        with Nats() as nats:

            async def work() -> None:
                heard: list[bytes] = []

                def listen(_subject: str, _reply: str, data: bytes) -> None:
                    heard.append(data)

                async with opened(nats.ports[0]) as link, opened(nats.ports[0]) as other:
                    gone = link.subscribe("gone", listen)
                    check = link._check_rights

                    async def meanwhile(client: Connection, said: list[Exception]) -> None:
                        self.assertFalse(link.connected)
                        link.subscribe("late", listen)
                        link.unsubscribe(gone)
                        await check(client, said)

                    link._check_rights = meanwhile
                    nats.kill()
                    await until(lambda: not link.connected and not other.connected)
                    nats.start()
                    await until(lambda: link.connected and other.connected)
                    gone = link.subscribe("gone", listen)
                    await link.client.round_trip(DEADLINE)
                    for subject in ("late", "gone"):
                        await other.client.publish(subject, subject.encode())
                    await until(lambda: len(heard) >= 2)
                    link.unsubscribe(gone)
                    await other.client.publish("gone", b"too late")
                    await other.client.publish("late", b"end")
                    await until(lambda: b"end" in heard)
                    self.assertEqual(heard, [b"late", b"gone", b"end"])

            self.run_in_loop(work)

    def test_round_trip(self) -> None:
        """Its answer says that what was published before has arrived, however much that was."""
        with Nats() as nats:

            async def work() -> None:
                heard: list[bytes] = []
                async with opened(nats.ports[0]) as link, opened(nats.ports[0]) as other:
                    other.subscribe("a", lambda *said: heard.append(said[2]))
                    await other.client.round_trip(DEADLINE)
                    for _ in range(10):
                        await link.client.publish("a", b"x" * 100_000)
                    question = link.client.round_trip(DEADLINE)
                    question.send(None)
                    self.assertEqual(link.client._pending[-1], PING_PROTO, "it is asked behind all that is held")
                    question.close()
                    await link.client.round_trip(DEADLINE)
                    await other.client.round_trip(DEADLINE)
                    self.assertEqual(len(heard), 10)

            self.run_in_loop(work)

    def test_bounded(self) -> None:
        """What comes faster than it can be heard waits, up to a bound; beyond that it is dropped and counted."""
        self.patch(connection, "RECEIVED_SIZE", 100_000)
        with Nats() as nats:

            async def work() -> None:
                heard: list[int] = []
                missed: list[int] = []
                async with opened(nats.ports[0], missed=missed.append) as link, opened(nats.ports[0]) as other:
                    link.subscribe("a", lambda *said: heard.append(int(said[2][:4])))
                    await link.client.round_trip(DEADLINE)
                    for number in range(1000):
                        await other.client.publish("a", b"%04d" % number + b"x" * 1000)
                    await other.client.round_trip(DEADLINE)
                    time.sleep(0.2)  # noqa: ASYNC251 - a handler that keeps the loop, while all of it arrives
                    await link.client.round_trip(DEADLINE)
                    await until(lambda: len(heard) + len(missed) == 1000)
                    self.assertGreater(len(missed), 0)
                    self.assertGreater(len(heard), 0)
                    self.assertEqual(heard, sorted(heard))

            self.run_in_loop(work)

    def test_misheard(self) -> None:
        """A listener that fails is logged with its traceback, once, is called again, and the others are as well."""
        with Nats() as nats:

            async def work() -> None:
                heard: list[bytes] = []

                def fail(_subject: str, _reply: str, data: bytes) -> None:
                    heard.append(data)
                    raise BadMessage("canary")

                async with opened(nats.ports[0]) as link, opened(nats.ports[0]) as other:
                    link.subscribe("a", fail)
                    link.subscribe("b", lambda *said: heard.append(said[2]))
                    await link.client.round_trip(DEADLINE)
                    for _ in range(2 * LINES):
                        await other.client.publish("a", b"x")
                    await other.client.publish("b", b"end")
                    await until(lambda: b"end" in heard)
                    self.assertEqual(len(heard), 2 * LINES + 1)

            self.run_in_loop(work)
            (line,) = [each for each in self.logged(LogLevel.warn, namespace="mtserver.nats") if "canary" in each]
            self.assertIn("Traceback", line)

    def test_watchers(self) -> None:
        """A watcher that fails is logged; the link goes on, and so do the other watchers."""
        with Nats() as nats:

            async def work() -> None:
                turns: list[str] = []

                def fail() -> None:
                    raise BadMessage("canary")

                link = Link(parse_address(nats.url), "test")
                link.watch(fail, fail)
                link.watch(lambda: turns.append("up"), lambda: turns.append("down"))
                await link.open()
                nats.kill()
                await until(lambda: turns == ["up", "down"])
                nats.start()
                await until(lambda: turns == ["up", "down", "up"])
                await link.close()

            self.run_in_loop(work)
            lines = [each for each in self.logged(LogLevel.error, namespace="mtserver.nats") if "canary" in each]
            self.assertEqual(len(lines), 4)

    def test_rights(self) -> None:
        """An account that may not say or hear what is needed is like a server that is away, and the log says why."""
        for denied in ("publish", "subscribe"):
            user = f'{{ user: u, password: p, permissions: {{ {denied}: {{ deny: "a.>" }} }} }}'
            config = f"authorization {{ users [ {user} ] }}\nno_auth_user: u\n"
            with Nats(config=config) as nats:

                async def work(nats: Nats = nats) -> None:
                    async with opened(nats.ports[0], needs="b.c") as link:
                        self.assertTrue(link.connected)
                    async with opened(nats.ports[0], needs="a.b") as link:
                        self.assertFalse(link.connected)

                self.run_in_loop(work)
        lines = [each for each in self.logged(LogLevel.warn, namespace="mtserver.nats") if "ermissions" in each]
        self.assertRegex(lines[0], 'NATS is away, and tried again: .*"a.b"')
        self.assertRegex(lines[-1], '"a.b"')

    def test_a_right_that_is_missing(self) -> None:
        """What the server does not let us do is said once, and is not why the connection is lost later."""
        user = '{ user: u, password: p, permissions: { publish: { deny: "a.>" } } }'
        with Nats(config=f"authorization {{ users [ {user} ] }}\nno_auth_user: u\n") as nats:

            async def work() -> None:
                async with opened(nats.ports[0]) as link:
                    for _ in range(3):
                        await link.client.publish("a.b", b"")
                    await link.client.round_trip(DEADLINE)
                    nats.stop()
                    await until(lambda: not link.connected)
                    nats.go_on()

            self.run_in_loop(work)
        lines = self.logged(LogLevel.warn, namespace="mtserver.nats")
        self.assertRegex(
            lines[0], r'NATS: permissions violation for publish to "a\.b" \(nats-py has made capitals small\)'
        )
        self.assertRegex(lines[1], "NATS is away, and tried again: the connection was lost")
        self.assertNotIn("permissions", lines[1])


class Ear:
    """A client of a node, and what it hears."""

    is_behind = False

    def __init__(self, number: int) -> None:
        self.client = self
        self.id = number
        self.identity = ""
        self.heard: list[bytes] = []

    def has_heard(self, count: int) -> bool:
        return len(self.heard) >= count


@asynccontextmanager
async def two_nodes(nats: Nats, ear: Any) -> Any:
    """One that says something, and one with somebody who hears it, who know of each other."""

    def tell(members: Collection[Ear], message: bytes, _: Any) -> None:
        for each in members:
            each.heard.append(message)

    nodes = [NatsGroups(10, parse_address(nats.url)) for _ in range(2)]
    for node in nodes:
        node.begin(tell, lambda: None)
        await node.open()
    try:
        await nodes[1].join(ear, "a", "")
        await until(lambda: nodes[0].members("a"))
        yield nodes
    finally:
        for node in nodes:
            await node.close()


class Counting(LinkCase):
    def test_all_counted(self) -> None:
        """NATS stops (SIGSTOP) under load: what is not heard has been dropped, or may have been, to the last one."""
        with Nats() as nats:

            async def work() -> None:
                ear = Ear(1)
                async with two_nodes(nats, ear) as (sender, _):
                    nats.stop()
                    said = 0
                    began = time.monotonic()
                    while sender.connected or time.monotonic() < began + 1:
                        sender.send("a", b"%d" % said, None, wait=False)
                        said += 1
                        await asyncio.sleep(0.001)
                    outgoing = sender._outgoing
                    self.assertGreater(outgoing.doubtful, 0)
                    missed = said - len(ear.heard)
                    self.assertLessEqual(outgoing.dropped, missed)
                    self.assertLessEqual(missed, outgoing.dropped + outgoing.doubtful)
                    nats.go_on()
                    await until(lambda: sender.connected)

            self.run_in_loop(work)
            (line,) = self.logged(LogLevel.warn, namespace="mtserver.groups")
            self.assertRegex(line, r"have missed \d+ messages to groups, and may have missed [1-9]\d* more")

    def test_waited_for(self) -> None:
        """What a sender waits for is heard when NATS is back, also by a node that finds it later."""
        with Nats() as nats:

            async def work() -> None:
                ear = Ear(1)
                async with two_nodes(nats, ear) as (sender, hearer):
                    check = hearer._link._check_rights

                    async def slowly(*of: Any) -> None:
                        await asyncio.sleep(0.5)
                        await check(*of)

                    hearer._link._check_rights = slowly
                    for turn in range(1, 3):
                        nats.kill()
                        await until(lambda: not sender.connected)
                        waiting = sender.send("a", b"%d" % turn, None, wait=True)
                        sender.send("a", b"dropped", None, wait=False)
                        nats.start()
                        await until(lambda: not sender.tick())
                        await waiting
                        await until(partial(ear.has_heard, turn))
                    self.assertEqual(ear.heard, [b"1", b"2"])
                    self.assertEqual(sender._outgoing.dropped, 2)

            self.run_in_loop(work)
