"""What clients share: admission, broadcast, the drain, and the app's view of who is there."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Client, Handler
from mtserver.server.admission import REJECTING
from mtserver.settings import Settings
from mtserver.telemetry.events import THREADS_EXHAUSTED, subscribe
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.test_session import Stuck, handler_of, shout

BUSY = rb"^ERR busy retry-after=\d+ too many clients$"


class Admission(SynchronousTestCase):
    def test_max_clients(self) -> None:
        """Over --max-clients a newcomer reads ERR busy with retry-after and is closed; room is room again."""
        harness = Harness(shout, max_clients=2)
        first, _second, third = (harness.connect() for _ in range(3))
        self.assertRegex(third.received[0], BUSY)
        self.assertTrue(third.disconnected)
        first.send(b"a")
        self.assertEqual(first.received, [b"A"])
        first.half_close()
        fourth = harness.connect()
        fourth.send(b"b")
        self.assertEqual(fourth.received, [b"B"])

    def test_handlers_count(self) -> None:
        """Whoever connects, asks and leaves while its handler is at work keeps its place until that is done."""
        harness = Harness(Stuck, max_clients=2)
        for _ in range(2):
            client = harness.connect()
            client.send(b"a")
            handler = handler_of(harness)
            client.reset()
        self.assertEqual(len(harness.app.clients), 0)
        self.assertRegex(harness.connect().received[0], BUSY)
        harness.fire(handler.waiting[0])
        client = harness.connect()
        self.assertEqual(client.received, [])

    def test_handlers_end(self) -> None:
        """A handler that does not get on after its client has gone is cancelled, and its place is free."""
        harness = Harness(Stuck, max_clients=1, drain_timeout=30)
        client = harness.connect()
        client.send(b"a", b"b")
        handler = handler_of(harness)
        client.reset()
        harness.advance(20)
        harness.fire(handler.waiting[0])  # it does get on
        harness.advance(20)
        self.assertRegex(harness.connect().received[0], BUSY)
        harness.advance(15)
        client = harness.connect()
        self.assertEqual(client.received, [])
        harness.stop()
        self.assertFalse(harness.service.failed)

    def test_exhausted_threads(self) -> None:
        """Clients that wait for a thread for long are told of, once."""
        harness = Harness(shout, threads=3)
        told: list[Any] = []
        self.addCleanup(subscribe(lambda _event, fields: told.append(fields), THREADS_EXHAUSTED))
        self.patch(harness.service._threads, "waiting", lambda: True)
        harness.advance(20)
        self.assertEqual(told, [{"threads": 3}])

    def test_max_clients_per_host(self) -> None:
        """--max-clients-per-host counts each address by itself."""
        harness = Harness(shout, max_clients_per_host=1)
        first, refused, other = harness.connect("192.0.2.7"), harness.connect("192.0.2.7"), harness.connect("192.0.2.8")
        other.send(b"a")
        self.assertEqual(other.received, [b"A"])
        self.assertIn(b"too many clients from your address", refused.received[0])
        first.half_close()
        again = harness.connect("192.0.2.7")
        again.send(b"b")
        self.assertEqual(again.received, [b"B"])

    def test_refused_is_dropped(self) -> None:
        """A refused newcomer that stays is cut after a second; one that goes is closed at once."""
        harness = Harness(shout, max_clients=1)
        harness.connect()
        stays, goes = harness.connect(), harness.connect()
        goes.half_close()
        self.assertFalse(goes.transport.connected)
        stays.send(b"whatever")
        self.assertTrue(stays.transport.connected)
        harness.advance(3)
        self.assertFalse(stays.transport.connected)
        self.assertEqual(len(stays.received), 1)

    def test_refusals_are_bounded(self) -> None:
        """In a storm only so many refused ones are waited for; each has been told all the same."""
        harness = Harness(shout, max_clients=1)
        harness.connect()
        refused = [harness.connect() for _ in range(REJECTING * 3)]
        for client in refused:
            self.assertRegex(client.received[0], BUSY)
        self.assertLessEqual(sum(client.transport.connected for client in refused), REJECTING)

    def test_quiet_refusal(self) -> None:
        """With --quiet it is closed without a word."""
        harness = Harness(shout, max_clients=1, quiet=True)
        harness.connect()
        refused = harness.connect()
        self.assertEqual(refused.received_raw, b"")
        self.assertTrue(refused.disconnected)

    def test_drain_closes_refused(self) -> None:
        """A stop does not wait for those who were refused."""
        harness = Harness(shout, max_clients=1)
        client = harness.connect()
        refused = harness.connect()
        client.half_close()
        harness.stop()
        self.assertFalse(refused.transport.connected)


class Clients(SynchronousTestCase):
    def test_clients(self) -> None:
        """app.clients are those connected now."""
        harness = Harness(shout)
        first, _second = harness.connect(), harness.connect()
        self.assertEqual([client.id for client in harness.app.clients], [1, 2])
        self.assertEqual([client.peer for client in harness.app.clients], ["192.0.2.2:50000", "192.0.2.2:50001"])
        first.reset()
        self.assertEqual([client.id for client in harness.app.clients], [2])
        self.assertEqual(repr(next(iter(harness.app.clients))), "<Client 2 192.0.2.2:50001>")

    def test_broadcast(self) -> None:
        """A broadcast reaches all but the excluded, encoded once, one write for each however many messages."""

        async def tell(client: Client, message: bytes) -> None:
            for _ in range(16):
                client.app.broadcast(message, exclude=client)

        harness = Harness(tell)
        clients = [harness.connect() for _ in range(5)]
        clients[0].send(b"news")
        self.assertEqual(clients[0].received, [])
        for client in clients[1:]:
            self.assertEqual(client.received, [b"news"] * 16)
            self.assertEqual(client.transport.writes, 1)

    def test_broadcast_from_a_thread(self) -> None:
        """Any thread may send and broadcast; it happens in the loop."""
        harness = Harness(shout)
        client = harness.connect()
        (served,) = harness.clients

        def elsewhere() -> None:
            harness.app.broadcast(b"one")
            served.send(b"two")
            served.close()

        with harness._running():
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join(10)
        self.assertEqual(client.received, [b"one", b"two"])
        self.assertTrue(client.disconnected)

    def test_not_served(self) -> None:
        """An app that is not being served says so."""
        harness = Harness(shout)
        harness.stop()
        with self.assertRaisesRegex(RuntimeError, "not being served"):
            harness.app.broadcast(b"x")

    def test_close_another(self) -> None:
        """A handler may close another client, whose handler then runs its own farewell within."""
        farewells: list[str] = []

        class Bouncer(Handler):
            async def received(self, message: bytes) -> None:
                for client in self.client.app.clients:
                    if client is not self.client:
                        client.close()

            async def disconnected(self, reason: str) -> None:
                farewells.append(reason)

        harness = Harness(Bouncer)
        bouncer, other = harness.connect(), harness.connect()
        bouncer.send(b"out")
        self.assertTrue(other.disconnected)
        self.assertFalse(bouncer.disconnected)
        harness.advance(5)
        self.assertEqual(farewells, ["closed by the handler"])


class Stopping(SynchronousTestCase):
    def test_drain(self) -> None:
        """On a stop everything completely received is answered, then the client is told and closed."""
        harness = Harness(Stuck)
        client, idle = harness.connect(), harness.connect()
        client.send_raw(b"a\nb\nunfin")
        handler = handler_of(harness)
        with harness._running():
            stopped: list[Any] = []
            harness.service.stopService().addBoth(stopped.append)
        self.assertRegex(idle.received[0], rb"^ERR closing retry-after=\d+ the server is stopping$")
        self.assertTrue(idle.disconnected)
        self.assertFalse(client.disconnected)
        client.send_raw(b"ished\nlate\n")
        harness.fire(handler.waiting[0])
        harness.fire(handler.waiting[1])
        self.assertEqual(client.received[:2], [b"a", b"b"])
        self.assertRegex(client.received[2], rb"^ERR closing retry-after=\d+ ")
        self.assertEqual(len(client.received), 3)
        self.assertEqual(stopped, [])
        client.half_close()
        idle.half_close()
        self.assertEqual(stopped, [None])

    def test_drain_flushes(self) -> None:
        """What a slow reader is owed is delivered before the end."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * 20_000_000

        harness = Harness(large)
        client = harness.connect()
        client.read(0)
        client.send(b"go")
        with harness._running():
            stopped: list[Any] = []
            harness.service.stopService().addBoth(stopped.append)
        for _ in range(25):
            client.read(1_000_000)
            harness.advance(1)
        client.read(None)
        self.assertEqual(len(client.received[0]), 20_000_000)
        self.assertRegex(client.received[1], rb"^ERR closing")
        harness.advance(3)
        self.assertEqual(stopped, [None])

    def test_newcomers_during_a_drain(self) -> None:
        """Nobody is let in while the server stops."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send(b"a")
        with harness._running():
            harness.service.stopService().addBoth(lambda _: None)
        self.assertIsNone(harness.reactor.tcpServers[0][1].buildProtocol(None))
        harness.advance(40)

    def test_stuck_farewell(self) -> None:
        """A disconnected() that takes its time is waited for."""
        gate: Deferred[None] = Deferred()

        class Slow(Handler):
            async def received(self, message: bytes) -> None: ...

            async def disconnected(self, reason: str) -> None:
                await gate

        harness = Harness(Slow)
        harness.connect().half_close()
        with harness._running():
            stopped: list[Any] = []
            harness.service.stopService().addBoth(stopped.append)
        harness.advance(5)
        self.assertEqual(stopped, [])
        harness.fire(gate)
        self.assertEqual(stopped, [None])


class Controls(ControlCase):
    def test_too_many_let_in(self) -> None:
        """P9: --max-clients is no limit."""
        with self.noticed_by(Admission, "test_max_clients"):
            self.ignore(Settings, "max_clients", 10000)

    def test_not_answered_before_the_end(self) -> None:
        """P4: a stop waits for no answer."""
        with self.noticed_by(Stopping, "test_drain"):
            self.ignore(Settings, "drain_timeout", 0)
