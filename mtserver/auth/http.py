"""Requests to an authorization server: bounded in time and size, and never in clear text beyond this machine."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from mtserver.errors import ConfigurationError

#: Seconds until an answer begins, and as many again for its body.
TIMEOUT = 5.0
#: Most bytes of an answer's body.
MAX_BODY = 1024 * 1024


class FetchError(Exception):
    """A request without an answer, or without a usable one. The text is for the log."""


def checked_url(url: str) -> str:
    """Return `url` if it may be asked; :class:`~mtserver.errors.ConfigurationError` if not."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url} is no address: {error}") from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ConfigurationError(f"{url} is not of the form https://HOST/PATH")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(f"{url}: http is for this machine only, else https")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def fetch(url: str, **request: Any) -> Any:
    """
    Request the JSON object at an address; :class:`FetchError` where there is none.

    :param request: further arguments of ``treq.request``; one with ``data`` is a POST.
    """
    import treq  # brings Twisted's web client, 200 ms to import
    from twisted.internet import reactor  # installs one, if imported before the server has chosen

    method = "POST" if "data" in request else "GET"
    headers: dict[bytes | str, bytes | str] = {"Accept": "application/json"}
    try:
        response = await treq.request(
            method, url, headers=headers, timeout=TIMEOUT, allow_redirects=False, persistent=False, **request
        )
        body = bytearray()

        def collect(data: bytes) -> None:
            body.extend(data)
            if len(body) > MAX_BODY:
                raise FetchError("the answer is too long")

        collected: Deferred[Any] = treq.collect(response, collect)
        await collected.addTimeout(TIMEOUT, reactor)
        if response.code != 200:
            raise FetchError(f"status {response.code}")
        found = json.loads(bytes(body))
    except FetchError:
        raise
    except Exception as error:  # raised by the network, by Twisted's client or by JSON
        raise FetchError(f"{type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise FetchError("the answer is no JSON object")
    return found
