"""Ports that differ in app, framing and login, of one server; and several servers in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, Client, Handler
from mtserver.errors import HandlerError
from mtserver.process.service import ServerService
from mtserver.settings import Settings
from mtserver.testing import Harness
from mtserver.testing.harness import _Reactor


async def shout(client: Client, message: bytes) -> bytes:
    return message.upper()


async def mirror(client: Client, message: str) -> str:
    return message[::-1]


class Member(Handler):
    async def connected(self) -> None:
        await self.client.join("all")

    async def received(self, message: bytes) -> None:
        await self.client.app.group("all").send(message)


class Ports(SynchronousTestCase):
    def test_apps_and_framings(self) -> None:
        """Each port has a handler and a framing of its own."""
        harness = Harness(shout, ports=[(mirror, "int16")])
        lines, frames = harness.connect(), harness.connect(port=1)
        lines.send_raw(b"one\n")
        frames.send_raw(b"\0\3one")
        self.assertEqual(lines.received_raw, b"ONE\n")
        self.assertEqual(frames.received_raw, b"\0\3eno")

    def test_one_app_at_two_ports(self) -> None:
        """A broadcast reaches an app's clients at all of its ports, each in its framing; its state is one."""
        app = App(shout)
        harness = Harness(app, ports=[(app, "netstring")])
        clients = [harness.connect(port=place) for place in (0, 1)]
        self.assertEqual(len(app.clients), 2)
        app.broadcast(b"news")
        harness.advance(0)
        self.assertEqual([client.received_raw for client in clients], [b"news\n", b"4:news,"])

    def test_apps_are_told_apart(self) -> None:
        """An app's clients, and who hears its broadcasts, are those of its own ports."""
        app, other = App(shout), App(mirror)
        harness = Harness(app, ports=[(other, "line")])
        mine, theirs = harness.connect(), harness.connect(port=1)
        self.assertEqual([client.id for client in app.clients], [1])
        self.assertEqual([client.id for client in other.clients], [2])
        other.broadcast("news")
        harness.advance(0)
        self.assertEqual((mine.received, theirs.received), ([], ["news"]))

    def test_groups_are_shared(self) -> None:
        """A group is the server's: its members hear it at whatever port, each in its framing, in order."""
        app = App(Member)
        harness = Harness(app, ports=[(app, "int8")])
        clients = [harness.connect(port=place) for place in (0, 1, 0)]
        clients[1].send(b"one", b"two")
        self.assertEqual([client.received for client in clients], [[b"one", b"two"]] * 3)

    def test_what_one_framing_cannot_carry(self) -> None:
        """A message that the framing of one of its listeners cannot carry is its sender's mistake."""
        app = App(shout)
        harness = Harness(app, ports=[(app, "int8")])
        harness.connect()
        self.assertRaises(HandlerError, app.broadcast, b"x" * 300)

    def test_limits_are_shared(self) -> None:
        """--max-clients counts those of all ports; a newcomer is told in the framing of its port."""
        harness = Harness(shout, ports=[(mirror, "int8")], max_clients=1)
        harness.connect()
        refused = harness.connect(port=1)
        self.assertRegex(refused.received[0], r"^ERR busy")

    def test_own_login(self) -> None:
        """A handler's own login is asked for at its port, and nowhere else."""

        class Known(Handler):
            async def authenticate(self, message: bytes) -> str:
                return message.decode()

            async def received(self, message: bytes) -> str | None:
                return self.client.identity

        harness = Harness(shout, ports=[(Known, "line")])
        open_, known = harness.connect(), harness.connect(port=1)
        for client in (open_, known):
            client.send(b"me", b"you")
        self.assertEqual(open_.received, [b"ME", b"YOU"])
        self.assertEqual([client.identity for client in harness.service._apps[1].clients], ["me"])

    def test_lifespans(self) -> None:
        """The lifespan of each app is entered once, in the order of the ports, and left in the opposite one."""
        told: list[str] = []

        @asynccontextmanager
        async def first(app: App) -> AsyncIterator[None]:
            told.append("first")
            yield
            told.append("first left")

        @contextmanager
        def second(app: App) -> Iterator[None]:
            told.append("second")
            yield
            told.append("second left")

        one = App(shout, lifespan=first)
        harness = Harness(one, ports=[(App(mirror, lifespan=second), "line"), (one, "int8")])
        harness.stop()
        self.assertEqual(told, ["first", "second", "second left", "first left"])

    def test_drain(self) -> None:
        """A stop ends the clients of all ports."""
        harness = Harness(shout, ports=[(mirror, "line")])
        clients = [harness.connect(port=place) for place in (0, 1)]
        harness.stop()
        for client in clients:
            self.assertTrue(client.disconnected)


class Servers(SynchronousTestCase):
    def test_several(self) -> None:
        """An application may have any number of servers, each with clients of its own."""
        reactor: Any = _Reactor()
        application = MultiService()
        apps = [App(shout), App(mirror)]
        for app, port in zip(apps, ("1", "2"), strict=True):
            ServerService(Settings(port=(port,)), app, reactor).setServiceParent(application)
        application.privilegedStartService()
        application.startService()
        reactor.advance(0)
        reactor.advance(0)
        self.assertEqual([port for port, *_ in reactor.tcpServers], [1, 2])
        for app in apps:
            self.assertEqual(list(app.clients), [])
        stopped: list[Any] = []
        application.stopService().addBoth(stopped.append)
        reactor.advance(1)
        self.assertEqual(len(stopped), 1)
