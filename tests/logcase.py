"""A test case that reads what mtserver logs."""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mtserver.telemetry import audit, logs
from mtserver.telemetry.levels import Levels

#: The line of text, and what Twisted adds to an event for its older logger.
NO_FIELDS = {"text", "message", "time", "system", "format", "isError"}


class LogCase(SynchronousTestCase):
    """Collects what mtserver logs while a test runs."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []

        @implementer(ILogObserver)
        def note(event: LogEvent) -> None:
            self.events.append(event)

        self.addCleanup(audit.follow())
        self.addCleanup(logs.follow(Levels()))
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    def audited(self) -> list[dict[str, Any]]:
        """The security events recorded, in order: their fields, and ``audit``, their name."""
        return [
            {name: value for name, value in event.items() if not name.startswith("log_") and name not in NO_FIELDS}
            for event in self.events
            if event["log_namespace"] == audit.NAMESPACE
        ]

    def logged(self, *levels: Any, namespace: str = "mtserver") -> list[str]:
        """The texts logged at these levels, in order."""
        return [
            str(event["log_format"]).format(**event)
            for event in self.events
            if event["log_namespace"] == namespace and event["log_level"] in levels
        ]
