"""Limits on failures: arithmetic only, no clock of its own. ``now`` is seconds on any monotonic clock."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

#: Failures of one host that are free, and seconds after which one of them is forgotten.
FREE = 10
FORGOTTEN = 6.0
#: Hosts that are remembered, the latest ones.
HOSTS = 10_000


class Failures:
    """
    How many attempts of each host have failed lately.

    An attempt counts as a failure from its beginning until it has succeeded, so a thousand at once are not a thousand
    tries for the price of none.
    """

    def __init__(self) -> None:
        #: Per host the failures not yet forgotten, and when that was so; the longest unseen first.
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def begin(self, host: str, now: float) -> float:
        """
        Seconds until an attempt of this host may be looked at. If 0, it counts as a failure from now on.

        An empty host is that of whoever is on this machine, and has no limit.
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
        """The attempt was no failure."""
        count = self._count(host, now) - 1
        if count > 0:
            self._counts[host] = count, now
        else:
            self._counts.pop(host, None)

    def _count(self, host: str, now: float) -> float:
        count, when = self._counts.get(host, (0.0, now))
        return max(0.0, count - (now - when) / FORGOTTEN)


def network(host: str) -> str:
    """Whose failures count together: an address, or, where one peer has 2**64 of them (IPv6), its network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
