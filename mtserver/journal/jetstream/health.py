"""
Health of a stream: the reason why it cannot store, for the journal's users and for the log.

A stream that is *lost* (unreachable, or unfit) concerns all clients; a message that it has *refused* concerns only the
client that sent it. Laws:

* However often messages are refused, between however many that are stored, a reason is one line in the log, and one
  more for each :data:`MINUTE` in which it came again.
* Each reason for a loss is one line, until the stream is back.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Once

#: Ticks (seconds) in which refusals for the same reason are one line.
MINUTE = 60
#: Reasons that are told apart, at most; their words are the server's.
REASONS = 20

_log = Logger("mtserver.journal")


class Health:
    """Health of one stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        #: Reason why nothing can be stored; empty while something can, as far as is known.
        self.trouble = ""
        #: Reasons for the present loss that are logged; none while the stream is there.
        self._reasons = Once(REASONS)
        #: Reasons of refusals, and how often each came again since it was logged.
        self._refusals: dict[str, int] = {}
        #: Last reason of a refusal, if nothing has been stored since.
        self._refused = ""
        self._ticks = 0
        self._until_stored = False

    def lost(self, why: str, *, until_stored: bool = False) -> None:
        """
        Record the loss of the stream.

        :param until_stored: it is back only when something is stored, not when it can be seen.
        """
        self.trouble = why
        self._until_stored = self._until_stored or until_stored
        if self._reasons.is_new(why):
            _log.error("the stream {stream} cannot store: {why}", stream=self._stream, why=escape(why))

    def back(self) -> None:
        """Record that the stream can be seen and is fit."""
        if self._until_stored:
            return
        self.trouble = ""
        if self._reasons:
            self._reasons.clear()
            _log.warn("the stream {stream} is back", stream=self._stream)

    def refused(self, why: str) -> None:
        """Record a refusal of one client's messages."""
        self._refused = why
        if why in self._refusals:
            self._refusals[why] += 1
        elif len(self._refusals) < REASONS:
            self._refusals[why] = 0
            _log.error("the stream {stream} has refused to store: {why}", stream=self._stream, why=escape(why))

    def stored(self) -> None:
        """Record that something was stored."""
        self._refused = ""
        if self._until_stored:
            self._until_stored = False
            self.back()
        elif not self._reasons:
            self.trouble = ""

    def tick(self) -> None:
        """Count a second; log the refusals of each minute."""
        if self._refused and not self.trouble:
            # Refusals without anything stored between them concern all: the stream is full, say.
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
