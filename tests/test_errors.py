"""Errors: by whose mistake, and what a peer is told of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import mtserver
from mtserver.errors import (
    BadMessage,
    ConfigurationError,
    HandlerError,
    MtserverError,
    Refusal,
    TooLong,
    Unavailable,
)


class Errors(SynchronousTestCase):
    def test_one_root(self) -> None:
        """All errors have one root, and the three mistakes are told apart."""
        kinds = (ConfigurationError, HandlerError, Refusal)
        for kind in kinds:
            self.assertTrue(issubclass(kind, MtserverError))
            self.assertFalse(any(issubclass(kind, other) for other in kinds if other is not kind))

    def test_refusals(self) -> None:
        """Each refusal has its code, says whether waiting helps, and closes only where nothing else is possible."""
        for refusal, facts in (
            (Refusal("rate", "slower"), ("rate", "slower", None, False)),
            (Refusal("busy", "later", retry_after=5, closes=True), ("busy", "later", 5, True)),
            (BadMessage("no JSON"), ("bad-message", "no JSON", None, False)),
            (BadMessage("lost", closes=True), ("bad-message", "lost", None, True)),
            (TooLong(10), ("too-long", "a message may have at most 10 bytes", None, True)),
            (Unavailable("no journal"), ("unavailable", "no journal", 1, False)),
            (Unavailable("no journal", retry_after=9), ("unavailable", "no journal", 9, False)),
        ):
            self.assertEqual((refusal.code, refusal.text, refusal.retry_after, refusal.closes), facts)
            self.assertEqual(str(refusal), refusal.text)

    def test_retry_after(self) -> None:
        """A wait is a number of seconds, sent rounded up; anything else is its author's mistake, not the client's."""
        self.assertEqual(Unavailable("x", retry_after=0.2).retry_after, 1)
        for wrong in (-1, float("nan"), float("inf")):
            with self.assertRaisesRegex(ValueError, "not a number of seconds"):
                Unavailable("x", retry_after=wrong)

    def test_public(self) -> None:
        """Exceptions that a handler may raise stand in the package itself."""
        for name in ("Refusal", "BadMessage", "Unavailable"):
            self.assertIn(name, mtserver.__all__)
            self.assertTrue(issubclass(getattr(mtserver, name), Refusal))
