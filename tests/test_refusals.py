"""What the server itself tells a peer: the code, whether it may stay, and when it may come back."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mtserver import refusals
from mtserver.errors import Refusal


class Words(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(refusals, "retry_after", lambda least, most: least * 100 + most)

    def check(self, refusal: Refusal, code: str, text: str, *, wait: float | None = None, closes: bool = True) -> None:
        self.assertEqual((refusal.code, refusal.text), (code, text))
        self.assertEqual((refusal.retry_after, refusal.closes), (wait, closes))
        self.assertIn(code, refusals.CODES)

    def test_come_back(self) -> None:
        """Where waiting helps, a peer is told how long: one second to ten, or what was worked out."""
        self.check(refusals.busy("no room"), "busy", "no room", wait=110)
        self.check(refusals.closing(), "closing", "the server is stopping", wait=110)
        self.check(refusals.unchecked(), "unavailable", "authentication is not possible now", wait=110)
        self.check(refusals.too_many_failures(6.0), "busy", "too many failed logins from your address", wait=6.0)

    def test_closed(self) -> None:
        """Where waiting does not help it is closed, and told why."""
        self.check(refusals.idle(600.0), "idle", "nothing heard for 600 seconds")
        self.check(refusals.slow(), "slow", "too much unread for too long")
        self.check(refusals.too_many_bad(3), "bad-message", "3 bad messages in a row")
        self.check(refusals.timeout(1.5), "timeout", "the message begun 1.5 seconds ago is not complete")
        self.check(refusals.late(10.0), "timeout", "no authentication within 10 seconds")
        self.check(refusals.AUTH, "auth", "authentication missing or refused")

    def test_stays(self) -> None:
        """For what its handler's author has done a peer is not closed."""
        self.check(refusals.INTERNAL, "internal", "the handler failed", closes=False)
