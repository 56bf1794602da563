"""Checks of an operator's options for NATS, before anything is opened: one clear error for each mistake."""

from __future__ import annotations

import importlib.util
import re
import ssl
import sys
from pathlib import Path

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from mtserver.errors import ConfigurationError
from mtserver.nats.address import Address, parse_address
from mtserver.settings import Settings

#: Both parts of a file of credentials, as ``nsc`` and ``nats`` write it.
_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\n[\w.=-]+\n")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\nSU[A-Z2-7]+\n")


def check_nats(described: str, settings: Settings) -> Address:
    """
    Read the address of an option, and the files that belong to it.

    :param described: the option and its value, for example ``--groups nats://a:4222``.
    :raises ConfigurationError: where they are wrong, or nats-py is not installed.
    """
    option, _, text = described.partition(" ")
    try:
        address = parse_address(text)
    except ConfigurationError as error:
        # A password in the address, where it should not be, is not repeated.
        shown = option if "@" in text else described
        raise ConfigurationError(f"{shown}: {error}") from None
    if settings.nats_ca and not address.tls:
        raise ConfigurationError(f"--nats-ca {settings.nats_ca}: {described} is not tls://")
    for module in ("nats", "nkeys"):
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(f"{described}: needs nats-py: pip install 'mtserver[nats]'")
    read_credentials(settings.nats_credentials)
    context_for(address.tls, settings.nats_ca)
    return Address(address.servers, address.tls, address.name, settings.nats_credentials, settings.nats_ca)


def check_reactor(described: str) -> None:
    """Raise :class:`~mtserver.errors.ConfigurationError` if the reactor of this process is not on asyncio."""
    reactor = sys.modules.get("twisted.internet.reactor")
    # A process without a reactor gets one on asyncio from mtserver.
    if reactor is not None and not isinstance(reactor, AsyncioSelectorReactor):
        name = type(reactor).__name__
        raise ConfigurationError(f"{described}: needs a reactor on asyncio, and {name} is not; leave --reactor out")


def read_credentials(file: str) -> bytes:
    """Read a file of credentials; empty without a file."""
    if not file:
        return b""
    try:
        found = Path(file).read_bytes().replace(b"\r\n", b"\n")  # nats-py would take the \r for a part of the seed
    except OSError as error:
        raise ConfigurationError(f"--nats-credentials {file}: {error.strerror}") from None
    if not _JWT.search(found) or not _SEED.search(found):
        raise ConfigurationError(f"--nats-credentials {file}: there is no NATS user's token and seed in it")
    return found


def context_for(tls: bool, authorities: str) -> ssl.SSLContext | None:
    """Make a context that trusts a file of authorities, or the system's; None without TLS."""
    if not tls:
        return None
    context = ssl.create_default_context()
    if authorities:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError:
            raise ConfigurationError(f"--nats-ca {authorities}: there is no certificate in it") from None
        except OSError as error:
            raise ConfigurationError(f"--nats-ca {authorities}: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
