"""Credentials for Twisted's checkers: a bearer token; a password is Twisted's own ``IUsernamePassword``."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from zope.interface import Attribute, implementer


class IBearerToken(ICredentials):
    """A token that proves by itself who its bearer is (RFC 6750)."""

    token = Attribute("The token, as text.")


@implementer(IBearerToken)
class BearerToken:
    """A token that a client has sent."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token


def identity_from(claim: Any, missing: str) -> bytes:
    """Make an identity of the claim that names a token's bearer; ``UnauthorizedLogin(missing)`` where it is none."""
    if not isinstance(claim, str) or not claim:
        raise UnauthorizedLogin(missing)
    try:
        return claim.encode()
    except UnicodeEncodeError:
        # A lone surrogate is refused, not replaced: a replacement could make two identities equal.
        raise UnauthorizedLogin("an identity that is no text") from None
