"""
What a client says to be let in: one message, ``AUTH <mechanism> <base64>``, before any other.

Pure: bytes in, an attempt out. Mechanisms are those of SASL with one message of the client's:

* ``PLAIN`` (RFC 4616): ``[authzid] NUL authcid NUL password``.
* ``OAUTHBEARER`` (RFC 7628): ``n,[a=authzid],`` and pairs ``key=value`` between bytes of value 1, of which
  ``auth=Bearer <token>`` is looked at.

Who wants to act for somebody else (an authzid that is not the one authenticated) is refused.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re

#: Bytes of the message; those that carry a token may be longer.
MOST = 4096
MOST_WITH_TOKEN = 16384

#: How the message begins.
VERB = b"AUTH "
_BEARING = b"AUTH OAUTHBEARER "
#: RFC 6750, 2.1: b64token.
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_SEPARATOR = b"\x01"


class ExchangeError(Exception):
    """The message is no attempt that could succeed. The text is for the audit log and has nothing of the client's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """What a client claims, and its proof."""

    mechanism: str
    #: Whom it says to be; empty where that is the token's to say.
    username: str
    #: The password, or the token.
    secret: bytes = dataclasses.field(repr=False)


def attempt(message: bytes) -> Attempt:
    """Read the message; :class:`ExchangeError` if it is not one, or not a good one."""
    if not message.startswith(VERB):
        raise ExchangeError("no AUTH")
    if len(message) > (MOST_WITH_TOKEN if message.startswith(_BEARING) else MOST):
        raise ExchangeError("too long")
    words = message.split(b" ")
    if len(words) != 3:
        raise ExchangeError("not of the form AUTH MECHANISM BASE64")
    _, mechanism, encoded = words
    try:
        read = _MECHANISMS[mechanism]
    except KeyError:
        raise ExchangeError("unknown mechanism") from None
    try:
        response = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ExchangeError("not base64") from None
    return read(response)


def _plain(response: bytes) -> Attempt:
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise ExchangeError("PLAIN has not two NUL bytes")
    authzid, authcid, password = fields
    if not authcid or not password:
        raise ExchangeError("PLAIN lacks the name or the password")
    if authzid not in (b"", authcid):
        raise ExchangeError("acting for another is not supported")
    return Attempt("PLAIN", _text(authcid), password)


def _bearer(response: bytes) -> Attempt:
    header, separator, rest = response.partition(_SEPARATOR)
    if not separator or not rest.endswith(_SEPARATOR * 2):
        raise ExchangeError("OAUTHBEARER is not closed by two bytes of value 1")
    authzid = _authzid(header)
    values: dict[bytes, bytes] = {}
    for pair in rest[:-2].split(_SEPARATOR):
        key, equals, value = pair.partition(b"=")
        if not equals or not key.isalpha() or key in values:
            raise ExchangeError("OAUTHBEARER has a bad or repeated pair")
        values[key] = value
    scheme, _, token = values.get(b"auth", b"").partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not _TOKEN.fullmatch(token):
        raise ExchangeError("OAUTHBEARER has no bearer token")
    return Attempt("OAUTHBEARER", authzid, token)


def _authzid(header: bytes) -> str:
    """The authzid in a gs2-header (RFC 5801, 4): ``n,a=name,``; there is no channel binding."""
    match = re.fullmatch(rb"[ny],(?:a=((?:[^,=\0]|=2C|=3D)+))?,", header)
    if match is None:
        raise ExchangeError("OAUTHBEARER begins with no gs2-header, or wants channel binding")
    return _text((match[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"="))


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ExchangeError("the name is not UTF-8") from None


_MECHANISMS = {b"PLAIN": _plain, b"OAUTHBEARER": _bearer}
