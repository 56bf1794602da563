"""What a service manager is told, and when; real sockets are in tests/integration."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mtserver.process.systemd import STATUS_INTERVAL, Notifier, _address
from tests.logcase import LogCase


class NotifierCase(LogCase):
    def notifier(self, **environment: str) -> Notifier:
        """One that keeps what it sends in `sent`."""
        self.clock = Clock()
        self.sent: list[list[str]] = []
        self.status = "serving, 0 clients"
        notifier = Notifier(self.clock, lambda: self.status, environment)
        self.patch(notifier, "_send", lambda *lines: self.sent.append(list(lines)) if lines else None)
        return notifier


class Words(NotifierCase):
    def test_life(self) -> None:
        """Ready when it serves, the status when it changes, and at the end how long that may take."""
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify")
        self.assertEqual(self.sent, [])
        notifier.ready()
        self.assertEqual(self.sent.pop(), ["READY=1", "STATUS=serving, 0 clients"])
        self.clock.advance(STATUS_INTERVAL)
        self.assertEqual(self.sent, [])
        self.status = "serving, 7 clients"
        self.clock.advance(STATUS_INTERVAL)
        self.assertEqual(self.sent.pop(), ["STATUS=serving, 7 clients"])
        self.status = "stopping, 7 clients"
        notifier.stopping(45)
        self.assertEqual(self.sent.pop(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000", "STATUS=stopping, 7 clients"])
        notifier.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reload(self) -> None:
        """A reload begins with the monotonic time, and ends with ready; the timer stays one."""
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify")
        notifier.ready()
        self.clock.advance(1.5)
        notifier.reloading()
        notifier.ready()
        self.assertEqual(self.sent[1:], [["RELOADING=1", "MONOTONIC_USEC=1500000"], ["READY=1"]])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_watchdog(self) -> None:
        """The watchdog hears of the loop twice in its time, from when clients are served, and until the end."""
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify", WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        self.clock.advance(60)
        self.assertEqual(self.sent, [])
        notifier.ready()
        self.sent.clear()
        self.clock.advance(1.5)
        notifier.stopping(30)
        self.clock.advance(1.5)
        self.assertEqual([lines[0] for lines in self.sent], ["WATCHDOG=1", "STOPPING=1", "WATCHDOG=1"])

    def test_no_watchdog(self) -> None:
        """A watchdog that is set for another process, or to nonsense, is none."""
        for environment in ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}):
            notifier = self.notifier(NOTIFY_SOCKET="/run/notify", **environment)
            notifier.ready()
            self.clock.advance(STATUS_INTERVAL)
            self.assertEqual(len(self.sent), 1)

    def test_nobody(self) -> None:
        """Without a socket there is no timer, whatever the watchdog says."""
        notifier = self.notifier(WATCHDOG_USEC="3000000")
        notifier.ready()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_addresses(self) -> None:
        """A path, an abstract name; what is neither (vsock, a relative path) is nobody."""
        self.assertEqual(_address("/run/systemd/notify"), "/run/systemd/notify")
        self.assertEqual(_address("@a/b"), "\0a/b")
        for other in ("", "vsock:2:1234", "notify"):
            self.assertEqual(_address(other), "")

    def test_away(self) -> None:
        """A manager that is not there costs one line of the log, and nothing else."""
        clock = Clock()
        notifier = Notifier(clock, lambda: "", {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "2000000"})
        notifier.ready()
        clock.pump([1] * 5)
        (line,) = self.logged(LogLevel.warn)
        self.assertRegex(line, r"\Athe service manager cannot be told \(READY=1\): .*No such file")
