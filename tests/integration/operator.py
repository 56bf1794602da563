"""An operator of NATS: accounts and users with keys and tokens of their own, made on the spot."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import nkeys

OPERATOR, ACCOUNT, USER = nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER


class Identity:
    """A key pair of one of these kinds."""

    def __init__(self, kind: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = bytes(self._pair.public_key).decode()

    def sign(self, subject: Identity, kind: str, claims: Mapping[str, Any]) -> str:
        """A token in which this one says something of another."""
        body = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": kind,
            "sub": subject.public,
            "nats": {"type": kind, "version": 2, **claims},
        }
        digest = hashlib.sha256(json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(body).encode())}"
        return f"{signed}.{_encoded(self._pair.sign(signed.encode()))}"


class Operator:
    """One with one account."""

    def __init__(self) -> None:
        self._operator, self._account = Identity(OPERATOR), Identity(ACCOUNT)
        self._revoked: dict[str, int] = {}

    @property
    def config(self) -> str:
        """What a server is told of it. (Its tokens say nothing of storing, so nothing is stored.)"""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        claims = {"limits": {**limits, "wildcards": True}, "revocations": self._revoked}
        account = self._operator.sign(self._account, "account", claims)
        operator = self._operator.sign(self._operator, "operator", {})
        return f"operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {self._account.public}: {account} }}\n"

    def user(self) -> tuple[Identity, str]:
        """A new user, and its file of credentials."""
        user = Identity(USER)
        token = self._account.sign(user, "user", {"subs": -1, "data": -1, "payload": -1})
        dashes = "-" * 5
        return user, (
            f"{dashes}BEGIN NATS USER JWT{dashes}\n{token}\n-{dashes}END NATS USER JWT-{dashes}\n\n"
            f"{dashes}BEGIN USER NKEY SEED{dashes}\n{user.seed.decode()}\n-{dashes}END USER NKEY SEED-{dashes}\n"
        )

    def revoke(self, user: Identity) -> None:
        """Take back what this user was given, in :attr:`config` as it is from now on."""
        self._revoked[user.public] = int(time.time()) + 3600


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
