"""Warnings 30, 7 and 1 days before a certificate or a revocation list expires, and when it has; each once."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.logger import Logger

from mtserver.transport.tls.certificates import Certificate

DAY = 86400.0
#: Days before the expiry; the last is the expiry itself.
THRESHOLDS = (30, 7, 1, 0)

_log = Logger("mtserver")


class Expiry:
    """Gives the warnings, and remembers those given."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, int]] = set()

    def look(self, name: str, certificate: Certificate, now: float) -> None:
        """
        Warn of a certificate, if it is time to.

        :param name: its file's name, for the operator.
        :param now: seconds since the epoch.
        """
        self._look("certificate", name, certificate.fingerprint, certificate.ends_at, now)

    def look_at_list(self, name: str, ends_at: float, now: float) -> None:
        """Warn of a revocation list, if it is time to; one that has expired lets no client in."""
        self._look("revocation list", name, f"{name} {ends_at}", ends_at, now)

    def _look(self, what: str, name: str, mark: str, ends_at: float, now: float) -> None:
        left = ends_at - now
        passed = [days for days in THRESHOLDS if left <= days * DAY]
        if not passed:
            return
        # The last threshold says it all where several have been passed together.
        key = mark, passed[-1]
        if key in self._warned:
            return
        self._warned.add(key)
        end = datetime.fromtimestamp(ends_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if left <= 0:
            _log.error("the {what} in {name} has expired, at {end}", what=what, name=name, end=end)
        else:
            _log.warn(
                "the {what} in {name} expires in {days:.1f} days, at {end}",
                what=what,
                name=name,
                days=left / DAY,
                end=end,
            )
