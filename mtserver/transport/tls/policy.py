"""
What the TLS ports of one server have in common: profile, clients' certificates, names.

Each port has a certificate of its own (:class:`Served`). When what they have in common changes, all of them are read
again, since a context of OpenSSL's can be told whom to trust, and not whom no longer to trust.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.logger import Logger

from mtserver.errors import ConfigurationError
from mtserver.transport.tls import self_signed, trust
from mtserver.transport.tls.certificates import Certificate, Files, load
from mtserver.transport.tls.expiry import Expiry
from mtserver.transport.tls.file_watch import Watched
from mtserver.transport.tls.profiles import PROFILES
from mtserver.transport.tls.sni import Names

_log = Logger("mtserver")


def _is_no_worse(new: Certificate, old: Certificate) -> str:
    """Why a new certificate is not to take the place of an old one; an empty text if it is."""
    now = time.time()
    return "it has expired already" if new.ends_at <= now < old.ends_at else ""


class HasContext(Protocol):
    """What begins handshakes: with the context that it has at that time."""

    context: ssl.SSLContext


class Served:
    """
    What one port shows its clients.

    :param name: of its file, for the log.
    :param is_self_signed: made on the spot.
    """

    def __init__(self, name: str, watched: Watched[Certificate], *, is_self_signed: bool) -> None:
        self.name = name
        self.is_self_signed = is_self_signed
        self._watched = watched
        self._users: list[HasContext] = []

    @property
    def certificate(self) -> Certificate:
        return self._watched.value

    @property
    def context(self) -> ssl.SSLContext:
        return self.certificate.context

    def used_by(self, user: HasContext) -> None:
        """Its new handshakes have the new certificate, whenever there is one."""
        self._users.append(user)

    def look(self, *, anyway: bool) -> bool:
        """Read the files if they have changed; whether there is a new certificate."""
        if not self._watched.look(anyway=anyway):
            return False
        for user in self._users:
            user.context = self.context
        return True


class TLSPolicy:
    """
    The policy.

    :param profile: of :data:`~mtserver.transport.tls.profiles.PROFILES`.
    :param client_ca, crl: see :func:`mtserver.transport.tls.trust.load`; None: clients are asked for no certificate.
    :param sni: a folder, see :class:`~mtserver.transport.tls.sni.Names`.
    :param self_signed: whether a port without files gets a certificate made on the spot.

    Raises :class:`~mtserver.errors.ConfigurationError`, with the option's name.
    """

    def __init__(
        self,
        profile: str = "intermediate",
        *,
        client_ca: str | None = None,
        crl: str | None = None,
        sni: str | None = None,
        self_signed: bool = False,
    ) -> None:
        self.profile = PROFILES[profile]
        self.self_signed = self_signed
        self._expiry = Expiry()
        self._served: list[Served] = []
        self._trust: Watched[trust.Trust] | None = None
        self._names: Names | None = None
        if crl is not None and client_ca is None:
            raise ConfigurationError("--tls-crl: only with --tls-client-ca there are certificates to be revoked")
        if client_ca is not None:
            try:
                trust.load(client_ca)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"--tls-client-ca: {error}") from None
            try:
                paths = (client_ca, crl) if crl is not None else (client_ca,)
                self._trust = Watched("client CA", paths, lambda: trust.load(client_ca, crl))
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"--tls-crl: {error}") from None
        if sni is not None:
            try:
                self._names = Names(sni, self._load)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"--tls-sni: {error}") from None

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients must have one."""
        return self._trust is not None

    @property
    def has_names(self) -> bool:
        """Whether clients are shown what they ask for."""
        return self._names is not None

    def serve(self, files: Files) -> Served:
        """A port's certificate, from files; ``OSError`` or ``ValueError`` where they cannot be used."""
        return self._serve(files.certificate, files.paths, lambda: self._load(files))

    def serve_self_signed(self) -> Served:
        """A port's certificate, made on the spot."""
        made = self_signed.make()
        return self._serve("no file (self-signed)", (), lambda: self_signed.certificate(made, self._load))

    def _serve(self, name: str, paths: tuple[str, ...], make: Callable[[], Certificate]) -> Served:
        watched = Watched("certificate", paths, lambda: self._default(make()), better=_is_no_worse)
        served = Served(name, watched, is_self_signed=not paths)
        self._served.append(served)
        return served

    def look(self, now: float, *, anyway: bool = False) -> Iterator[None]:
        """
        See what has changed and what is about to expire, in steps of about a millisecond.

        :param now: seconds since the epoch.
        :param anyway: read all files, changed or not.
        """
        if self._trust is not None and self._trust.look(anyway=anyway):
            anyway = True
            yield
        if self._names is not None:
            yield from self._names.look(anyway=anyway)
        for served in self._served:
            if served.look(anyway=anyway):
                yield
        self.look_at_expiry(now)

    def look_at_expiry(self, now: float) -> None:
        """Warn of certificates that expire."""
        for served in self._served:
            self._expiry.look(served.name, served.certificate, now)
        if self._trust is not None:
            self._expiry.look_at_list(self._trust.paths[-1], self._trust.value.ends_at, now)
        if self._names is not None:
            for path, certificate in self._names.certificates():
                self._expiry.look(path, certificate, now)

    @property
    def is_used(self) -> bool:
        """Whether any port has TLS."""
        return bool(self._served)

    def _load(self, files: Files) -> Certificate:
        return load(files, self.profile, self._trusted())

    def _trusted(self) -> trust.Trust | None:
        return self._trust.value if self._trust is not None else None

    def _default(self, certificate: Certificate) -> Certificate:
        if self._names is not None:
            certificate.context.sni_callback = self._names.choose
        return certificate
