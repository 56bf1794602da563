"""
The journal of one server: opened when it is first asked for, looked after while the loop runs, and closed.
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
    Where a server keeps messages, if it does.

    :param reactor: for time.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._journal: Journal | None = None
        self._ticking: LoopingCall | None = None

    def journal(self) -> Journal:
        """The journal that ``--journal`` means."""
        if self._journal is None:
            self._journal = open_journal(self._settings)
            self._ticking = LoopingCall(self._journal.tick)
            self._ticking.clock = self._reactor
            self._ticking.start(TICK)
        return self._journal

    def trouble(self) -> str:
        """What keeps it from storing, in words; an empty text where nothing does."""
        trouble = "" if self._journal is None else self._journal.trouble
        return f"the journal cannot store: {trouble}" if trouble else ""

    async def close(self) -> None:
        """Store what was appended, and end."""
        if self._ticking is not None:
            self._ticking.stop()
        if self._journal is not None:
            await self._journal.close()
