"""``--auth introspect:...``: bearer tokens of any kind, judged by the server that issued them (RFC 7662)."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mtserver import refusals
from mtserver.auth.credentials import IBearerToken, identity_from
from mtserver.auth.http import FetchError, checked_url, fetch
from mtserver.auth.plugins import arguments
from mtserver.errors import ConfigurationError
from mtserver.telemetry.events import INTROSPECTION_FAILED

#: Most seconds for which an answer is kept; a token that is revoked meanwhile stays good for as long (RFC 7662, 4).
CACHE = 300.0
#: Most answers that are kept; the oldest goes.
ANSWERS = 10_000
#: Latest expiry that a token may have, in seconds since 1970.
END_OF_TIME = 1e12
#: Most requests at once.
AT_ONCE = 32


def checker(argument: str) -> Introspection:
    """Make the checker from the argument of ``--auth introspect:``."""
    given = arguments(argument, {"url", "client", "secret"}, {"audience", "identity", "cache"})
    path = Path(given["secret"])
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if not secret:
        raise ConfigurationError(f"{path} is empty")
    try:
        cache = float(given.get("cache", CACHE))
    except ValueError:
        cache = -1.0
    if not 0 <= cache < float("inf"):
        raise ConfigurationError(f"cache={given['cache']} is no number of seconds")
    url = checked_url(given["url"])
    return Introspection(
        url, (given["client"], secret), given.get("audience"), given.get("identity", "sub"), cache=cache
    )


@implementer(ICredentialsChecker)
class Introspection:
    """
    Checks tokens by asking their issuer, and remembers its answers for a while.

    :param url: the address to ask.
    :param client: name and secret with which mtserver asks.
    :param audience: the audience that a token must have; None: any.
    :param identity: the member of the answer that names the token's bearer.
    :param cache: the most seconds for which an answer is kept.
    :param ask: a coroutine function that gets the JSON object in answer to a POST.
    """

    credentialInterfaces = (IBearerToken,)  # noqa: N815 - Twisted's name

    def __init__(
        self,
        url: str,
        client: tuple[str, str],
        audience: str | None,
        identity: str = "sub",
        *,
        cache: float = CACHE,
        ask: Callable[..., Awaitable[Any]] = fetch,
    ) -> None:
        self._url = url
        self._client = client
        self._audience = audience
        self._identity = identity
        self._cache = cache
        self._fetch = ask
        #: Bearers of the latest tokens, with the time of their expiry, by a hash of the token.
        self._known: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._requests = 0

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.token))

    async def _check(self, token: str) -> bytes | tuple[()]:
        digest = hashlib.sha256(token.encode()).digest()
        identity, until = self._known.get(digest, (b"", 0.0))
        now = time.time()
        if now < until:
            return identity
        identity, until = self._read(await self._ask(token), now)
        self._known[digest] = identity, min(until, now + self._cache)
        self._known.move_to_end(digest)
        if len(self._known) > ANSWERS:
            self._known.popitem(last=False)
        return identity

    async def _ask(self, token: str) -> dict[str, Any]:
        if self._requests >= AT_ONCE:
            raise refusals.too_many_logins()
        self._requests += 1
        try:
            answer: dict[str, Any] = await self._fetch(
                self._url, data={"token": token, "token_type_hint": "access_token"}, auth=self._client
            )
        except FetchError as error:
            INTROSPECTION_FAILED(source=self._url, reason=str(error))
            raise refusals.unchecked() from None
        finally:
            self._requests -= 1
        return answer

    def _read(self, answer: dict[str, Any], now: float) -> tuple[bytes, float]:
        """Read the bearer and the time of expiry from an answer; ``UnauthorizedLogin`` if the token is no good."""
        if answer.get("active") is not True:
            raise UnauthorizedLogin("the token is not active")
        until = answer.get("exp", END_OF_TIME)
        # Bounded, since Python takes a number of thousands of digits, which no clock does.
        if not isinstance(until, (int, float)) or not now < until <= END_OF_TIME:
            raise UnauthorizedLogin("the token has expired")
        audience = answer.get("aud")
        if self._audience is not None and self._audience not in (
            audience if isinstance(audience, list) else [audience]
        ):
            raise UnauthorizedLogin("the token is for another audience")
        identity = identity_from(answer.get(self._identity), f"the answer has no {self._identity}")
        return identity, float(until)
