"""
SASL: the message by which a client logs in, ``AUTH <mechanism> <base64>``.

Pure: bytes in, an initial response out (RFC 4422, 4). The mechanisms are those with one message of the client's:

* ``PLAIN`` (RFC 4616): ``[authzid] NUL authcid NUL password``.
* ``OAUTHBEARER`` (RFC 7628): ``n,[a=authzid],`` and pairs ``key=value`` between bytes of value 1, of which
  ``auth=Bearer <token>`` is read.

A client that wants to act for another (an authzid that is not the identity authenticated) is refused.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re

#: Most bytes of a message, and of one that carries a token.
MAX_MESSAGE = 4096
MAX_TOKEN_MESSAGE = 16384

#: First bytes of the message.
VERB = b"AUTH "
_WITH_TOKEN = b"AUTH OAUTHBEARER "
#: Characters of a token: b64token in RFC 6750, 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_SEPARATOR = b"\x01"


class SASLError(Exception):
    """A message that cannot log in anybody. The text is for the audit log and quotes nothing of the message."""


@dataclasses.dataclass(frozen=True, slots=True)
class InitialResponse:
    """The identity that a client claims, and its proof."""

    mechanism: str
    #: Identity that the client claims; empty where it leaves that to the token.
    username: str
    #: The password, or the token.
    secret: bytes = dataclasses.field(repr=False)


def parse(message: bytes) -> InitialResponse:
    """Parse the message; :class:`SASLError` if it is no login, or a malformed one."""
    if not message.startswith(VERB):
        raise SASLError("no AUTH")
    if len(message) > (MAX_TOKEN_MESSAGE if message.startswith(_WITH_TOKEN) else MAX_MESSAGE):
        raise SASLError("too long")
    words = message.split(b" ")
    if len(words) != 3:
        raise SASLError("not of the form AUTH MECHANISM BASE64")
    _, mechanism, encoded = words
    try:
        read = _MECHANISMS[mechanism]
    except KeyError:
        raise SASLError("unknown mechanism") from None
    try:
        response = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise SASLError("not base64") from None
    return read(response)


def _plain(response: bytes) -> InitialResponse:
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise SASLError("PLAIN has not two NUL bytes")
    authzid, authcid, password = fields
    if not authcid or not password:
        raise SASLError("PLAIN lacks the name or the password")
    if authzid not in (b"", authcid):
        raise SASLError("acting for another is not supported")
    return InitialResponse("PLAIN", _text(authcid), password)


def _bearer(response: bytes) -> InitialResponse:
    header, separator, rest = response.partition(_SEPARATOR)
    if not separator or not rest.endswith(_SEPARATOR * 2):
        raise SASLError("OAUTHBEARER is not closed by two bytes of value 1")
    authzid = _authzid(header)
    values: dict[bytes, bytes] = {}
    for pair in rest[:-2].split(_SEPARATOR):
        key, equals, value = pair.partition(b"=")
        if not equals or not key.isalpha() or key in values:
            raise SASLError("OAUTHBEARER has a bad or repeated pair")
        values[key] = value
    scheme, _, token = values.get(b"auth", b"").partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not _TOKEN.fullmatch(token):
        raise SASLError("OAUTHBEARER has no bearer token")
    return InitialResponse("OAUTHBEARER", authzid, token)


def _authzid(header: bytes) -> str:
    """Read the authzid of a gs2-header without channel binding: ``n,a=name,`` (RFC 5801, 4)."""
    match = re.fullmatch(rb"[ny],(?:a=((?:[^,=\0]|=2C|=3D)+))?,", header)
    if match is None:
        raise SASLError("OAUTHBEARER begins with no gs2-header, or wants channel binding")
    return _text((match[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"="))


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise SASLError("the name is not UTF-8") from None


_MECHANISMS = {b"PLAIN": _plain, b"OAUTHBEARER": _bearer}
