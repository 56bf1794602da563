"""What those who run the process are told: the audit log from beginning to end, and the warning of root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mtserver.process import status
from mtserver.process.status import MARGIN, StatusReporter
from mtserver.settings import Settings
from mtserver.telemetry import audit
from mtserver.telemetry.events import STOP
from tests.logcase import LogCase


class Life(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(audit.direct)
        self.patch(status, "is_root", lambda: False)
        self.trouble = ""

    def test_life(self) -> None:
        """Start and stop are recorded, the manager is told, and nothing is left behind."""
        path, clock, sent = self.mktemp(), Clock(), []
        mine = StatusReporter(Settings(audit_log=path, app="echo"), clock, lambda: 7, lambda: self.trouble)
        self.patch(mine._notifier, "_send", lambda *lines: sent.append(lines))
        mine.begin()
        mine.serving(["192.0.2.1:80", "unix:s.sock"])
        mine.stopping(40)
        mine.stopped(1.23456, 3)
        start, stop = (json.loads(line) for line in Path(path).read_text().splitlines())
        self.assertEqual((start["event"], start["app"], start["ports"]), ("start", "echo", "192.0.2.1:80, unix:s.sock"))
        self.assertEqual((stop["event"], stop["seconds"], stop["cut_off"]), ("stop", 1.235, 3))
        self.assertEqual(sent[0], ("READY=1", "STATUS=serving, 7 clients"))
        extended = f"EXTEND_TIMEOUT_USEC={int((40 + MARGIN) * 1e6)}"
        self.assertEqual(sent[1], ("STOPPING=1", extended, "STATUS=stopping, 7 clients"))
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_reload(self) -> None:
        """A reload is told from its beginning to its end, also to one that fails."""
        mine, sent = StatusReporter(Settings(), Clock(), lambda: 0, lambda: self.trouble), []
        self.patch(mine._notifier, "_send", lambda *lines: sent.append(lines[0]))
        with self.assertRaises(ValueError), mine.reloading():
            raise ValueError
        self.assertEqual(sent, ["RELOADING=1", "READY=1"])

    def test_not_ready(self) -> None:
        """While the journal cannot store, the manager is told that the server is not ready, and why."""
        clock, sent = Clock(), []
        mine = StatusReporter(Settings(), clock, lambda: 3, lambda: self.trouble)
        mine._notifier._address = "somewhere"
        self.patch(mine._notifier, "_send", lambda *lines: sent.append(lines[-1]))
        mine.serving([])
        self.trouble = "the journal cannot store: a\x1bb"
        clock.advance(10)
        self.trouble = ""
        clock.advance(10)
        mine.stopped(0, 0)
        self.assertEqual(
            sent,
            [
                "STATUS=serving, 3 clients",
                "STATUS=not ready, 3 clients: the journal cannot store: a\\x1bb",
                "STATUS=serving, 3 clients",
            ],
        )

    def test_root(self) -> None:
        """Root is warned, in one line, and the audit log has it."""
        self.patch(status, "is_root", lambda: True)
        mine = StatusReporter(Settings(), Clock(), lambda: 0, lambda: self.trouble)
        mine.begin()
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("serving as root", line)
        events: list[Any] = [event["audit"] for event in self.events if "audit" in event]
        self.assertEqual(events, ["root"])
        mine.stopped(0, 0)

    def test_cannot_open(self) -> None:
        """An audit log that cannot be opened is the caller's to report; events go where they went."""
        mine = StatusReporter(Settings(audit_log="no/such/folder"), Clock(), lambda: 0, lambda: self.trouble)
        self.assertRaises(OSError, mine.begin)
        STOP()
        self.assertEqual(self.logged(LogLevel.info, namespace=audit.NAMESPACE), ["stop"])
