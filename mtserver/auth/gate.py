"""Login by ``--auth``: AUTH messages, their credentials checked by Twisted's checkers (``strcred``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtserver import refusals
from mtserver.auth.credentials import BearerToken, IBearerToken
from mtserver.auth.login import Applicant, Login
from mtserver.auth.sasl import MAX_TOKEN_MESSAGE, VERB, InitialResponse, SASLError, parse
from mtserver.auth.throttle import Failures, network
from mtserver.errors import Refusal
from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception

#: Answer to a client that is let in.
OK = b"OK"

_log = Logger("mtserver.auth")


class Gate:
    """
    Lets in a client that one of the checkers knows.

    :param checkers: asked in this order, each that takes the kind of credentials sent.
    :param seconds: a monotonic clock.
    :param insecure: take passwords and tokens also where others may read them on their way.
    """

    #: First bytes of a login message; one from a client that has been let in already must not reach the handler.
    verb = VERB

    def __init__(
        self, checkers: Sequence[ICredentialsChecker], seconds: Callable[[], float], *, insecure: bool = False
    ) -> None:
        self.insecure = insecure
        self._checkers = checkers
        self._seconds = seconds
        self._failures = Failures()

    def receive(self, applicant: Applicant) -> Login:
        """Begin the login of a client that has connected."""
        return _CheckerLogin(applicant, self)

    def check(self, response: InitialResponse, host: str) -> Deferred[str]:
        """
        Find the identity that a client claims and proves.

        Fails with ``UnauthorizedLogin``, or with a :class:`~mtserver.errors.Refusal` where it is not the client's
        fault.
        """
        kind: Any
        credentials: Any
        if response.mechanism == "PLAIN":
            kind, credentials = IUsernamePassword, UsernamePassword(response.username.encode(), response.secret)
        else:
            kind, credentials = IBearerToken, BearerToken(response.secret.decode("ascii"))
        able = [checker for checker in self._checkers if kind in checker.credentialInterfaces]
        if not able:
            return defer.fail(UnauthorizedLogin("no --auth takes this mechanism"))
        origin = network(host)
        # A client that was let in a moment ago does not suffer for a neighbour behind the same address.
        wait = self._failures.begin(origin, self._seconds())
        if wait and not _is_recalled(able, credentials):
            return defer.fail(refusals.too_many_failures(wait))
        asked = Deferred.fromCoroutine(_ask(able, credentials))
        found = asked.addCallback(self._found, response)
        # An attempt that was not counted takes back no count: a client that may come in could else clear the way for
        # the guesses of its neighbour.
        return found if wait else found.addCallbacks(self._succeeded, self._failed, (origin,), errbackArgs=(origin,))

    @staticmethod
    def _found(avatar: Any, response: InitialResponse) -> str:
        identity = avatar.decode() if isinstance(avatar, bytes) else str(avatar)
        if not identity:
            raise UnauthorizedLogin("an empty identity")
        if response.username and response.username != identity:
            raise UnauthorizedLogin("the token is not that of the name given")
        return identity

    def _succeeded(self, identity: str, origin: str) -> str:
        self._failures.succeeded(origin, self._seconds())
        return identity

    def _failed(self, failure: Failure, origin: str) -> Failure:
        if failure.check(Refusal):
            self._failures.succeeded(origin, self._seconds())  # a failure of the check, not of the client
        return failure


async def _ask(checkers: Sequence[Any], credentials: ICredentials) -> Any:
    refusal: UnauthorizedLogin = UnauthorizedLogin("refused")
    for checker in checkers:
        try:
            return await maybeDeferred(checker.requestAvatarId, credentials)
        except UnauthorizedLogin as error:
            refusal = error
    raise refusal


def _is_recalled(checkers: Sequence[Any], credentials: ICredentials) -> bool:
    return any(checker.recalls(credentials) for checker in checkers if hasattr(checker, "recalls"))


class _CheckerLogin(Login):
    __slots__ = ("_check", "_gate")

    max_message = MAX_TOKEN_MESSAGE

    def __init__(self, applicant: Applicant, gate: Gate) -> None:
        super().__init__(applicant)
        self._gate = gate
        self._check: Deferred[Any] | None = None

    def _decide(self, message: bytes) -> None:
        try:
            response = parse(message)
        except SASLError as error:
            self._refuse(str(error))
            return
        if not (self._applicant.is_private or self._gate.insecure):
            self._refuse("a secret in clear text", mechanism=response.mechanism)
            return
        self._check = self._gate.check(response, self._applicant.host)
        self._check.addCallbacks(
            self._admit, self._check_failed, callbackArgs=(response.mechanism, OK), errbackArgs=(response.mechanism,)
        )

    def cancel(self) -> None:
        super().cancel()
        if self._check is not None:
            self._check.cancel()

    def _check_failed(self, failure: Failure, mechanism: str) -> None:
        error: Any = failure.value
        if isinstance(error, UnauthorizedLogin):
            self._refuse(escape(str(error)) or "refused", mechanism=mechanism)
        elif isinstance(error, Refusal):
            self._refuse(error.text, error, mechanism)
        elif not isinstance(error, CancelledError):
            _log.error("checking a login failed: {traceback}", traceback=format_exception(error))
            self._refuse("the check failed", refusals.unchecked(), mechanism)
