"""
Where NATS is: ``nats://HOST:4222,HOST2:4222/NAME``, or ``tls://...``.

Pure: text in, an :class:`Address` or :class:`~mtserver.errors.ConfigurationError` out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mtserver.errors import ConfigurationError

#: What NATS servers listen on, where nothing else is said.
PORT = 4222

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
#: What a stream, a bucket and a token of a subject may be called.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Address(NamedTuple):
    """The servers of one cluster, and a name of something in it."""

    #: Host and port of each; the host of an IPv6 address without brackets.
    servers: tuple[tuple[str, int], ...]
    #: All of it, or nothing, goes over TLS.
    tls: bool = False
    #: What stands behind the ``/``; empty where nothing does.
    name: str = ""
    #: The file with the credentials, and that with the authorities; empty: there is none.
    credentials: str = ""
    authorities: str = ""

    def url(self, server: tuple[str, int]) -> str:
        """One of the servers, as a URL."""
        host, port = server
        return f"{'tls' if self.tls else 'nats'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_address(text: str) -> bool:
    """Whether that is meant to be one, right or wrong."""
    return text.startswith(("nats:", "tls:"))


def parse_address(text: str) -> Address:
    """What ``nats://HOST[:PORT][,HOST[:PORT]...][/NAME]`` means."""
    scheme, separator, rest = text.partition("://")
    if scheme not in ("nats", "tls") or not separator:
        raise ConfigurationError("not of the form nats://HOST:4222[,HOST:4222...], or tls://...")
    if "@" in rest:
        # It would be in the list of processes, and in logs, for all to read. (Nor is it repeated here.)
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
