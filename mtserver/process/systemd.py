"""
Messages to a service manager: that clients are served, that the server stops, and that its loop still turns.

The protocol of systemd's sd_notify(3): lines of ``NAME=value`` in one datagram to the socket that ``NOTIFY_SOCKET``
names, and ``WATCHDOG=1`` at half of the time that ``WATCHDOG_USEC`` allows. Laws:

* Nothing is sent, and no timer runs, where nobody asked for it.
* The loop itself sends the watchdog's word, so a loop that is stuck does not.
* A manager that does not listen stops nobody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

#: Seconds between two looks at whether the status has changed.
STATUS_INTERVAL = 10.0

_log = Logger("mtserver")


class Notifier:
    """
    Tells the service manager that started this process; does nothing if none did.

    :param reactor: for time.
    :param status: what it does, in words, for ``systemctl status``.
    :param environment: where the manager says what it wants to hear.
    """

    def __init__(self, reactor: Any, status: Callable[[], str], environment: Mapping[str, str] = os.environ) -> None:
        self._reactor = reactor
        self._status = status
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        #: Seconds between two words for the watchdog; 0.0: there is none.
        self._patience = _patience(environment) / 2
        self._told = ""
        self._has_failed = False
        self._beat_call: IDelayedCall | None = None

    def ready(self) -> None:
        """Clients are served; also at the end of a reload."""
        self._send("READY=1", *self._new_status())
        if self._address and self._beat_call is None:
            self._beat_later()

    def reloading(self) -> None:
        """The configuration is read anew; :meth:`ready` says that it is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._reactor.seconds() * 1e6)}")

    def stopping(self, seconds: float) -> None:
        """The server stops, which may take so long."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", *self._new_status())

    def close(self) -> None:
        """Say no more."""
        if self._beat_call is not None:
            self._beat_call.cancel()
            self._beat_call = None

    def _beat_later(self) -> None:
        interval = min(self._patience or STATUS_INTERVAL, STATUS_INTERVAL)
        self._beat_call = self._reactor.callLater(interval, self._beat)

    def _beat(self) -> None:
        self._beat_later()
        self._send(*(["WATCHDOG=1"] if self._patience else []), *self._new_status())

    def _new_status(self) -> list[str]:
        status = self._status()
        if status == self._told:
            return []
        self._told = status
        return [f"STATUS={status}"]

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            # Anew each time: a manager that was started again has a new socket by the old name.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                _log.warn("the service manager cannot be told ({lines}): {why}", lines=", ".join(lines), why=str(error))
        else:
            self._has_failed = False


def _address(name: str) -> str:
    """The address as the kernel has it; empty for what is no UNIX socket."""
    if name.startswith("@"):  # in Linux's abstract namespace
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _patience(environment: Mapping[str, str]) -> float:
    """Seconds the watchdog waits for a word of this process; 0.0 where it waits for none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    wanted = environment.get("WATCHDOG_USEC", "")
    return int(wanted) / 1e6 if wanted.isdecimal() else 0.0
