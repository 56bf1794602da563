"""
The reactor: Twisted's own asyncio reactor on a uvloop loop, but for TCP server ports and the clock.

Ports are Twisted's and make :class:`~mtserver.transport.reactor.connection.Connection` objects. UNIX sockets, clients
and UDP use Twisted's stock transports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import uvloop
from twisted.internet import process, tcp
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtserver.transport.reactor.connection import Connection
from mtserver.transport.reactor.start_tls import StartTLSConnection

_log = Logger("mtserver.reactor")


class Port(tcp.Port):
    """Twisted's TCP port, with a faster kind of connection."""

    transport: Any = StartTLSConnection


class UVReactor(AsyncioSelectorReactor):
    """
    The reactor that :func:`install` installs.

    :param loop: a uvloop loop that is not running; None for a new one.
    """

    def __init__(self, loop: Any = None) -> None:
        if loop is None:
            loop = uvloop.new_event_loop()
            # A library's asyncio.get_event_loop() before the reactor runs finds the loop that will run.
            asyncio.set_event_loop(loop)
        self.loop: Any = loop
        self._began = time.time() - time.monotonic()
        #: Open connections, which Twisted's list of readers does not know. A dict has half the size of a set.
        self.connections: dict[Connection, None] = {}
        super().__init__(self.loop)
        loop.set_exception_handler(self._failed)

    #: Mark for ``steady``: the clock of this reactor does not jump.
    is_steady = True

    def seconds(self) -> float:
        """
        Seconds of the monotonic clock, which does not jump; Twisted's follow the wall clock (twisted#2424).

        They begin at the wall clock's, since programs take them for it: Twisted's web server dates its log by them.
        """
        return self._began + time.monotonic()

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            return super().adoptStreamPort(fileDescriptor, addressFamily, factory)
        listening = Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)  # noqa: SLF001 - as Twisted's reactors do
        listening.startListening()
        return listening

    # IReactorFDSet: a connection is no reader of the loop's, but Twisted programs may treat it as one.

    def addReader(self, reader: Any) -> None:
        if isinstance(reader, Connection):
            reader.resumeProducing()
        else:
            super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        if isinstance(reader, Connection):
            reader.pauseProducing()
        else:
            super().removeReader(reader)

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(connection for connection in self.connections if connection.reading)]

    def removeAll(self) -> list[Any]:
        return [*super().removeAll(), *self.connections]

    # The end of a child process. Twisted hears of it by Python's wake-up descriptor for signals, which is uvloop's
    # while the loop runs; and SIGCHLD itself is uvloop's once it has started a process for asyncio.

    def _reallyStartRunning(self) -> None:
        super()._reallyStartRunning()
        if self._installSignalHandlers:
            signal.signal(signal.SIGCHLD, lambda *_: self.callFromThread(process.reapAllProcesses))
            signal.siginterrupt(signal.SIGCHLD, False)

    def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
        child = super().spawnProcess(*args, **kwargs)
        if child.pid is not None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # no descriptor left, or an old kernel: SIGCHLD has to do
                descriptor = os.pidfd_open(child.pid)
                self.loop.add_reader(descriptor, self._child_ended, descriptor)
        return child

    def _child_ended(self, descriptor: int) -> None:
        self.loop.remove_reader(descriptor)
        os.close(descriptor)
        process.reapAllProcesses()

    @staticmethod
    def _failed(_loop: Any, context: dict[str, Any]) -> None:
        """Log a failure in the loop itself, or in a task without a waiter; asyncio would use a log of its own."""
        problem = context.get("exception")
        if problem is None:
            _log.error("{message}: {context}", message=context.get("message"), context=context)
        else:
            _log.failure("{message}", Failure(problem), message=context.get("message"))

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override] # noqa: A002 - its name there
        self.loop.call_soon_threadsafe(self._call, callable, args, kwargs)

    def _call(self, call: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException:
            _log.failure("Unhandled error in a call from a thread")


def install(loop: Any = None) -> None:
    """Install a :class:`UVReactor` for this process."""
    from twisted.internet.main import installReactor  # imported late, as Twisted's own reactors do

    installReactor(UVReactor(loop))
