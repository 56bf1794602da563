"""The credentials that a bearer token is to Twisted's checkers; a password is Twisted's own ``IUsernamePassword``."""

from __future__ import annotations

from twisted.cred.credentials import ICredentials
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
