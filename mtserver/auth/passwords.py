"""
``--auth passwords:PATH``: names and argon2id hashes in a file (RFC 9106), and who knows the password of one.

* A hash takes 64 MiB and a tenth of a second on purpose, so hashing happens in threads of its own, a few at once, and
  no more wait for it than it can do in some seconds.
* A name that is not in the file takes as long as one that is.
* Whoever was let in need not pay again for a minute: clients reconnect all at once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import argon2
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import threads
from twisted.internet.defer import Deferred, succeed
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mtserver.auth.files import version
from mtserver.errors import ConfigurationError, Refusal
from mtserver.refusals import retry_after
from mtserver.telemetry.events import PASSWORDS_REFUSED, PASSWORDS_RELOADED

#: Hashes computed at once, and attempts that may wait for that.
AT_ONCE = 2
WAITING = 32
#: Seconds for which a password that was right is known to be, and how many of them.
RECALLED = 60.0
RECALLED_AT_MOST = 10_000

#: RFC 9106, 4, the second recommended option; argon2-cffi's default.
HASHER = argon2.PasswordHasher()


def read(path: Path) -> dict[str, str]:
    """The hashes in a file, by name; :class:`~mtserver.errors.ConfigurationError` with what is wrong with it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"others may read or write {path}: chmod 600 {path}")
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not name or not hashed.startswith("$argon2id$"):
            raise ConfigurationError(f"line {number} of {path} is not NAME:HASH with an argon2id hash")
        try:
            argon2.extract_parameters(hashed)
        except argon2.exceptions.InvalidHashError:
            raise ConfigurationError(f"line {number} of {path} has a damaged hash") from None
        if name in hashes:
            raise ConfigurationError(f"line {number} of {path} has a name that stands there already")
        hashes[name] = hashed
    return hashes


def checker(argument: str) -> Passwords:
    """As ``strcred`` makes it."""
    return Passwords(Path(argument).absolute())


@implementer(ICredentialsChecker)
class Passwords:
    """
    Checks passwords against a file of hashes.

    :param path: read now, and again whenever it has changed. One that has become worse changes nothing.
    """

    credentialInterfaces = (IUsernamePassword,)  # noqa: N815 - Twisted's name

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes = read(path)
        self._version = version(path)
        # Of nobody's password. Made here once, so that the unknown cost what the known do.
        self._nobody = HASHER.hash(secrets.token_urlsafe())
        self._key = secrets.token_bytes()
        #: Of passwords that were right: when, by what tells them apart and nothing else of them.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._pool: ThreadPool | None = None
        self._waiting = 0

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        self._read_again()
        if self.recalls(credentials):
            return succeed(credentials.username)
        if self._waiting >= AT_ONCE + WAITING:
            raise Refusal("busy", "too many logins at once", retry_after=retry_after(1, 10), closes=True)
        hashed = self._hashes.get(credentials.username.decode(errors="replace"))
        self._waiting += 1
        checked: Deferred[bool] = self._in_thread(_verify, hashed or self._nobody, credentials.password)
        return checked.addBoth(self._checked).addCallback(self._found, credentials, hashed)

    def recalls(self, credentials: Any) -> bool:
        """Whether this password was right a moment ago."""
        known = self._digest(credentials)
        since = self._right.get(known)
        if since is None:
            return False
        if time.monotonic() - since < RECALLED:
            return True
        del self._right[known]
        return False

    def _checked(self, result: Any) -> Any:
        self._waiting -= 1
        return result

    def _found(self, right: bool, credentials: Any, hashed: str | None) -> bytes | tuple[()]:
        name: bytes = credentials.username
        if hashed is None or not right or self._hashes.get(name.decode(errors="replace")) != hashed:
            raise UnauthorizedLogin("wrong name or password")
        self._right[self._digest(credentials)] = time.monotonic()
        if len(self._right) > RECALLED_AT_MOST:
            self._right.popitem(last=False)
        return name

    def _digest(self, credentials: Any) -> bytes:
        text = credentials.username + b"\0" + credentials.password
        return hmac.digest(self._key, text, hashlib.sha256)

    def _read_again(self) -> None:
        now = version(self._path)
        if now == self._version:
            return
        self._version = now
        try:
            self._hashes = read(self._path)
        except ConfigurationError as error:
            PASSWORDS_REFUSED(path=str(self._path), reason=str(error))
        else:
            self._right.clear()
            PASSWORDS_RELOADED(path=str(self._path), users=len(self._hashes))

    def _in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        from twisted.internet import reactor as installed

        reactor: Any = installed
        if self._pool is None:
            self._pool = ThreadPool(0, AT_ONCE, "mtserver-passwords")
            self._pool.start()
            reactor.addSystemEventTrigger("after", "shutdown", self._pool.stop)
        return threads.deferToThreadPool(reactor, self._pool, function, *args)


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except argon2.exceptions.VerifyMismatchError:
        return False  # all else is not the client's fault: a hash that wants more memory than there is, say
