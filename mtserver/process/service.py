"""
The composition: settings, app, factory and ports become one Twisted service. The only place that knows everything.

Its life: ports are bound (while privileges last, if it is root's), then the audit log is opened, then, with the
reactor running, the app's lifespan is entered, then clients are served. A stop does the reverse: ports closed, what
was received answered, lifespan left.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from contextvars import copy_context
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from mtserver.app import App
from mtserver.auth import Gate, HandlersGate
from mtserver.concurrency import coroutines
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import ThreadPool, Threads
from mtserver.errors import HandlerError, MtserverError
from mtserver.groups import open_groups
from mtserver.journal.lazy import LazyJournal
from mtserver.process import malloc
from mtserver.process.command_line import Options
from mtserver.process.status import StatusReporter
from mtserver.server.server import MtserverFactory
from mtserver.settings import Settings
from mtserver.telemetry import audit, logs, std_logging
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import DRAIN_BEGUN, DRAINED, STOP_CUT_OFF
from mtserver.telemetry.levels import Levels
from mtserver.telemetry.logs import format_exception
from mtserver.transport import listeners
from mtserver.transport.addresses import format_address
from mtserver.transport.reactor import impersonal, steady
from mtserver.transport.tls import Reload

__all__ = ["Options", "ServerService", "makeService"]

#: Seconds for a lifespan to close what it opened, once the last client has gone.
CLOSING_TIMEOUT = 10.0
#: Seconds between telling those whom a stop cuts off and dropping them.
FAREWELL = 0.2

_log = Logger("mtserver")


class StartError(MtserverError):
    """The server cannot start; the text is one line for the operator."""


def makeService(options: Options) -> ServerService:
    """What ``twistd mtserver`` runs."""
    from twisted.internet import reactor

    steady(reactor)
    impersonal(reactor)
    return ServerService(
        options.settings,
        options.app,
        reactor,
        checkers=options.checkers,
        owns_process=True,
        observer=options.log_observer(),
    )


class ServerService(Service):
    """
    One server: an app on its ports.

    :param reactor: any Twisted reactor; with an asyncio loop, handlers may await asyncio's awaitables.
    :param checkers: of credentials, which clients have to satisfy then.
    :param owns_process: whether the process is its own: its limit of open files, its audit log, its exit status, what
        a service manager is told, and SIGTERM and SIGINT, which mean to drain and to exit with status 0, or with 1 if
        the drain had to be cut; a second one cuts it.
    :param observer: for the log of the twistd application that this becomes a part of.
    :param loop_calls, threads, offload: in place of real threads; for tests.
    """

    name = "mtserver"

    def __init__(
        self,
        settings: Settings,
        app: App,
        reactor: Any,
        *,
        checkers: Sequence[Any] = (),
        owns_process: bool = False,
        observer: Any = None,
        loop_calls: LoopCalls | None = None,
        threads: Threads | None = None,
        offload: Offload | None = None,
    ) -> None:
        self._observer = observer
        self._settings = settings
        self._app = app
        self._reactor = reactor
        self._checkers = checkers
        self._owns_process = owns_process
        self._loop_calls = loop_calls or LoopCalls(reactor)
        self._threads = threads or ThreadPool(settings.threads, "mtserver-handler")
        self._offload = offload or Offload(self._loop_calls, ThreadPool(settings.threads, "mtserver-thread"))
        self._journal = LazyJournal(settings, reactor)
        self._status_reporter = StatusReporter(settings, reactor, self._count_clients, self._journal.trouble)
        self._factory: MtserverFactory | None = None
        self._listening: list[IListeningPort] = []
        self._closing: Deferred[None] = Deferred()
        self._closed: Deferred[None] = Deferred()
        self._stops = 0
        self._life: coroutines.Running | None = None
        self._stopping = False
        #: Clients that the stop did not wait for.
        self._cut_off = 0
        #: Something was lost, or could not be done.
        self.failed = False
        self._draining: Deferred[None] | None = None
        self._reload: Reload | None = None
        self._groups = open_groups(settings)
        self._end_telemetry: Callable[[], object] = bool  # it has not begun

    # Starting.

    def setServiceParent(self, parent: Any) -> None:
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        if self._factory is None:  # twist has no privileged phase
            self._listen()
        if self._owns_process:
            self._supervise()
        # In the loop, not before it: asyncio's does not run yet when Twisted's reactor says that it does.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._begin, self._factory)

    def _begin_telemetry(self) -> None:
        """The log listens to events from now on, and to what others log with Python's own means."""
        levels = Levels(self._settings.log_level)
        ends = ExitStack()
        ends.callback(logs.follow(levels))
        ends.callback(audit.follow())
        if self._owns_process:
            ends.callback(std_logging.begin(levels))
        # A server that is dropped without having been stopped, as in many a test, leaves nobody listening either.
        end = weakref.finalize(self, ends.close)
        end.atexit = False  # what is said at the end of the process is still logged
        self._end_telemetry = end

    def _listen(self) -> None:
        self._begin_telemetry()
        settings = self._settings
        room = settings.max_clients
        if self._owns_process:
            room = listeners.room_for(room, len(settings.port))
        if room < settings.max_clients:
            _log.warn(
                "the limit of open files is too low for --max-clients {wanted}: serving at most {room} clients",
                wanted=settings.max_clients,
                room=room,
            )
        self._factory = factory = MtserverFactory(
            self._app,
            settings,
            self._reactor,
            self._loop_calls,
            self._threads,
            offload=self._offload,
            gate=self._gate(),
            groups=self._groups,
            journal=self._journal.journal,
            max_clients=room,
        )
        if factory.dispatch.plan.login is not None:
            dispatch = factory.dispatch
            factory.gate = HandlersGate(
                dispatch.authenticate, dispatch.cancel, settings.max_message, self._reactor.seconds
            )
        policy, endpoints = listeners.endpoints(self._reactor, settings)
        self._reload = Reload(policy, self._reactor)
        for description, endpoint in zip(settings.port, endpoints, strict=True):
            failures: list[Any] = []
            listened = endpoint.listen(self._factory)
            listened.addCallbacks(self._listening.append, failures.append)
            if failures:
                self._refuse_to_start(f"cannot listen on {description}: {failures[0].getErrorMessage()}")

    def _gate(self) -> Gate | None:
        if not self._checkers:
            return None
        return Gate(self._checkers, self._reactor.seconds, insecure=self._settings.auth_insecure)

    def _supervise(self) -> None:
        try:
            self._status_reporter.begin()
        except OSError as error:
            self._refuse_to_start(f"--audit-log {self._settings.audit_log}: {error.strerror}")

    def _refuse_to_start(self, text: str) -> None:
        for port in self._listening:
            port.stopListening()
        _log.critical("{text}", text=text)
        self._end_telemetry()
        stock = sys.excepthook

        def one_line(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            if isinstance(error, StartError):
                # By now sys.stderr is Twisted's, which writes to the log.
                print(f"mtserver: {error}", file=sys.__stderr__)
            else:
                stock(kind, error, trace)

        # twistd lets it through to the interpreter, which would print a page where one line says it all.
        sys.excepthook = one_line
        raise StartError(text)

    def _begin(self, factory: MtserverFactory) -> None:
        """The reactor runs, in its final process and thread."""
        self._loop_calls.adopt_thread()
        self._offload.enter()
        if self._owns_process:
            if self._settings.malloc == "tuned":
                malloc.tune()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
            if hasattr(signal, "SIGHUP"):
                signal.signal(signal.SIGHUP, self._hung_up)
        if self._reload is not None:
            self._reload.start()
        try:
            runner = coroutines.runner()
            self._life = running = runner.start(self._live(factory), copy_context())
        except BaseException as error:  # the lifespan is the user's code
            self._ended(error)
        else:
            if running is None:
                self._ended(None)
            else:
                runner.when_done(running, self._ended)

    async def _live(self, factory: MtserverFactory) -> None:
        """The app's lifespan, in one task from beginning to end."""
        lifespan: Any = self._app.lifespan(self._app) if self._app.lifespan else nullcontext()
        self._app._server = factory
        try:
            await self._groups.open()
            if self._app.uses_journal or self._settings.message_ids:
                self._journal.journal()
            if hasattr(lifespan, "__aenter__"):
                async with lifespan:
                    await self._serve(factory)
            elif hasattr(lifespan, "__enter__"):
                with lifespan:
                    await self._serve(factory)
            else:
                raise HandlerError("the lifespan is no context manager; is @asynccontextmanager missing above it?")
        finally:
            self._app._server = None
            try:
                await self._groups.close()
            finally:
                await self._journal.close()

    async def _serve(self, factory: MtserverFactory) -> None:
        factory.open()
        if self._owns_process:
            # What there is by now stays. A collector that looks at it again and again takes a fifth of the time of
            # handlers that wait, and stops everyone for 9 ms at a time.
            gc.collect()
            gc.freeze()
        addresses = [format_address(port.getHost()) for port in self._listening]
        for address in addresses:
            _log.info("Listening on {address}", address=address)
        if self._owns_process:
            self._status_reporter.serving(addresses)
        await self._closing

    def _ended(self, error: BaseException | None) -> None:
        if error is not None and not (self._stopping and isinstance(error, asyncio.CancelledError)):
            when = "closing" if self._closing.called else "opening"
            _log.critical("{when} the app failed: {traceback}", when=when, traceback=format_exception(error))
            if self._owns_process:
                # The log has the traceback; whoever started it by hand looks here. (sys.stderr is the log by now.)
                print(f"mtserver: {when} the app failed: {escape(repr(error))}", file=sys.__stderr__)
            self._fail()
            if not self._stopping:
                self._reactor.stop()
        self._end_of_life()

    def _end_of_life(self) -> None:
        if not self._closed.called:
            self._closed.callback(None)

    def _count_clients(self) -> int:
        return 0 if self._factory is None else len(self._factory.clients())

    # Reloading.

    def _hung_up(self, _number: int, _frame: Any) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Read again what may have changed while we serve: certificates, and whom to trust."""
        _log.info("reloading: certificates are read again")
        with self._status_reporter.reloading() if self._owns_process else nullcontext():
            if self._reload is not None:
                self._reload.now()

    # Stopping.

    def _signalled(self, number: int, _frame: Any) -> None:
        self._reactor.callFromThread(self._stop_asked, signal.Signals(number).name)

    def _stop_asked(self, name: str) -> None:
        self._stops += 1
        if self._stops == 1:
            _log.info("received {name}: draining; a second one ends at once", name=name)
            self._reactor.stop()
        elif self._stops == 2:
            _log.warn("received {name} again: ending now", name=name)
            self._cut()
            if self._closing.called and not self._closed.called:
                self._fail()
                self._end_of_life()
        else:
            os._exit(1)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        factory = self._factory
        if factory is None:
            return
        self._stopping = True
        if self._owns_process:
            self._status_reporter.stopping(self._settings.drain_timeout + CLOSING_TIMEOUT)
        if self._reload is not None:
            self._reload.stop()
        began = time.monotonic()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._listening], consumeErrors=True)
        DRAIN_BEGUN()
        drained = factory.drain()
        timeout = self._reactor.callLater(self._settings.drain_timeout, self._cut)
        self._draining = drained
        if self._stops > 1:
            self._cut()  # the second signal came while the ports were being closed
        await drained
        DRAINED(seconds=time.monotonic() - began)
        if timeout.active():
            timeout.cancel()
        self._closing.callback(None)
        if self._life is not None and not factory.is_open:
            self._life.cancel()  # still opening, for nobody any more
        if self._loop_calls.has_loop:
            self._closed.addTimeout(CLOSING_TIMEOUT, self._reactor, onTimeoutCancel=self._not_closed)
            await self._closed
            self._offload.leave()
        factory.close()
        self._threads.stop()
        self._offload.stop()
        seconds = time.monotonic() - began
        _log.info("stopped after {seconds:.3f} s", seconds=seconds)
        if self._owns_process:
            self._status_reporter.stopped(seconds, self._cut_off)
        self._end_telemetry()

    def _not_closed(self, _result: Any, timeout: float) -> None:
        _log.error("the app did not close within {timeout:g} s", timeout=timeout)
        self._fail()

    def _cut(self) -> None:
        """The drain is over, done or not."""
        draining, self._draining = self._draining, None
        if draining is None or draining.called or self._factory is None:
            return
        clients, messages = self._factory.cut()
        self._cut_off = clients
        if clients:
            STOP_CUT_OFF(clients=clients, messages=messages)
            self._fail()
        # They have been told; a moment for those who read to be reached by it.
        self._reactor.callLater(FAREWELL, self._abandon, draining)

    def _abandon(self, draining: Deferred[None]) -> None:
        if self._factory is not None:
            self._factory.abort()
        draining.callback(None)

    def _fail(self) -> None:
        """Something was lost or could not be done; the process is to say so when it ends."""
        if not self.failed:
            self.failed = True
            if self._owns_process:
                _exit_with(1)


def _exit_with(status: int) -> None:
    """Have the process end with this status, which twistd gives a plugin no way to say."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Called last-registered-first, so the rest of what the process wanted to do at its end is not done. That is the
    # price of the status, paid only where something has gone wrong; pid file and log are twistd's, and done by then.
    atexit.register(leave)
