"""
Admission by ``--max-clients`` and ``--max-clients-per-host``, asked when a client's real address is known.

A client that has gone keeps its place until its handler is done with it: or whoever connects, asks and leaves, again
and again, would have any number of handlers at work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtserver import refusals
from mtserver.errors import Refusal
from mtserver.server.rejection import RejectionProtocol
from mtserver.telemetry.events import CLIENT_REFUSED
from mtserver.transport.addresses import format_address, host_of

#: Rejected newcomers that may be waited for at once, until they have read why. Each is a descriptor of those in
#: :data:`mtserver.transport.listeners.RESERVE`, and as many again may be on their way in and out.
REJECTING = 24

_log = Logger("mtserver")


class Admission:
    """
    Counts who is here, and rejects who is too many.

    :param clients: how many are here.
    :param most: how many may be.
    :param most_per_host: how many of one address; 0: any number.
    :param seconds: a monotonic clock.
    """

    def __init__(self, clients: Callable[[], int], most: int, most_per_host: int, seconds: Callable[[], float]) -> None:
        self._clients = clients
        self._most = most
        self._most_per_host = most_per_host
        self._seconds = seconds
        self._hosts: Counter[str] = Counter()
        #: The host of each client that is counted there, by its number.
        self._host_of: dict[int, str] = {}
        self._rejecting: dict[RejectionProtocol, None] = {}
        self._rejected: Counter[str] = Counter()

    def refusal(self, address: IAddress | None) -> Refusal | None:
        """Why a newcomer from there may not come in; None if it may."""
        host = host_of(address)
        if self._clients() >= self._most:
            refusal = refusals.busy("too many clients")
        elif self._most_per_host and host and self._hosts[host] >= self._most_per_host:
            refusal = refusals.busy("too many clients from your address")
        else:
            return None
        CLIENT_REFUSED(peer=format_address(address), code=refusal.code, reason=refusal.text)
        self._rejected[refusal.text] += 1
        return refusal

    def count_in(self, number: int, address: IAddress | None) -> None:
        """A client from there is here now."""
        host = host_of(address)
        if host and self._most_per_host:
            self._hosts[host] += 1
            self._host_of[number] = host

    def count_out(self, number: int) -> None:
        """A client's connection is gone."""
        host = self._host_of.pop(number, "")
        if host:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    def reject(self, frame: bytes) -> Any:
        """The protocol of a newcomer that may not come in and is told so."""
        if len(self._rejecting) >= REJECTING:
            # The descriptors kept for saying so are all in use: whoever has waited longest has had its time.
            next(iter(self._rejecting)).release()
        return RejectionProtocol(frame, self, self._seconds())

    def rejecting(self, protocol: RejectionProtocol) -> None:
        """A newcomer is being told."""
        self._rejecting[protocol] = None

    def rejected(self, protocol: RejectionProtocol) -> None:
        """A newcomer that was told has gone."""
        self._rejecting.pop(protocol, None)

    def release_all(self) -> None:
        """Close those who are being told."""
        for protocol in list(self._rejecting):
            protocol.release()

    def sweep(self, now: float) -> None:
        """End those who do not go, and log how many there were."""
        for protocol in list(self._rejecting):
            protocol.sweep(now)
        for text, count in self._rejected.items():
            _log.warn("refused {count} connections: {why}", count=count, why=text)
        self._rejected.clear()
