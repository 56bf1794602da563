"""
Keys that verify tokens, from a file or from the address where an issuer publishes them.

A key is used with the algorithms of its kind only, which keeps a public RSA key from being taken for the secret of an
HMAC (RFC 8725, 2.1). Shared secrets come from files alone.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from joserfc import jwk
from joserfc.errors import JoseError, SecurityWarning
from twisted.internet.defer import Deferred

from mtserver.auth.files import version
from mtserver.auth.http import FetchError, checked_url, fetch
from mtserver.errors import ConfigurationError
from mtserver.telemetry.events import KEYS_REFUSED, KEYS_RELOADED, KEYS_UNREACHABLE

#: Seconds after which published keys are fetched again while nobody waits.
FRESH = 600.0
#: Least seconds between two fetches.
BETWEEN = 10.0
#: Least bits of an RSA key (RFC 7518, 3.3).
RSA_BITS = 2048

_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA", "Ed25519")}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_SHARED = ("HS256", "HS384", "HS512")


def algorithms(key: Any) -> tuple[str, ...]:
    """List the algorithms that a key may verify: those of its kind, narrowed by its own ``use`` and ``alg``."""
    able: tuple[str, ...] = ()
    if key.key_type == "RSA" and key.raw_value.key_size >= RSA_BITS:
        able = _RSA
    elif key.key_type in ("EC", "OKP"):
        able = _CURVES.get(str(key.get("crv")), ())
    elif key.key_type == "oct":
        able = _SHARED
    if key.get("use") not in (None, "sig"):
        return ()
    own = key.get("alg")
    return able if own is None else tuple(name for name in able if name == own)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keep joserfc's security warnings out of the log, for each token: :func:`algorithms` has decided already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield


class Keys(Protocol):
    """A source of keys."""

    async def find(self, kid: str | None) -> list[Any]:
        """Find the keys that may have signed a token with this key id; :class:`FetchError` if none can be had."""
        ...


def keys(place: str) -> Keys:
    """Make the source that ``key=`` means; :class:`~mtserver.errors.ConfigurationError` if it has no keys."""
    return PublishedKeys(checked_url(place)) if "://" in place else FileKeys(Path(place).absolute())


def _named(keys: Iterable[Any], kid: str | None) -> list[Any]:
    return [key for key in keys if kid is None or key.kid in (None, kid)]


class FileKeys:
    """
    Keys in a file, read again when it has changed.

    :param path: a PEM file with one public key, or a JWK or JWKS.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = _from_file(path)
        self._version = version(path)

    async def find(self, kid: str | None) -> list[Any]:
        now = version(self._path)
        if now != self._version:
            self._version = now
            try:
                self._keys = _from_file(self._path)
            except ConfigurationError as error:
                KEYS_REFUSED(source=str(self._path), reason=str(error))
            else:
                KEYS_RELOADED(source=str(self._path), keys=len(self._keys))
        return _named(self._keys, kid)


def _from_file(path: Path) -> list[Any]:
    try:
        text = path.read_bytes()
        if text.lstrip().startswith(b"{"):
            found = _from_jwks(json.loads(text), shared=True)
        else:
            found = [_from_pem(text)]
    except (OSError, ValueError, JoseError) as error:
        raise ConfigurationError(f"{path} holds no key: {error}") from None
    if not found:
        raise ConfigurationError(f"{path} holds no key that can verify a token")
    return found


def _from_pem(text: bytes) -> Any:
    if b"PRIVATE KEY-----" in text:
        raise ValueError("a private key verifies nothing that its public half does not; give that")
    for kind in ("RSA", "EC", "OKP"):
        try:
            with without_warnings():
                key = jwk.import_key(text, kind)
        except (ValueError, TypeError, JoseError):
            continue
        if algorithms(key):
            return key
    raise ValueError("it is no public key of a kind that is supported, or too short")


def _from_jwks(found: dict[str, Any], *, shared: bool) -> list[Any]:
    """Read the usable keys of a JWK or JWKS. A key that is not understood is passed over (RFC 7517, 5)."""
    members = found.get("keys", [found])
    if not isinstance(members, list):
        raise ValueError("its keys are no list")  # noqa: TRY004 - a document's mistake, not a caller's
    usable = []
    for member in members:
        try:
            with without_warnings():
                key = jwk.import_key(member)
        except (ValueError, TypeError, KeyError, AttributeError, JoseError):
            continue
        if algorithms(key) and (shared or key.key_type != "oct"):
            usable.append(key)
    return usable


class PublishedKeys:
    """
    Keys that an issuer publishes: fetched when they are needed, and kept while they cannot be fetched again.

    :param url: the address of a JWKS.
    :param ask: a coroutine function that gets the JSON object there.
    """

    def __init__(self, url: str, ask: Callable[[str], Awaitable[Any]] = fetch) -> None:
        self._url = url
        self._ask = ask
        self._keys: list[Any] = []
        self._fetched_at = self._tried_at = -FRESH
        self._problem = "not fetched yet"
        #: Waiters for the fetch that is under way; None while there is no fetch.
        self._waiting: list[Deferred[None]] | None = None

    async def find(self, kid: str | None) -> list[Any]:
        found = _named(self._keys, kid)
        now = time.monotonic()
        if not found:
            # Limited, since an unknown key id may be a new key, but also one that a client has made up.
            if self._waiting is not None or now - self._tried_at >= BETWEEN:
                await self._fetched()
                found = _named(self._keys, kid)
            if not self._keys:
                raise FetchError(self._problem)
        elif now - self._fetched_at >= FRESH and now - self._tried_at >= BETWEEN:
            self._fetched()  # without a wait: the known keys are still good for this token
        return found

    def _fetched(self) -> Deferred[None]:
        """Begin a fetch, or join the one under way; the Deferred fires at its end, whether it succeeded or not."""
        waiter = Deferred[None]()
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        self._tried_at = time.monotonic()
        Deferred.fromCoroutine(self._fetch())
        return waiter

    async def _fetch(self) -> None:
        try:
            found = _from_jwks(await self._ask(self._url), shared=False)
            if not found:
                raise FetchError("no key there can verify a token")
        except (FetchError, ValueError) as error:
            self._problem = str(error)
            KEYS_UNREACHABLE(source=self._url, reason=self._problem)
        else:
            self._keys = found
            self._fetched_at = time.monotonic()
            KEYS_RELOADED(source=self._url, keys=len(found))
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            waiter.callback(None)
