"""Login by a protocol's own first message: the handler's ``authenticate`` decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.auth.login import Applicant, Login
from mtserver.auth.throttle import Failures, network
from mtserver.errors import Refusal
from mtserver.telemetry.logs import format_exception

#: Function that calls a client's handler with a message, and then the last argument with the outcome: an identity,
#: None, or an exception.
Ask = Callable[[Any, bytes, Callable[[Any], None]], None]

_log = Logger("mtserver.auth")


class HandlerGate:
    """
    Lets in a client that the handler knows.

    :param ask: asks the handler.
    :param stop: cancels the question of a client that has gone or been refused meanwhile.
    :param max_message: the most bytes that the message may have.
    :param seconds: a monotonic clock.
    """

    #: No bytes: after the login, no message is kept from the handler.
    verb = b""

    def __init__(self, ask: Ask, stop: Callable[[Any], None], max_message: int, seconds: Callable[[], float]) -> None:
        self.ask = ask
        self.stop = stop
        self.max_message = max_message
        self.seconds = seconds
        self.failures = Failures()

    def receive(self, applicant: Applicant) -> Login:
        """Begin the login of a client that has connected."""
        return _HandlerLogin(applicant, self)


class _HandlerLogin(Login):
    __slots__ = ("_gate", "max_message")

    def __init__(self, applicant: Applicant, gate: HandlerGate) -> None:
        super().__init__(applicant)
        self._gate = gate
        self.max_message = gate.max_message

    def _decide(self, message: bytes) -> None:
        gate = self._gate
        wait = gate.failures.begin(network(self._applicant.host), gate.seconds())
        if wait:
            self._refuse("too many failures from this address", refusals.too_many_failures(wait))
        else:
            gate.ask(self._applicant, message, self._decided)

    def cancel(self) -> None:
        super().cancel()
        self._gate.stop(self._applicant)

    def _decided(self, outcome: Any) -> None:
        if isinstance(outcome, str) and outcome:
            self._gate.failures.succeeded(network(self._applicant.host), self._gate.seconds())
            self._admit(outcome, "handler", None)
        elif outcome is None or outcome == "":
            self._refuse("refused by the handler")
        elif isinstance(outcome, Refusal):
            self._refuse(outcome.text)
        else:
            error = outcome if isinstance(outcome, BaseException) else TypeError(f"{outcome!r} is no identity")
            _log.error("authenticate() failed: {traceback}", traceback=format_exception(error))
            self._refuse("the handler failed", refusals.unchecked())
