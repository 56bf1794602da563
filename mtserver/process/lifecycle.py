"""
The life of a server: the apps' lifespans are entered, clients are served, and a stop does the reverse.

A stop closes the ports, answers what was received, leaves the lifespans. What ``--drain-timeout`` cuts off is counted,
and the process then exits with status 1; so does one whose app could not open or close.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mtserver.app import App
from mtserver.concurrency import coroutines
from mtserver.errors import HandlerError
from mtserver.server.server import Server
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import STOP_CUT_OFF
from mtserver.telemetry.logs import format_exception

#: Seconds for a lifespan to close what it opened, once the last client has gone.
CLOSING_TIMEOUT = 10.0
#: Seconds between telling those whom a stop cuts off and dropping them.
FAREWELL = 0.2

_log = Logger("mtserver")


class Lifecycle:
    """
    The life of a server, from the opening of the apps to the end of the drain.

    :param server: what is opened, and drained.
    :param apps: whose lifespans are entered, in this order.
    :param reactor: for time, and to be stopped where an app cannot open.
    :param owns_process: whether a failure is the process's, and ends in its exit status.
    :param open_first: a coroutine function that opens what the apps need, before the first lifespan is entered.
    :param close_last: one that closes that, after the last lifespan was left, whatever has failed.
    :param serving: called when clients are served.
    """

    def __init__(
        self,
        server: Server,
        apps: Sequence[App],
        reactor: Any,
        *,
        owns_process: bool,
        open_first: Callable[[], Awaitable[None]],
        close_last: Callable[[], Awaitable[None]],
        serving: Callable[[], object],
    ) -> None:
        self._server = server
        self._apps = apps
        self._reactor = reactor
        self._owns_process = owns_process
        self._open_first = open_first
        self._close_last = close_last
        self._serving = serving
        #: The coroutine that holds the lifespans open; None before, and where it has ended at once.
        self._running: coroutines.Running | None = None
        self._closing: Deferred[None] = Deferred()
        self._closed: Deferred[None] = Deferred()
        self._draining: Deferred[None] | None = None
        #: The service is being stopped: an app that is still opening is not waited for.
        self.is_stopping = False
        #: Clients that the stop did not wait for.
        self.cut_off = 0
        #: Whether something was lost, or could not be done.
        self.failed = False

    # Opening.

    def begin(self) -> None:
        """Open the apps, and serve. The reactor runs."""
        try:
            runner = coroutines.runner()
            self._running = running = runner.start(self._live(), copy_context())
        except BaseException as error:  # a lifespan is the user's code
            self._ended(error)
        else:
            if running is None:
                self._ended(None)
            else:
                runner.when_done(running, self._ended)

    async def _live(self) -> None:
        """Hold the apps' lifespans, in one task from beginning to end."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_last)
            for app in self._apps:
                app.serve_by(self._server.serving(app))
                stack.callback(app.serve_by, None)
            await self._open_first()
            for app in self._apps:
                if app.lifespan is not None:
                    await _enter(stack, app.lifespan(app))
            self._serve()
            await self._closing

    def _serve(self) -> None:
        self._server.open()
        if self._owns_process:
            # Objects that exist by now stay. A collector that looks at them again and again takes a fifth of the time
            # of handlers that wait, and stops everyone for 9 ms at a time.
            gc.collect()
            gc.freeze()
        self._serving()

    def _ended(self, error: BaseException | None) -> None:
        if error is not None and not (self.is_stopping and isinstance(error, asyncio.CancelledError)):
            when = "closing" if self._closing.called else "opening"
            _log.critical("{when} the app failed: {traceback}", when=when, traceback=format_exception(error))
            if self._owns_process:
                # The log has the traceback; whoever started it by hand looks here. (sys.stderr is the log by now.)
                print(f"mtserver: {when} the app failed: {escape(repr(error))}", file=sys.__stderr__)
            self._fail()
            if not self.is_stopping:
                self._reactor.stop()
        self._end()

    def _end(self) -> None:
        if not self._closed.called:
            self._closed.callback(None)

    # Stopping.

    async def drain(self, seconds: float, *, at_once: bool) -> None:
        """
        Answer what was received, and close all connections.

        :param seconds: that this may take.
        :param at_once: do not wait at all.
        """
        self._draining = drained = self._server.drain()
        overdue = self._reactor.callLater(seconds, self.abort_drain)
        if at_once:
            self.abort_drain()
        await drained
        if overdue.active():
            overdue.cancel()

    async def close(self, *, has_loop: bool) -> None:
        """
        Leave the lifespans.

        :param has_loop: the loop has run, so there is something to be left, and to be waited for.
        """
        self._closing.callback(None)
        if self._running is not None and not self._server.is_open:
            self._running.cancel()  # still opening, for nobody any more
        if has_loop:
            self._closed.addTimeout(CLOSING_TIMEOUT, self._reactor, onTimeoutCancel=self._not_closed)
            await self._closed

    def end_now(self) -> None:
        """Wait for nothing any more: neither for handlers nor for lifespans."""
        self.abort_drain()
        if self._closing.called and not self._closed.called:
            self._fail()
            self._end()

    def abort_drain(self) -> None:
        """End the drain, done or not."""
        draining, self._draining = self._draining, None
        if draining is None or draining.called:
            return
        self.cut_off, messages = self._server.abort_after_drain()
        if self.cut_off:
            STOP_CUT_OFF(clients=self.cut_off, messages=messages)
            self._fail()
        # Clients that are cut off have been told; a moment for those who read to be reached by it.
        self._reactor.callLater(FAREWELL, self._drop_all, draining)

    def _drop_all(self, draining: Deferred[None]) -> None:
        self._server.abort()
        draining.callback(None)

    def _not_closed(self, _result: Any, timeout: float) -> None:
        _log.error("the app did not close within {timeout:g} s", timeout=timeout)
        self._fail()

    def _fail(self) -> None:
        """Note that something was lost or could not be done; the process says so when it ends."""
        if not self.failed:
            self.failed = True
            if self._owns_process:
                _exit_with(1)


async def _enter(stack: AsyncExitStack, lifespan: Any) -> None:
    if hasattr(lifespan, "__aenter__"):
        await stack.enter_async_context(lifespan)
    elif hasattr(lifespan, "__enter__"):
        stack.enter_context(lifespan)
    else:
        raise HandlerError("the lifespan is no context manager; is @asynccontextmanager missing above it?")


def _exit_with(status: int) -> None:
    """Have the process end with this status, which twistd gives a plugin no way to say."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Called last-registered-first, so the rest of what the process wanted to do at its end is not done. That is the
    # price of the status, paid only where something has gone wrong; pid file and log are twistd's, and done by then.
    atexit.register(leave)
