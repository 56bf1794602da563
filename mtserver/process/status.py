"""
Reports on the process for those who run it: in the audit log, to the service manager, and by one warning.

The audit log begins when the process has the rights it will serve with, and ends after everything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.logger import Logger

from mtserver.process.privileges import is_root
from mtserver.process.systemd import Notifier
from mtserver.settings import Settings
from mtserver.telemetry.audit.log import AuditLog
from mtserver.telemetry.escape import escape
from mtserver.telemetry.events import ROOT, START, STOP

#: Seconds that a service manager is to wait for the end, beyond what a stop may take.
MARGIN = 5.0

_log = Logger("mtserver")


class StatusReporter:
    """
    Reports on one process and the server that it is for.

    :param reactor: for time.
    :param clients: how many there are now.
    :param trouble: what keeps the server from doing what it is for; an empty text where nothing does.
    """

    def __init__(
        self, settings: Settings, reactor: Any, clients: Callable[[], int], trouble: Callable[[], str]
    ) -> None:
        self._app = ", ".join(dict.fromkeys(listen.app for listen in settings.listens))
        self._clients = clients
        self._trouble = trouble
        self._audit_log = AuditLog(settings.audit_log, reactor)
        self._notifier = Notifier(reactor, self._status)
        self._doing = "serving"

    def begin(self) -> None:
        """The process has its final rights. Raises ``OSError`` where the audit log cannot be opened."""
        self._audit_log.open()
        if is_root():
            _log.warn("serving as root: twistd's --uid and --gid give that up, once the ports are open")
            ROOT(pid=os.getpid())

    def serving(self, addresses: Sequence[str]) -> None:
        """Clients are served at these addresses from now on."""
        START(pid=os.getpid(), app=self._app, ports=", ".join(addresses))
        self._notifier.ready()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Inside, something of the configuration is read anew; clients are served all the while."""
        self._notifier.reloading()
        try:
            yield
        finally:
            self._notifier.ready()

    def stopping(self, seconds: float) -> None:
        """The server stops, which may take so long."""
        self._doing = "stopping"
        self._notifier.stopping(seconds + MARGIN)

    def stopped(self, seconds: float, cut_off: int) -> None:
        """Report that the server has stopped, after so long; so many clients were not waited for."""
        STOP(seconds=round(seconds, 3), cut_off=cut_off)
        self._audit_log.close()
        self._notifier.close()

    def _status(self) -> str:
        trouble = self._trouble()
        if trouble:
            return f"not ready, {self._clients()} clients: {escape(trouble)}"
        return f"{self._doing}, {self._clients()} clients"
