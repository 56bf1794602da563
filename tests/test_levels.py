"""--log-level: one level for all, others by name, and one line for each mistake."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError
from mtserver.telemetry.events import LEVELS
from mtserver.telemetry.levels import Levels

law = settings(max_examples=100, deadline=None)
LEVEL = st.sampled_from(LEVELS)


class Reading(SynchronousTestCase):
    def test_default(self) -> None:
        """Lines are written from info on where nothing is said."""
        levels = Levels()
        self.assertEqual(levels.of("till"), "info")
        self.assertFalse(levels.shows("till", "debug"))
        self.assertTrue(levels.shows("till", "info"))

    @law
    @given(LEVEL, LEVEL)
    def test_order(self, least: str, level: str) -> None:
        """A level is written if it is the chosen one or a higher one."""
        self.assertEqual(Levels([least]).shows("till", level), LEVELS.index(level) >= LEVELS.index(least))

    def test_names(self) -> None:
        """A name is for itself and for those below it; the longest that fits decides, and no other begins alike."""
        levels = Levels(["warn", "till=debug", "till.paper=error"])
        found = {name: levels.of(name) for name in ("", "till", "till.receipts", "till.paper.tray", "tiller", "shop")}
        self.assertEqual(
            found,
            {
                "": "warn",
                "till": "debug",
                "till.receipts": "debug",
                "till.paper.tray": "error",
                "tiller": "warn",
                "shop": "warn",
            },
        )

    def test_last(self) -> None:
        """The later of two words for the same holds."""
        levels = Levels(["debug", "till=error", "warn", "till=info"])
        self.assertEqual((levels.of(""), levels.of("till")), ("warn", "info"))

    def test_words(self) -> None:
        """Python's words mean what they mean there, and nobody has to know which case is right."""
        levels = Levels(["WARNING", "till = Fatal", "a=b=debug"])
        self.assertEqual((levels.of(""), levels.of("till"), levels.of("a=b")), ("warn", "critical", "debug"))

    def test_mistakes(self) -> None:
        """A word that is no level, or has no name before its =, is named."""
        choice = "is not one of debug, info, warn, error, critical"
        for word, text in (
            ("loud", f"'loud' {choice}"),
            ("till=", f"'' {choice}"),
            ("till=loud", f"'loud' {choice}"),
            ("=info", "'=info' names no logger before its ="),
            (" =info", "' =info' names no logger before its ="),
        ):
            self.assertEqual(str(self.assertRaises(ConfigurationError, Levels, [word])), text)
