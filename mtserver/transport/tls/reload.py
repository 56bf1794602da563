"""
Certificates are looked at from time to time, and when SIGHUP says so.

In steps, between which the loop turns: a folder may hold a thousand of them.
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

    :param wall: seconds since the epoch, which is what certificates expire by.
    """

    def __init__(self, policy: TLSPolicy, reactor: Any, wall: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._reactor: IReactorTime = reactor
        self._wall = wall
        self._steps: Iterator[None] = iter(())
        self._asked = False
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Warn of what expires; look at the files from now on, if there are any."""
        if self._policy.is_used:
            self._policy.look_at_expiry(self._wall())
            self._call = self._reactor.callLater(INTERVAL, self._begin)

    def now(self) -> None:
        """Read all of them again, and do not wait until it is time to."""
        self._asked = True
        if self._call is not None:
            self._call.cancel()
            self._call = self._reactor.callLater(0, self._begin)

    def stop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _begin(self) -> None:
        asked, self._asked = self._asked, False
        self._steps = self._policy.look(self._wall(), anyway=asked)
        self._step()

    def _step(self) -> None:
        done = next(self._steps, self) is self
        self._call = self._reactor.callLater(INTERVAL if done else 0, self._begin if done else self._step)
