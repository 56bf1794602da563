"""
``--auth passwords:PATH``: passwords checked against a file of names and argon2id hashes (RFC 9106).

* A hash takes 64 MiB and a tenth of a second on purpose. So a few threads of their own hash, and no more attempts wait
  for them than they can check in some seconds.
* A name that is not in the file takes as long as one that is.
* A right password is remembered for a minute, since clients reconnect all at once.
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

from mtserver import refusals
from mtserver.auth.files import version
from mtserver.errors import ConfigurationError
from mtserver.telemetry.events import PASSWORDS_REFUSED, PASSWORDS_RELOADED

#: Hashes computed at once.
AT_ONCE = 2
#: Most attempts that wait for a thread.
WAITING = 32
#: Seconds for which a right password is remembered.
RECALLED = 60.0
#: Most right passwords that are remembered.
RECALLED_AT_MOST = 10_000

#: Argon2id with the parameters of RFC 9106, 4, second recommended option; argon2-cffi's default.
HASHER = argon2.PasswordHasher()


def read(path: Path) -> dict[str, str]:
    """Read the hashes of a file, by name; :class:`~mtserver.errors.ConfigurationError` says what is wrong with it."""
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
    """Make the checker from the argument of ``--auth passwords:``."""
    return Passwords(Path(argument).absolute())


@implementer(ICredentialsChecker)
class Passwords:
    """
    Checks passwords against a file of hashes.

    :param path: a file, read now and again whenever it has changed. A new version with a mistake changes nothing.
    """

    credentialInterfaces = (IUsernamePassword,)  # noqa: N815 - Twisted's name

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes = read(path)
        self._version = version(path)
        # A hash of a random password, verified for unknown names, so that they take as long as known ones.
        self._nobody = HASHER.hash(secrets.token_urlsafe())
        self._key = secrets.token_bytes()
        #: Times at which passwords were right, by a keyed hash of name and password.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._pool: ThreadPool | None = None
        self._waiting = 0

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        self._read_again()
        if self.recalls(credentials):
            return succeed(credentials.username)
        if self._waiting >= AT_ONCE + WAITING:
            raise refusals.too_many_logins()
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
        from twisted.internet import reactor as installed  # at the first login: the server has chosen one by then

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
        return False  # other errors are not the client's fault, such as a hash that wants more memory than there is
