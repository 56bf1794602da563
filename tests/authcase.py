"""Common parts of the tests of authentication."""

from __future__ import annotations

import base64
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer, provider

from mtserver.auth import IBearerToken
from mtserver.telemetry import audit
from mtserver.telemetry.audit import NAMESPACE

REFUSED = b"ERR auth authentication missing or refused"
#: A client on the same machine: its secrets may come in clear text.
HERE = "127.0.0.1"


def plain(name: str, password: str, authzid: str = "") -> bytes:
    """AUTH PLAIN."""
    return b"AUTH PLAIN " + base64.b64encode(f"{authzid}\0{name}\0{password}".encode())


def bearer(token: str, header: str = "n,,") -> bytes:
    """AUTH OAUTHBEARER."""
    return b"AUTH OAUTHBEARER " + base64.b64encode(f"{header}\x01auth=Bearer {token}\x01\x01".encode())


@implementer(ICredentialsChecker)
class Asked:
    """A checker whose answers the test gives."""

    credentialInterfaces = (IUsernamePassword, IBearerToken)  # noqa: N815 - Twisted's name

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: list[Deferred[Any]] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        self.asked.append(credentials)
        self.answers.append(Deferred(lambda _: None))
        return self.answers[-1]


class AuditCase(SynchronousTestCase):
    """`events` are the security events recorded while the test runs."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == NAMESPACE:
                known = {name: value for name, value in event.items() if not name.startswith("log_")}
                self.events.append(known)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.addCleanup(audit.follow())

    def recorded(self, event: str, *fields: str) -> list[Any]:
        """List these fields of each event of that kind."""
        found = [tuple(each[name] for name in fields) for each in self.events if each["audit"] == event]
        return [each[0] for each in found] if len(fields) == 1 else found
