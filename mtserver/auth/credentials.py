"""The credentials that a bearer token is to Twisted's checkers; a password is Twisted's own ``IUsernamePassword``."""

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


def named(identity: Any, otherwise: str) -> bytes:
    """What a token says of its bearer, as an identity; ``UnauthorizedLogin`` where that is none."""
    if not isinstance(identity, str) or not identity:
        raise UnauthorizedLogin(otherwise)
    try:
        return identity.encode()
    except UnicodeEncodeError:
        # A lone surrogate: whatever it became, another identity might have become the same.
        raise UnauthorizedLogin("an identity that is no text") from None
