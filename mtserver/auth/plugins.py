"""
Methods that mtserver adds to ``--auth``, as ``strcred`` lists them; other Twisted programs can use them as well.

Imports are light here, since every search for Twisted plugins imports this module: a checker's own module is imported
when the checker is made.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from mtserver.auth.credentials import IBearerToken
from mtserver.errors import ConfigurationError

# A colon before a name and its equals sign; the other colons of an address need no backslash.
_BETWEEN = re.compile(r":(?=[a-z_]+=)")


def arguments(text: str, wanted: set[str], optional: set[str]) -> dict[str, str]:
    """Read ``name=value:name=value``; :class:`~mtserver.errors.ConfigurationError` says what is wrong."""
    found: dict[str, str] = {}
    for part in _BETWEEN.split(text):
        name, equals, value = part.partition("=")
        if not equals or not value or name not in wanted | optional:
            names = ", ".join(sorted(wanted | optional))
            raise ConfigurationError(f"an argument that is not NAME=VALUE, with a name of: {names}")
        if name in found:
            raise ConfigurationError(f"{name} is there twice")
        found[name] = value.replace("\\:", ":")  # allowed, since endpoint strings need it
    missing = wanted - found.keys()
    if missing:
        raise ConfigurationError(f"{', '.join(sorted(missing))} is missing")
    return found


@implementer(IPlugin, ICheckerFactory)
class Method:
    """One method: its name, its help, and the module whose ``checker`` function makes the checker."""

    def __init__(self, name: str, takes: Any, arguments: str, help_: str, module: str) -> None:
        self.authType = name  # Twisted's names, here and below
        self.credentialInterfaces = (takes,)
        self.argStringFormat = arguments
        self.authHelp = help_
        self._module = module

    def generateChecker(self, argstring: str) -> Any:
        return importlib.import_module(self._module).checker(argstring)


PASSWORDS = Method(
    "passwords",
    IUsernamePassword,
    "PATH",
    """\
A file with a line NAME:HASH for each user, hashed with argon2id. Nobody but its owner may read it (mode 0600). It is
read again when it has changed. Make and change it with:

    python -m mtserver.auth add PATH NAME
""",
    "mtserver.auth.passwords",
)

JWT = Method(
    "jwt",
    IBearerToken,
    "issuer=ISSUER:audience=AUDIENCE:key=FILE-or-URL[:identity=CLAIM]",
    """\
Bearer tokens that are JSON Web Tokens (RFC 7519, RFC 9068), verified here. The key is a PEM file with a public key, a
file with a JWK or JWKS, or the address of a JWKS (https; http on this machine only), which is fetched when it is
needed, again every ten minutes and for a key that is not there (but not more often than every ten seconds), and kept
while it cannot be reached. A token has to have exp, iss, aud and the claim that is the client's identity (sub, if not
said otherwise); clocks may differ by 30 seconds.
""",
    "mtserver.auth.jwt",
)

INTROSPECT = Method(
    "introspect",
    IBearerToken,
    "url=URL:client=ID:secret=FILE[:audience=AUDIENCE][:identity=CLAIM][:cache=SECONDS]",
    """\
Bearer tokens of any kind, which the server that issued them is asked about (RFC 7662) at this address (https; http on
this machine only), as the client ID with the secret in this file. An answer is good until the token expires, at most as
many seconds as said (300).
""",
    "mtserver.auth.introspection",
)
