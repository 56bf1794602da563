"""The door of a protocol that has one of its own: the handler's ``authenticate`` decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.auth.login import Applicant, Entry
from mtserver.auth.throttle import Failures, network
from mtserver.errors import Refusal
from mtserver.telemetry.logs import format_exception

#: Calls the handler of a client with a message, and the last argument with what came of it: an identity, None, or an
#: exception.
Ask = Callable[[Any, bytes, Callable[[Any], None]], None]

_log = Logger("mtserver.auth")


class HandlersGate:
    """
    Lets in whom the handler knows.

    :param ask: asks it.
    :param stop: ends that, of a client that has gone or been refused meanwhile.
    :param most: bytes that a message may have.
    :param seconds: a monotonic clock.
    """

    #: Who has been let in may say what it likes.
    verb = b""

    def __init__(self, ask: Ask, stop: Callable[[Any], None], most: int, seconds: Callable[[], float]) -> None:
        self.ask = ask
        self.stop = stop
        self.max_message = most
        self.seconds = seconds
        self.failures = Failures()

    def receive(self, applicant: Applicant) -> Entry:
        """A client has come."""
        return _AtTheHandler(applicant, self)


class _AtTheHandler(Entry):
    __slots__ = ("_gate", "max_message")

    def __init__(self, applicant: Applicant, gate: HandlersGate) -> None:
        super().__init__(applicant)
        self._gate = gate
        self.max_message = gate.max_message

    def _judge(self, message: bytes) -> None:
        gate = self._gate
        wait = gate.failures.begin(network(self._applicant.host), gate.seconds())
        if wait:
            self._turn_away("too many failures from this address", refusals.too_many_failures(wait))
        else:
            gate.ask(self._applicant, message, self._decided)

    def cancel(self) -> None:
        super().cancel()
        self._gate.stop(self._applicant)

    def _decided(self, outcome: Any) -> None:
        if isinstance(outcome, str) and outcome:
            self._gate.failures.succeeded(network(self._applicant.host), self._gate.seconds())
            self._let_in(outcome, "handler", None)
        elif outcome is None or outcome == "":
            self._turn_away("refused by the handler")
        elif isinstance(outcome, Refusal):
            self._turn_away(outcome.text)
        else:
            error = outcome if isinstance(outcome, BaseException) else TypeError(f"{outcome!r} is no identity")
            _log.error("authenticate() failed: {traceback}", traceback=format_exception(error))
            self._turn_away("the handler failed", refusals.unchecked())
