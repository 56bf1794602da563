"""
The composition: settings, apps, server and ports become one Twisted service. The only place that knows everything.

Ports are bound first (while privileges last, if it is root's), then the audit log is opened; what follows once the
reactor runs is :mod:`mtserver.process.lifecycle`'s.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from mtserver.app import App
from mtserver.auth import Gate, HandlerGate
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import ThreadPool, Threads
from mtserver.dispatch import Dispatch
from mtserver.errors import MtserverError
from mtserver.groups import open_groups
from mtserver.journal.lazy import LazyJournal
from mtserver.process import malloc
from mtserver.process.command_line import Options
from mtserver.process.lifecycle import CLOSING_TIMEOUT, Lifecycle
from mtserver.process.status import StatusReporter
from mtserver.server.server import Server
from mtserver.settings import Settings
from mtserver.telemetry import audit, logs, std_logging
from mtserver.telemetry.events import DRAIN_BEGUN, DRAINED
from mtserver.telemetry.levels import Levels
from mtserver.transport import listeners
from mtserver.transport.addresses import format_address
from mtserver.transport.reactor import impersonal, steady
from mtserver.transport.tls import Reload

__all__ = ["Options", "ServerService", "makeService"]

_log = Logger("mtserver")


class StartError(MtserverError):
    """The server cannot start; the text is one line for the operator."""


def makeService(options: Options) -> ServerService:
    """Make the service that ``twistd mtserver`` runs."""
    from twisted.internet import reactor

    steady(reactor)
    impersonal(reactor)
    return ServerService(
        options.settings,
        options.apps,
        reactor,
        checkers=options.checkers,
        owns_process=True,
        observer=options.log_observer(),
    )


class ServerService(Service):
    """
    One server: some apps on their ports.

    :param apps: what is served at each of the settings' ``listens``; one app for all of them.
    :param reactor: any Twisted reactor; with an asyncio loop, handlers may await asyncio's awaitables.
    :param checkers: of credentials, which clients have to satisfy then.
    :param owns_process: whether the process is its own: its limit of open files, its audit log, its exit status, what
        a service manager is told, and SIGTERM and SIGINT, which mean to drain and to exit with status 0, or with 1 if
        the drain had to be cut; a second one cuts it. Several servers in one process own it none.
    :param observer: for the log of the twistd application that this becomes a part of.
    :param loop_calls, threads, offload: in place of real threads; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        apps: App | Sequence[App],
        reactor: Any,
        *,
        checkers: Sequence[Any] = (),
        owns_process: bool = False,
        observer: Any = None,
        loop_calls: LoopCalls | None = None,
        threads: Threads | None = None,
        offload: Offload | None = None,
    ) -> None:
        if owns_process:
            self.setName("mtserver")
        self._observer = observer
        self._settings = settings
        self._apps = [apps] * len(settings.listens) if isinstance(apps, App) else apps
        self._reactor = reactor
        self._checkers = checkers
        self._owns_process = owns_process
        self._loop_calls = loop_calls or LoopCalls(reactor)
        self._threads = threads or ThreadPool(settings.threads, "mtserver-handler")
        self._offload = offload or Offload(self._loop_calls, ThreadPool(settings.threads, "mtserver-thread"))
        self._journal = LazyJournal(settings, reactor)
        self._groups = open_groups(settings)
        self._status_reporter = StatusReporter(settings, reactor, self._count_clients, self._journal.trouble)
        #: State that the clients of all ports share; None before the ports are bound.
        self.server: Server | None = None
        self._lifecycle: Lifecycle | None = None
        self._reload: Reload | None = None
        self._listening: list[IListeningPort] = []
        self._stops = 0
        self._end_telemetry: Callable[[], object] = bool  # it has not begun

    @property
    def failed(self) -> bool:
        """Whether something was lost, or could not be done."""
        return self._lifecycle is not None and self._lifecycle.failed

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
        if self.server is None:  # twist has no privileged phase
            self._listen()
        if self._owns_process:
            self._begin_status()
        # A call in the loop, not before it: asyncio's does not run yet when Twisted's reactor says that it does.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._begin)

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
        self.server = server = Server(
            settings,
            self._reactor,
            self._loop_calls,
            self._threads,
            offload=self._offload,
            groups=self._groups,
            journal=self._journal.journal,
            max_clients=self._room(),
        )
        self._lifecycle = Lifecycle(
            server,
            list(dict.fromkeys(self._apps)),
            self._reactor,
            owns_process=self._owns_process,
            open_first=self._open_groups_and_journal,
            close_last=self._close_groups_and_journal,
            serving=self._serving,
        )
        policy, endpoints = listeners.endpoints(self._reactor, settings)
        self._reload = Reload(policy, self._reactor)
        gate = self._gate()
        for listen, app, endpoint in zip(settings.listens, self._apps, endpoints, strict=True):
            listener = server.listener(app, listen.framing, lambda dispatch: self._handler_gate(dispatch) or gate)
            failures: list[Any] = []
            listened = endpoint.listen(listener)
            listened.addCallbacks(self._listening.append, failures.append)
            if failures:
                self._refuse_to_start(f"cannot listen on {listen.port}: {failures[0].getErrorMessage()}")

    def _room(self) -> int:
        """The clients that the limit of open files has room for."""
        wanted = self._settings.max_clients
        if not self._owns_process:
            return wanted
        room = listeners.room_for(wanted, len(self._settings.listens))
        if room < wanted:
            _log.warn(
                "the limit of open files is too low for --max-clients {wanted}: serving at most {room} clients",
                wanted=wanted,
                room=room,
            )
        return room

    def _gate(self) -> Gate | None:
        if not self._checkers:
            return None
        return Gate(self._checkers, self._reactor.seconds, insecure=self._settings.auth_insecure)

    def _handler_gate(self, dispatch: Dispatch) -> HandlerGate | None:
        if dispatch.plan.login is None:
            return None
        return HandlerGate(dispatch.authenticate, dispatch.cancel, self._settings.max_message, self._reactor.seconds)

    def _begin_status(self) -> None:
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
                # sys.stderr is Twisted's by now, which writes to the log.
                print(f"mtserver: {error}", file=sys.__stderr__)
            else:
                stock(kind, error, trace)

        # twistd lets it through to the interpreter, which would print a page where one line says it all.
        sys.excepthook = one_line
        raise StartError(text)

    def _begin(self) -> None:
        """Open the apps. The reactor runs, in its final process and thread."""
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
        if self._lifecycle is not None:
            self._lifecycle.begin()

    async def _open_groups_and_journal(self) -> None:
        await self._groups.open()
        if any(app.uses_journal for app in self._apps) or self._settings.message_ids:
            self._journal.journal()

    async def _close_groups_and_journal(self) -> None:
        try:
            await self._groups.close()
        finally:
            await self._journal.close()

    def _serving(self) -> None:
        addresses = [format_address(port.getHost()) for port in self._listening]
        for address in addresses:
            _log.info("Listening on {address}", address=address)
        if self._owns_process:
            self._status_reporter.serving(addresses)

    def _count_clients(self) -> int:
        return 0 if self.server is None else sum(session.is_open for session in self.server.sessions.values())

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
            if self._lifecycle is not None:
                self._lifecycle.end_now()
        else:
            os._exit(1)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        server, lifecycle = self.server, self._lifecycle
        if server is None or lifecycle is None:
            return
        lifecycle.is_stopping = True
        if self._owns_process:
            self._status_reporter.stopping(self._settings.drain_timeout + CLOSING_TIMEOUT)
        if self._reload is not None:
            self._reload.stop()
        began = time.monotonic()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._listening], consumeErrors=True)
        DRAIN_BEGUN()
        # The second signal may have come while the ports were being closed.
        await lifecycle.drain(self._settings.drain_timeout, at_once=self._stops > 1)
        DRAINED(seconds=time.monotonic() - began)
        await lifecycle.close(has_loop=self._loop_calls.has_loop)
        if self._loop_calls.has_loop:
            self._offload.leave()
        server.close()
        self._threads.stop()
        self._offload.stop()
        seconds = time.monotonic() - began
        _log.info("stopped after {seconds:.3f} s", seconds=seconds)
        if self._owns_process:
            self._status_reporter.stopped(seconds, lifecycle.cut_off)
        self._end_telemetry()
