"""Limits on failed logins: arithmetic only, without a clock. ``now`` is in seconds of any monotonic clock."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

#: Failures of one host without a consequence.
FREE = 10
#: Seconds after which one of them is forgotten.
FORGOTTEN = 6.0
#: Most hosts that are remembered; the one unseen for longest goes.
HOSTS = 10_000


class Failures:
    """
    Counts of the failed logins of each host.

    An attempt counts as a failure from its beginning until it has succeeded, so that a thousand at once are not free.
    """

    def __init__(self) -> None:
        #: Failures of each host not yet forgotten at a time, and that time; the host unseen for longest first.
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def begin(self, host: str, now: float) -> float:
        """
        Count an attempt of this host as a failure and return 0; or return the seconds until one may be looked at.

        An empty host stands for clients of this machine without an address (UNIX sockets), which have no limit.
        """
        if not host:
            return 0.0
        count = self._count(host, now)
        if count + 1 > FREE:
            return (count + 1 - FREE) * FORGOTTEN
        self._counts[host] = count + 1, now
        self._counts.move_to_end(host)
        if len(self._counts) > HOSTS:
            self._counts.popitem(last=False)
        return 0.0

    def succeeded(self, host: str, now: float) -> None:
        """Take back the count of an attempt that was no failure."""
        count = self._count(host, now) - 1
        if count > 0:
            self._counts[host] = count, now
        else:
            self._counts.pop(host, None)

    def _count(self, host: str, now: float) -> float:
        count, when = self._counts.get(host, (0.0, now))
        return max(0.0, count - (now - when) / FORGOTTEN)


def network(host: str) -> str:
    """Name the hosts whose failures count together: one address, or a /64 of IPv6, where one client has all of it."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
