"""``--auth jwt:...``: bearer tokens that are JSON Web Tokens, verified with their issuer's keys (RFC 7519, 8725)."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mtserver import refusals
from mtserver.auth.credentials import IBearerToken, named
from mtserver.auth.http import FetchError
from mtserver.auth.keys import Keys, algorithms, keys, unwarned
from mtserver.auth.plugins import arguments

#: Seconds by which the issuer's clock and ours may differ.
LEEWAY = 30
#: Keys that are tried on one token: those of an issuer that names none.
TRIED = 8


def checker(argument: str) -> Tokens:
    """As ``strcred`` makes it."""
    given = arguments(argument, {"issuer", "audience", "key"}, {"identity"})
    return Tokens(given["issuer"], given["audience"], keys(given["key"]), given.get("identity", "sub"))


@implementer(ICredentialsChecker)
class Tokens:
    """
    :param issuer, audience: that a token has to have.
    :param identity: the claim that says who its bearer is.
    """

    credentialInterfaces = (IBearerToken,)  # noqa: N815 - Twisted's name

    def __init__(self, issuer: str, audience: str, keys: Keys, identity: str = "sub") -> None:
        self._keys = keys
        self._identity = identity
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(time.time()),
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._verify(credentials.token))

    async def _verify(self, token: str) -> bytes | tuple[()]:
        # Nothing in the header is followed: not jku, not x5u, no key that comes along.
        header = _header(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        try:
            candidates = await self._keys.find(kid if isinstance(kid, str) else None)
        except FetchError:
            raise refusals.unchecked() from None
        able = [key for key in candidates if algorithm in algorithms(key)][:TRIED]
        if not able:
            raise UnauthorizedLogin("no key for this token and its algorithm")
        problem = ""
        for key in able:
            try:
                with unwarned():
                    found = jwt.decode(token, key, algorithms=[str(algorithm)])
                self._claims.validate(found.claims)
            except (JoseError, ValueError, TypeError, RecursionError) as error:
                problem = problem or _problem(error)
            else:
                return self._identity_in(found.claims)
        raise UnauthorizedLogin(problem)

    def _identity_in(self, claims: dict[str, Any]) -> bytes:
        return named(claims.get(self._identity), f"the token has no {self._identity}")


def _problem(error: Exception) -> str:
    """What is wrong with a token, in words that have nothing of the token's."""
    claim = getattr(error, "claim", None)
    return f"the token's {claim} is missing or wrong" if claim else f"{type(error).__name__} of a token"


def _header(token: str) -> dict[str, Any]:
    first, dot, _ = token.partition(".")
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        header = None
    if not dot or not isinstance(header, dict):
        raise UnauthorizedLogin("no JSON Web Token")
    return header
