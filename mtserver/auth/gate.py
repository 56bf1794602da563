"""
The door that ``--auth`` opens: AUTH messages, judged by Twisted's checkers (``strcred``), ours and anybody's.
"""

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
from mtserver.auth.login import Applicant, Entry
from mtserver.auth.sasl import MOST_WITH_TOKEN, VERB, Attempt, ExchangeError, attempt
from mtserver.auth.throttle import Failures, network
from mtserver.errors import Refusal
from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception

#: What a client is told that is let in.
OK = b"OK"

_log = Logger("mtserver.auth")


class Gate:
    """
    Lets in whom one of the checkers knows.

    :param checkers: asked in this order, those that take the kind of credentials that the client has sent.
    :param seconds: a monotonic clock.
    :param insecure: take passwords and tokens also where others may read them on their way.
    """

    #: How a message for the door begins: a second one, of a client that has been let in, goes nowhere.
    verb = VERB

    def __init__(
        self, checkers: Sequence[ICredentialsChecker], seconds: Callable[[], float], *, insecure: bool = False
    ) -> None:
        self.insecure = insecure
        self._checkers = checkers
        self._seconds = seconds
        self._failures = Failures()

    def receive(self, applicant: Applicant) -> Entry:
        """A client has come."""
        return _AtTheGate(applicant, self)

    def check(self, attempted: Attempt, host: str) -> Deferred[str]:
        """
        The identity behind an attempt.

        Fails with ``UnauthorizedLogin``, or with a :class:`~mtserver.errors.Refusal` where that is not the client's
        fault.
        """
        kind: Any
        credentials: Any
        if attempted.mechanism == "PLAIN":
            kind, credentials = IUsernamePassword, UsernamePassword(attempted.username.encode(), attempted.secret)
        else:
            kind, credentials = IBearerToken, BearerToken(attempted.secret.decode("ascii"))
        able = [checker for checker in self._checkers if kind in checker.credentialInterfaces]
        if not able:
            return defer.fail(UnauthorizedLogin("no --auth takes this mechanism"))
        origin = network(host)
        # Whoever was let in a moment ago need not suffer for a neighbour behind the same address.
        wait = self._failures.begin(origin, self._seconds())
        if wait and not _is_recalled(able, credentials):
            return defer.fail(refusals.too_many_failures(wait))
        asked = Deferred.fromCoroutine(_ask(able, credentials))
        found = asked.addCallback(self._found, attempted)
        # What was not counted is not taken back: who may come in could otherwise clear the way for guesses.
        return found if wait else found.addCallbacks(self._succeeded, self._failed, (origin,), errbackArgs=(origin,))

    @staticmethod
    def _found(avatar: Any, attempted: Attempt) -> str:
        identity = avatar.decode() if isinstance(avatar, bytes) else str(avatar)
        if not identity:
            raise UnauthorizedLogin("an empty identity")
        if attempted.username and attempted.username != identity:
            raise UnauthorizedLogin("the token is not that of the name given")
        return identity

    def _succeeded(self, identity: str, origin: str) -> str:
        self._failures.succeeded(origin, self._seconds())
        return identity

    def _failed(self, failure: Failure, origin: str) -> Failure:
        if failure.check(Refusal):
            self._failures.succeeded(origin, self._seconds())  # it was not the client that failed
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


class _AtTheGate(Entry):
    __slots__ = ("_gate", "_waiting")

    max_message = MOST_WITH_TOKEN

    def __init__(self, applicant: Applicant, gate: Gate) -> None:
        super().__init__(applicant)
        self._gate = gate
        self._waiting: Deferred[Any] | None = None

    def _judge(self, message: bytes) -> None:
        try:
            attempted = attempt(message)
        except ExchangeError as error:
            self._turn_away(str(error))
            return
        if not (self._applicant.is_private or self._gate.insecure):
            self._turn_away("a secret in clear text", mechanism=attempted.mechanism)
            return
        self._waiting = self._gate.check(attempted, self._applicant.host)
        self._waiting.addCallbacks(
            self._let_in, self._refused, callbackArgs=(attempted.mechanism, OK), errbackArgs=(attempted.mechanism,)
        )

    def cancel(self) -> None:
        super().cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    def _refused(self, failure: Failure, mechanism: str) -> None:
        error: Any = failure.value
        if isinstance(error, UnauthorizedLogin):
            self._turn_away(escape(str(error)) or "refused", mechanism=mechanism)
        elif isinstance(error, Refusal):
            self._turn_away(error.text, error, mechanism)
        elif not isinstance(error, CancelledError):
            _log.error("checking a login failed: {traceback}", traceback=format_exception(error))
            self._turn_away("the check failed", refusals.unchecked(), mechanism)
