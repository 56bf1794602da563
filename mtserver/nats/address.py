"""
Addresses of NATS: ``nats://HOST:4222,HOST2:4222/NAME``, or ``tls://...``.

Pure: text in, an :class:`Address` or :class:`~mtserver.errors.ConfigurationError` out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mtserver.errors import ConfigurationError

#: Port of a NATS server, where the address has none.
PORT = 4222

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
#: Names that a stream, a bucket and a token of a subject may all have.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Address(NamedTuple):
    """The servers of one cluster, and a name of something in it."""

    #: Host and port of each; the host of an IPv6 address without brackets.
    servers: tuple[tuple[str, int], ...]
    #: Whether all connections go over TLS.
    tls: bool = False
    #: Name behind the ``/``; empty where there is none.
    name: str = ""
    #: Files with the credentials and with the certificates of the authorities; empty: there is none.
    credentials: str = ""
    authorities: str = ""

    def url(self, server: tuple[str, int]) -> str:
        """Write the URL of one of the servers."""
        host, port = server
        return f"{'tls' if self.tls else 'nats'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_address(text: str) -> bool:
    """Whether a text is meant as an address of NATS, well-formed or not."""
    return text.startswith(("nats:", "tls:"))


def parse_address(text: str) -> Address:
    """Parse ``nats://HOST[:PORT][,HOST[:PORT]...][/NAME]``."""
    scheme, separator, rest = text.partition("://")
    if scheme not in ("nats", "tls") or not separator:
        raise ConfigurationError("not of the form nats://HOST:4222[,HOST:4222...], or tls://...")
    if "@" in rest:
        # A password there could be read in the list of processes and in logs; the error does not repeat it either.
        raise ConfigurationError("a user or password has no place there; see --nats-credentials")
    if "://" in rest:
        raise ConfigurationError(f"{scheme}:// stands once, before the first of several servers")
    hosts, slash, name = rest.partition("/")
    if slash and not _NAME.fullmatch(name):
        raise ConfigurationError(f"the name {name!r} is not made of 1 to 64 letters, digits, - and _")
    servers = []
    for each in hosts.split(","):
        found = _HOST.fullmatch(each)
        port = int(found["port"] or PORT) if found else 0
        if found is None or not 0 < port < 65536:
            raise ConfigurationError(f"{each!r} is not a server's HOST:PORT")
        servers.append((found["host"].strip("[]"), port))
    return Address(tuple(dict.fromkeys(servers)), scheme == "tls", name)
