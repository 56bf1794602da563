"""
The journal of one server: opened on first use, ticked while the loop runs, closed with the server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import LoopingCall

from mtserver.journal import Journal, open_journal
from mtserver.settings import Settings

#: Seconds between two of the journal's ticks.
TICK = 1.0


class LazyJournal:
    """
    Journal of a server, opened only if its app uses it.

    :param reactor: clock for the ticks.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._journal: Journal | None = None
        self._ticking: LoopingCall | None = None

    def journal(self) -> Journal:
        """Return the journal that ``--journal`` names; open it the first time."""
        if self._journal is None:
            self._journal = open_journal(self._settings)
            self._ticking = LoopingCall(self._journal.tick)
            self._ticking.clock = self._reactor
            self._ticking.start(TICK)
        return self._journal

    def trouble(self) -> str:
        """Return what keeps the journal from storing, in words; empty if nothing does."""
        trouble = "" if self._journal is None else self._journal.trouble
        return f"the journal cannot store: {trouble}" if trouble else ""

    async def close(self) -> None:
        """Close the journal if it was opened."""
        if self._ticking is not None:
            self._ticking.stop()
        if self._journal is not None:
            await self._journal.close()
