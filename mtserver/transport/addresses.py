"""Addresses of clients and ports, as text."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from mtserver.telemetry.escape import escape


def host_of(address: Any) -> str:
    """Return the host of a network address; empty for other addresses, which do not tell clients apart."""
    return address.host if isinstance(address, (IPv4Address, IPv6Address)) else ""


def is_local(address: Any) -> bool:
    """Whether a client at this address is on this machine: a UNIX socket's, or a loopback address."""
    if isinstance(address, UNIXAddress):
        return True
    try:
        host = ipaddress.ip_address(host_of(address).partition("%")[0])
    except ValueError:  # no network address at all
        return False
    return (getattr(host, "ipv4_mapped", None) or host).is_loopback


def format_address(address: Any) -> str:
    """Write ``host:port``, ``[host]:port`` or ``unix:path``, escaped for a log."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{escape(address.name)}" if address.name else "unix"
    return escape(str(address))
