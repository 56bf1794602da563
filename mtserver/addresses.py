"""Addresses of peers and ports, as text."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from mtserver.messages import escape


def host_of(address: Any) -> str:
    """The host of a network address; an empty text for others, whose peers all look the same."""
    return address.host if isinstance(address, (IPv4Address, IPv6Address)) else ""


def format_address(address: Any) -> str:
    """``host:port``, ``[host]:port``, or ``unix:path``, with nothing in it that a log must not hold."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{escape(address.name)}" if address.name else "unix"
    return escape(str(address))
