"""
Reload of certificates: changed ones are read again every few seconds, all of them at SIGHUP.

Reading goes in steps, between which the loop turns: a folder may hold a thousand certificates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mtserver.transport.tls.policy import TLSPolicy

#: Seconds between two looks.
INTERVAL = 10.0


class Reload:
    """
    Looks at the certificates of one server.

    :param wall: the wall clock, by which certificates expire.
    """

    def __init__(self, policy: TLSPolicy, reactor: Any, wall: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._reactor: IReactorTime = reactor
        self._wall = wall
        self._steps: Iterator[None] = iter(())
        self._forced = False
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Warn of expiry, and begin to look at the files, if any port has TLS."""
        if self._policy.is_used:
            self._policy.look_at_expiry(self._wall())
            self._call = self._reactor.callLater(INTERVAL, self._begin)

    def now(self) -> None:
        """Read all files again, at once."""
        self._forced = True
        if self._call is not None:
            self._call.cancel()
            self._call = self._reactor.callLater(0, self._begin)

    def stop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _begin(self) -> None:
        forced, self._forced = self._forced, False
        self._steps = self._policy.look(self._wall(), force=forced)
        self._step()

    def _step(self) -> None:
        done = next(self._steps, self) is self
        self._call = self._reactor.callLater(INTERVAL if done else 0, self._begin if done else self._step)
