"""``--auth introspect:...``: bearer tokens of any kind, and the server that issued them says whether they are good."""

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
from mtserver.auth.credentials import IBearerToken, named
from mtserver.auth.http import FetchError, checked_url, fetch
from mtserver.auth.plugins import arguments
from mtserver.errors import ConfigurationError, Refusal
from mtserver.refusals import retry_after
from mtserver.telemetry.events import INTROSPECTION_FAILED

#: Seconds for which an answer is good, at most: a token that is revoked is good for as long (RFC 7662, 4).
CACHE = 300.0
#: Answers that are kept, the latest ones.
ANSWERS = 10_000
#: The last second that a token may be good for.
END_OF_TIME = 1e12
#: Questions asked at once.
AT_ONCE = 32


def checker(argument: str) -> Introspection:
    """As ``strcred`` makes it."""
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
    :param url: to ask (RFC 7662).
    :param client: name and secret that we ask with.
    :param audience: that a token has to have, if any is wanted.
    :param identity: the member of the answer that says who its bearer is.
    :param cache: seconds that an answer is good for, at most.
    :param ask: gets the JSON object that answers a POST there.
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
        #: By a hash of the token: who its bearer is, and until when that is so.
        self._known: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._asking = 0

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
        if self._asking >= AT_ONCE:
            raise Refusal("busy", "too many logins at once", retry_after=retry_after(1, 10), closes=True)
        self._asking += 1
        try:
            answer: dict[str, Any] = await self._fetch(
                self._url, data={"token": token, "token_type_hint": "access_token"}, auth=self._client
            )
        except FetchError as error:
            INTROSPECTION_FAILED(source=self._url, reason=str(error))
            raise refusals.unchecked() from None
        finally:
            self._asking -= 1
        return answer

    def _read(self, answer: dict[str, Any], now: float) -> tuple[bytes, float]:
        """Who the bearer is, and until when the token is good."""
        if answer.get("active") is not True:
            raise UnauthorizedLogin("the token is not active")
        until = answer.get("exp", END_OF_TIME)
        # A number of thousands of digits is one to Python, and none to a clock.
        if not isinstance(until, (int, float)) or not now < until <= END_OF_TIME:
            raise UnauthorizedLogin("the token has expired")
        audience = answer.get("aud")
        if self._audience is not None and self._audience not in (
            audience if isinstance(audience, list) else [audience]
        ):
            raise UnauthorizedLogin("the token is for another audience")
        identity = answer.get(self._identity)
        return named(identity, f"the answer has no {self._identity}"), float(until)
