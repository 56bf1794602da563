"""Warnings before a certificate, or a revocation list, expires: 30, 7 and 1 days, and when it has; each once."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.logger import Logger

from mtserver.transport.tls.certificates import Certificate

DAY = 86400.0
#: Days before the end; the last is the end itself.
THRESHOLDS = (30, 7, 1, 0)

_log = Logger("mtserver")


class Expiry:
    """Remembers who has been warned of what."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, int]] = set()

    def look(self, name: str, certificate: Certificate, now: float) -> None:
        """
        Warn if it is time to.

        :param name: of its file, for the operator.
        :param now: seconds since the epoch.
        """
        self._look("certificate", name, certificate.fingerprint, certificate.ends_at, now)

    def look_at_list(self, name: str, ends_at: float, now: float) -> None:
        """Likewise of a revocation list, which lets nobody in once it has expired."""
        self._look("revocation list", name, f"{name} {ends_at}", ends_at, now)

    def _look(self, what: str, name: str, mark: str, ends_at: float, now: float) -> None:
        left = ends_at - now
        passed = [days for days in THRESHOLDS if left <= days * DAY]
        if not passed:
            return
        # Of several that have been passed together, the last says it all.
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
