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
from mtserver.auth.credentials import IBearerToken, identity_from
from mtserver.auth.http import FetchError
from mtserver.auth.keys import Keys, algorithms, keys, without_warnings
from mtserver.auth.plugins import arguments

#: Seconds by which the issuer's clock and the server's may differ.
LEEWAY = 30
#: Most keys that are tried on one token, where its issuer names none.
TRIED = 8


def checker(argument: str) -> Tokens:
    """Make the checker from the argument of ``--auth jwt:``."""
    given = arguments(argument, {"issuer", "audience", "key"}, {"identity"})
    return Tokens(given["issuer"], given["audience"], keys(given["key"]), given.get("identity", "sub"))


@implementer(ICredentialsChecker)
class Tokens:
    """
    Verifies tokens by their signature and claims, without a question to their issuer about each.

    :param issuer: the issuer that a token must have.
    :param audience: the audience that a token must have.
    :param identity: the claim that names the token's bearer.
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
        # No address or key in the header is used (jku, x5u, jwk): they are the client's.
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
                with without_warnings():
                    found = jwt.decode(token, key, algorithms=[str(algorithm)])
                self._claims.validate(found.claims)
            except (JoseError, ValueError, TypeError, RecursionError) as error:
                problem = problem or _problem(error)
            else:
                return identity_from(found.claims.get(self._identity), f"the token has no {self._identity}")
        raise UnauthorizedLogin(problem)


def _problem(error: Exception) -> str:
    """Name the mistake of a token without a quotation from it."""
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
