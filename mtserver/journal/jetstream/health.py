"""
How it is with a stream, in words: for whoever asks, and for the log.

Two things are told apart: that the stream is *away* (cannot be reached, will not do), which concerns all, and that it
has *refused* something, which concerns whoever sent that, while what others send is stored. Laws:

* However often clients have something refused, in whatever order with what is stored, a reason is one line, and one
  more for each :data:`MINUTE` in which it came again.
* So is each reason why it is away, until it is back.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Once

#: Ticks (seconds) in which what is refused for the same reason is one line.
MINUTE = 60
#: Reasons that are told apart; the words are the server's.
REASONS = 20

_log = Logger("mtserver.journal")


class Health:
    """Of one stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        #: Why nothing can be stored; empty: it can, as far as is known.
        self.trouble = ""
        #: Why it is away, as far as that is logged; empty: it is not.
        self._reasons = Once(REASONS)
        #: Why something was refused, and how often since that was logged.
        self._refusals: dict[str, int] = {}
        #: The last reason, if nothing has been stored since.
        self._refused = ""
        self._ticks = 0
        self._until_stored = False

    def lost(self, why: str, *, until_stored: bool = False) -> None:
        """
        It is away.

        :param until_stored: that it can be seen says nothing: it is back when something has been stored.
        """
        self.trouble = why
        self._until_stored = self._until_stored or until_stored
        if self._reasons.is_new(why):
            _log.error("the stream {stream} cannot store: {why}", stream=self._stream, why=escape(why))

    def back(self) -> None:
        """It is there, and does what it should, as far as can be seen."""
        if self._until_stored:
            return
        self.trouble = ""
        if self._reasons:
            self._reasons.clear()
            _log.warn("the stream {stream} is back", stream=self._stream)

    def refused(self, why: str) -> None:
        """Something was refused, and nobody but who sent it is concerned."""
        self._refused = why
        if why in self._refusals:
            self._refusals[why] += 1
        elif len(self._refusals) < REASONS:
            self._refusals[why] = 0
            _log.error("the stream {stream} has refused to store: {why}", stream=self._stream, why=escape(why))

    def stored(self) -> None:
        """Something was stored."""
        self._refused = ""
        if self._until_stored:
            self._until_stored = False
            self.back()
        elif not self._reasons:
            self.trouble = ""

    def tick(self) -> None:
        """A second has passed."""
        if self._refused and not self.trouble:
            # Nothing else has been stored since: it is full, say.
            self.trouble = self._refused
        self._ticks += 1
        if self._ticks < MINUTE:
            return
        self._ticks, before, self._refusals = 0, self._refusals, {}
        for why, count in before.items():
            if count:
                self._refusals[why] = 0
                _log.error(
                    "the stream {stream} has refused to store {count} times more: {why}",
                    stream=self._stream,
                    count=count,
                    why=escape(why),
                )
