"""
Authentication: who may come in, decided before a client's first message reaches the handler.

``--auth`` names checkers as Twisted's ``strcred`` does, from any plugin: Twisted's own ``memory:`` and ``file:``, and
mtserver's ``passwords:``, ``jwt:`` and ``introspect:`` (:mod:`mtserver.auth.plugins`). A client's first message is
``AUTH <mechanism> <base64>``; the answer is ``OK``, or ``ERR auth`` and the end of the connection.

Laws:

* Nothing from a client reaches the journal or the handler before it is let in (:mod:`mtserver.auth.login`).
* Secrets are in no log, no traceback and no answer.
* The reason of a refusal is for the audit log alone; each refused client reads the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword

from mtserver.auth.credentials import BearerToken, IBearerToken
from mtserver.auth.gate import Gate
from mtserver.auth.handler_gate import HandlerGate
from mtserver.errors import ConfigurationError

__all__ = ["SUPPORTED", "BearerToken", "Gate", "HandlerGate", "IBearerToken", "checkers"]

#: Kinds of credentials that a client can send.
SUPPORTED = (IUsernamePassword, IBearerToken)


def checkers(descriptions: Sequence[str]) -> list[Any]:
    """Make the checkers that ``--auth`` names; :class:`~mtserver.errors.ConfigurationError` for one that cannot be."""
    return [_checker(description) for description in descriptions]


def _checker(description: str) -> Any:
    # Text behind the first colon may be a secret (``memory:alice:password``), so no error quotes it.
    kind, _, argument = description.partition(":")
    if kind == "file" and not Path(argument).is_file():
        raise ConfigurationError("--auth file: there is no such file")  # Twisted's plugin would refuse every client
    try:
        checker = strcred.makeChecker(description)
    except strcred.InvalidAuthType:
        raise ConfigurationError(f"--auth {kind}: there is no such method; see --help-auth") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"--auth {kind}: {error}") from None
    except Exception as error:  # a plugin may raise anything, and quote anything in it
        raise ConfigurationError(f"--auth {kind}: its argument cannot be used ({type(error).__name__})") from None
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Twisted's plugin stores names and passwords as text, but its checker compares bytes.
        checker.users = {_bytes(name): _bytes(password) for name, password in checker.users.items()}
    if not set(SUPPORTED) & set(checker.credentialInterfaces):
        raise ConfigurationError(f"--auth {kind}: it takes neither passwords nor tokens")
    return checker


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
