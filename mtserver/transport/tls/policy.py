"""
The TLS policy of one server, common to its ports: profile, authorities for clients' certificates, names.

Each port has a certificate of its own (:class:`Served`). When the authorities change, all certificates are read again,
since an OpenSSL context can be told to trust one more, but not to trust one no longer.
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


def _objection_to(new: Certificate, old: Certificate) -> str:
    """Say why a new certificate must not replace an old one; an empty text if it may."""
    now = time.time()
    return "it has expired already" if new.ends_at <= now < old.ends_at else ""


class HasContext(Protocol):
    """A factory that begins each handshake with its context of that moment."""

    context: ssl.SSLContext


class Served:
    """
    The certificate that one port shows its clients.

    :param name: its file's name, for the log.
    :param is_self_signed: whether it was made on the spot.
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
        """Give each new certificate to a factory, for its handshakes to come."""
        self._users.append(user)

    def look(self, *, force: bool) -> bool:
        """Read the files again if they have changed; return whether there is a new certificate."""
        if not self._watched.look(force=force):
            return False
        for user in self._users:
            user.context = self.context
        return True


class TLSPolicy:
    """
    The policy, from the ``--tls-...`` options.

    :param profile: a name in :data:`~mtserver.transport.tls.profiles.PROFILES`.
    :param client_ca: a file of authorities for :func:`mtserver.transport.tls.trust.load`; None: clients are asked for
        no certificate.
    :param crl: a file of those authorities' revocation lists.
    :param sni: a folder of certificates for :class:`~mtserver.transport.tls.sni.Names`.
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
        """Whether clients must show a certificate."""
        return self._trust is not None

    @property
    def has_names(self) -> bool:
        """Whether clients are shown a certificate of the name that they ask for."""
        return self._names is not None

    def serve(self, files: Files) -> Served:
        """Load a port's certificate; ``OSError`` or ``ValueError`` where the files cannot be used."""
        return self._serve(files.certificate, files.paths, lambda: self._load(files))

    def serve_self_signed(self) -> Served:
        """Make a port's certificate on the spot."""
        made = self_signed.make()
        return self._serve("no file (self-signed)", (), lambda: self_signed.certificate(made, self._load))

    def _serve(self, name: str, paths: tuple[str, ...], make: Callable[[], Certificate]) -> Served:
        watched = Watched("certificate", paths, lambda: self._default(make()), objection=_objection_to)
        served = Served(name, watched, is_self_signed=not paths)
        self._served.append(served)
        return served

    def look(self, now: float, *, force: bool = False) -> Iterator[None]:
        """
        Read changed files again and warn of expiry, in steps of about a millisecond.

        :param now: seconds since the epoch.
        :param force: read all files, changed or not.
        """
        if self._trust is not None and self._trust.look(force=force):
            force = True
            yield
        if self._names is not None:
            yield from self._names.look(force=force)
        for served in self._served:
            if served.look(force=force):
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
        return load(files, self.profile, self._trust.value if self._trust is not None else None)

    def _default(self, certificate: Certificate) -> Certificate:
        if self._names is not None:
            certificate.context.sni_callback = self._names.choose
        return certificate
