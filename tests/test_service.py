"""The life of a server: opening, serving, draining, closing, and what becomes of it when one of them fails."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Application, IService
from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, Client, Handler, Unavailable, to_thread
from mtserver.journal import Batch
from mtserver.process.lifecycle import CLOSING_TIMEOUT, FAREWELL
from mtserver.process.service import ServerService, StartError
from mtserver.settings import Settings
from mtserver.telemetry import logs
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.logcase import LogCase
from tests.test_session import Stuck, shout


class Journals(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.description = f"sqlite:{self.folder / 'journal.db'}"

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def test_not_used(self) -> None:
        """An app that stores nothing has no journal."""
        harness = Harness(shout, journal=self.description)
        harness.connect().send(b"x")
        harness.advance(5)
        harness.stop()
        self.assertEqual(self.files(), [])

    def test_used(self) -> None:
        """One that says it uses it finds it open, and ids need it as well; when the server stops it is closed."""
        for uses_journal, message_ids in ((True, False), (False, True)):
            app = App(shout, uses_journal=uses_journal)
            harness = Harness(app, journal=self.description, message_ids=message_ids)
            harness.advance(0)
            self.assertEqual(self.files(), ["journal.db", "journal.db-shm", "journal.db-wal"])
            harness.stop()
            self.assertEqual(self.files(), ["journal.db"])

    def test_lifespan(self) -> None:
        """A lifespan may use it from its beginning to its end."""
        seen: list[int] = []

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            async def store() -> None:
                stored = await app.journal.append(Batch(0, 0, "", [b"x"]))
                seen.extend(stored.sequences)

            await store()
            yield
            await store()

        Harness(App(shout, lifespan=lifespan), journal=self.description).stop()
        self.assertEqual(seen, [1, 2])
        self.assertEqual(self.files(), ["journal.db"])

    def test_groups_that_cannot_be_closed(self) -> None:
        """What is wrong with the groups at the end does not keep the journal from being closed."""
        harness = Harness(App(shout, uses_journal=True), journal=self.description)
        harness.advance(0)

        async def close() -> None:
            raise ConnectionError("canary")

        harness.service._groups.close = close  # type: ignore[method-assign]
        harness.stop()
        self.assertEqual(self.files(), ["journal.db"])
        self.assertIn("canary", "".join(self.logged(LogLevel.critical)))

    def test_away(self) -> None:
        """While it cannot store, the server says that it is not ready; it looks by itself whether that is over."""
        place = self.folder / "place"
        place.mkdir()
        harness = Harness(App(shout, uses_journal=True), journal=f"sqlite:{place / 'journal.db'}")
        self.addCleanup(harness.stop)
        self.assertEqual(harness.service._journal.trouble(), "")
        moved = self.folder / "elsewhere"
        place.rename(moved)
        client = harness.connect()

        async def store() -> Any:
            return await harness.app.journal.append(Batch(0, 0, "", [b"x"]))

        outcome = Deferred.fromCoroutine(store())
        harness.advance(0)
        self.failureResultOf(outcome, Unavailable)
        self.assertRegex(harness.service._journal.trouble(), "the journal cannot store: CantOpenError")
        moved.rename(place)
        harness.advance(2)
        self.assertEqual(harness.service._journal.trouble(), "")
        client.send(b"x")
        self.assertEqual(client.received, [b"X"])


class Logging(LogCase):
    def test_listening(self) -> None:
        """At start it says where it listens."""
        Harness(shout)
        self.assertEqual(self.logged(LogLevel.info), ["Listening on 0.0.0.0:9999"])

    def test_accept_and_close(self) -> None:
        """Accept and close are logged with id, address, reason, duration, messages and bytes."""
        harness = Harness(shout)
        client = harness.connect()
        client.send(b"hello")
        harness.advance(2.5)
        client.half_close()
        self.assertEqual(
            self.logged(LogLevel.info)[1:],
            [
                "client 1 connected from 192.0.2.2:50000",
                (
                    "client 1 from 192.0.2.2:50000 closed (closed by the client) after 2.500 s: "
                    "received 1 messages, 6 bytes; sent 1 messages, 6 bytes"
                ),
            ],
        )

    def test_refusals(self) -> None:
        """Refusals are counted in one line per sweep, not one each."""
        harness = Harness(shout, max_clients=1)
        for _ in range(10):
            harness.connect()
        harness.advance(1)
        self.assertEqual(self.logged(LogLevel.warn), ["refused 9 connections: too many clients"])

    def test_traceback_is_escaped(self) -> None:
        """A failing handler's traceback is logged, and what its peer put into it is harmless there."""

        async def bad(client: Client, message: bytes) -> None:
            raise ValueError(message.decode())

        client = Harness(bad, framing="int16").connect()
        client.send(b"\x1b[31m\nforged")
        (line,) = self.logged(LogLevel.error)
        self.assertIn("\\x1b[31m\\nforged", line)
        self.assertIn("in bad", line)
        self.assertNotIn("\x1b", line)


class Lifespans(LogCase):
    def test_async(self) -> None:
        """An async lifespan is entered before the first client and left after the last has been told goodbye."""
        events: list[str] = []

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            app.state.value = await to_thread(lambda: 42)
            yield
            events.append("closed")

        class Reader(Handler):
            async def received(self, message: bytes) -> bytes:
                return b"%d" % self.client.app.state.value

            async def disconnected(self, reason: str) -> None:
                events.append("gone")

        harness = Harness(App(Reader, lifespan=lifespan))
        client = harness.connect()
        client.send(b"x")
        harness.stop()
        self.assertEqual((client.received[0], events), (b"42", ["gone", "closed"]))

    def test_plain(self) -> None:
        """A plain context manager does as well."""
        events: list[str] = []

        @contextmanager
        def lifespan(app: App) -> Iterator[None]:
            events.append("open")
            yield
            events.append("closed")

        harness = Harness(App(shout, lifespan=lifespan))
        self.assertEqual(events, ["open"])
        harness.stop()
        self.assertEqual(events, ["open", "closed"])
        self.assertFalse(harness.service.failed)

    def test_fails_to_open(self) -> None:
        """A lifespan that fails to open stops the server, which then has failed; clients are not served."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            raise RuntimeError("no database")
            yield

        harness = Harness(App(shout, lifespan=lifespan))
        self.assertTrue(harness.reactor.hasStopped)
        client = harness.connect()
        harness.stop()
        self.assertTrue(harness.service.failed)
        self.assertRegex(client.received[0], rb"^ERR closing retry-after=")
        self.assertIn("opening the app failed", self.logged(LogLevel.critical)[0])

    def test_fails_to_open_later(self) -> None:
        """So does one that fails after a while."""
        opening: Deferred[None] = Deferred()

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            await opening
            yield

        harness = Harness(App(shout, lifespan=lifespan), asyncio_loop=False)
        harness.fire(opening, RuntimeError("no database"))
        self.assertTrue(harness.reactor.hasStopped)
        harness.stop()

    def test_fails_to_close(self) -> None:
        """One that fails to close is reported."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            yield
            await fail(RuntimeError("no"))

        harness = Harness(App(shout, lifespan=lifespan))
        harness.stop()
        self.assertTrue(harness.service.failed)
        self.assertIn("closing the app failed", self.logged(LogLevel.critical)[0])

    def test_never_closes(self) -> None:
        """One that never closes is waited for, but not for ever."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            yield
            await Deferred()

        harness = Harness(App(shout, lifespan=lifespan))
        began = harness.reactor.seconds()
        harness.stop()
        self.assertGreaterEqual(harness.reactor.seconds() - began, CLOSING_TIMEOUT)
        self.assertTrue(harness.service.failed)

    def test_stopped_while_opening(self) -> None:
        """A stop does not wait for a lifespan that still opens what nobody needs any more; that is no failure."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            await Deferred()
            yield

        for loop in (True, False):
            harness = Harness(App(shout, lifespan=lifespan), asyncio_loop=loop)
            began = harness.reactor.seconds()
            harness.stop()
            self.assertLess(harness.reactor.seconds() - began, 1)
            self.assertFalse(harness.service.failed)

    def test_second_signal_while_closing(self) -> None:
        """A second signal does not wait for a lifespan to close either."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            yield
            await Deferred()

        harness = Harness(App(shout, lifespan=lifespan))
        stopped: list[Any] = []
        with harness._running():
            harness.service._stop_asked("SIGTERM")
            harness.service.stopService().addBoth(stopped.append)
        self.assertEqual(stopped, [])
        with harness._running():
            harness.service._stop_asked("SIGTERM")
        self.assertEqual(stopped, [None])
        self.assertTrue(harness.service.failed)

    def test_no_context_manager(self) -> None:
        """A lifespan without its decorator is named."""

        async def lifespan(app: App) -> AsyncIterator[None]:
            yield

        harness = Harness(App(shout, lifespan=cast("Any", lifespan)))
        harness.stop()
        self.assertIn("is @asynccontextmanager missing", self.logged(LogLevel.critical)[0])


class Cuts(LogCase):
    def test_drain_timeout(self) -> None:
        """What the drain timeout cuts off is counted in the log, and the server has failed."""
        harness = Harness(Stuck, drain_timeout=5)
        client = harness.connect()
        client.send(b"a", b"b", b"c")
        harness.stop()
        self.assertTrue(harness.service.failed)
        self.assertEqual(self.logged(LogLevel.error), ["the stop cut off 1 clients, with 3 messages unanswered"])
        self.assertRegex(client.received[0], rb"^ERR closing retry-after=", "told all the same")
        harness.advance(1)
        self.assertFalse(client.transport.connected)

    def test_clean(self) -> None:
        """A drain that had enough time is no failure."""
        harness = Harness(Stuck, drain_timeout=5)
        harness.connect()
        harness.stop()
        self.assertFalse(harness.service.failed)

    def test_signals(self) -> None:
        """The first signal stops, the second one cuts."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send(b"a")
        with harness._running():
            harness.service._stop_asked("SIGTERM")
            self.assertTrue(harness.reactor.hasStopped)
            stopped: list[Any] = []
            harness.service.stopService().addBoth(stopped.append)
        self.assertEqual(stopped, [])
        with harness._running():
            harness.service._stop_asked("SIGINT")
        self.assertRegex(client.received[0], rb"^ERR closing retry-after=")
        harness.advance(FAREWELL)
        self.assertEqual(stopped, [None])
        self.assertTrue(harness.service.failed)
        with harness._running():
            cast("Any", harness.service._lifecycle).abort_drain()
        self.assertEqual(len(self.logged(LogLevel.error)), 1)

    def test_second_signal_at_once(self) -> None:
        """A second signal counts as well if it comes while the ports are still being closed."""
        harness = Harness(Stuck)
        client = harness.connect()
        client.send(b"a")
        closing: Deferred[None] = Deferred()
        (port,) = harness.service._listening
        self.patch(port, "stopListening", lambda: closing)
        stopped: list[Any] = []
        with harness._running():
            harness.service._stop_asked("SIGTERM")
            harness.service.stopService().addBoth(stopped.append)
            harness.service._stop_asked("SIGTERM")
        harness.fire(closing)
        self.assertRegex(client.received[0], rb"^ERR closing retry-after=")
        harness.advance(FAREWELL)
        self.assertEqual(stopped, [None])
        self.assertTrue(harness.service.failed)

    def test_cancelled_handlers(self) -> None:
        """A coroutine that is cut off is cancelled where it waits, and its thread of events ends."""
        ended: list[str] = []

        class Waiting(Handler):
            async def connected(self) -> None:
                try:
                    await Deferred()
                finally:
                    ended.append("connected")

            async def received(self, message: bytes) -> None: ...

            async def disconnected(self, reason: str) -> None:
                ended.append("disconnected")

        for loop in (True, False):
            ended.clear()
            harness = Harness(Waiting, asyncio_loop=loop, drain_timeout=1)
            harness.connect()
            harness.stop()
            harness.advance(1)
            self.assertEqual(ended[0], "connected")


class Starting(SynchronousTestCase):
    def test_cannot_listen(self) -> None:
        """A port that cannot be had ends the start with one line, and the ports that were had are closed."""

        class Full(MemoryReactorClock):
            def listenTCP(self, port: int, *args: Any) -> Any:
                if port == 2:
                    raise OSError("Address already in use")
                return super().listenTCP(port, *args)

        others: list[Any] = []
        self.patch(sys, "excepthook", lambda *args: others.append(args))
        self.patch(sys, "__stderr__", StringIO())
        service = ServerService(Settings(port=("1", "2")), App(shout), Full())
        with self.assertRaisesRegex(StartError, "cannot listen on 2: Address already in use") as caught:
            service.privilegedStartService()
        sys.excepthook(StartError, caught.exception, None)
        self.assertEqual(cast("StringIO", sys.__stderr__).getvalue(), f"mtserver: {caught.exception}\n")
        other = ValueError("not ours")
        sys.excepthook(ValueError, other, None)
        self.assertEqual(others, [(ValueError, other, None)])

    def test_stopped_before_started(self) -> None:
        """A service that never ran stops at once."""
        stopped: list[Any] = []
        service = ServerService(Settings(), App(shout), MemoryReactorClock())
        service.stopService().addBoth(stopped.append)
        self.assertEqual(stopped, [None])

    def test_stopped_before_the_loop(self) -> None:
        """One that listens, but whose loop has not run, does too."""
        stopped: list[Any] = []
        service = ServerService(Settings(), App(shout), MemoryReactorClock())
        service.privilegedStartService()
        service.startService()
        service.stopService().addBoth(stopped.append)
        self.assertEqual(stopped, [None])

    def test_log_observer(self) -> None:
        """Under twistd the application logs with the observer that the options chose."""
        events: list[Any] = []
        service = ServerService(Settings(), App(shout), MemoryReactorClock(), observer=events.append)
        application = Application("test")
        service.setServiceParent(application)
        self.assertEqual(application.getComponent(ILogObserver), events.append)
        self.assertIn(service, cast("Any", IService(application)))


class Controls(ControlCase):
    def test_terminal_sequences_in_the_log(self) -> None:
        """What a peer has put into an exception is logged as it is."""
        with self.noticed_by(Logging, "test_traceback_is_escaped"):
            self.patch(logs, "escape", lambda text: text)
