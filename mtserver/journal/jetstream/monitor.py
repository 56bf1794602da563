"""
Monitor of a stream: finds it, creates it if there is none, judges it, and checks it again whenever it may have changed.

That is when the connection is made, when the server announces a change, every second while the stream is unfit, and
every :data:`CHECK_INTERVAL` seconds in case an announcement was missed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from twisted.logger import Logger

from mtserver.journal.jetstream.request import NO_STREAM, Refused, request
from mtserver.journal.jetstream.stream import Judgement, Requirements, configuration, judge
from mtserver.nats import Link, words

#: Ticks (seconds) between two checks while nothing is known to have changed.
CHECK_INTERVAL = 10
#: Seconds for an answer. Servers that have just lost a stream's leader give none, but may a moment later.
TIMEOUT = 1.0

_log = Logger("mtserver.journal")


class Monitor:
    """
    Monitor of one stream.

    :param link: link to its servers, which is opened and closed here.
    :param judged: called with the connection and the judgement after each check.
    :param lost: called with the reason whenever a check fails.
    """

    def __init__(
        self, link: Link, wanted: Requirements, judged: Callable[[Client, Judgement], None], lost: Callable[[str], None]
    ) -> None:
        self._link = link
        self._wanted = wanted
        self._judged = judged
        self._lost = lost
        self._checking: asyncio.Task[tuple[Client, Judgement]] | None = None
        #: Whether to check again after the check under way, since the stream may have changed meanwhile.
        self._changed = False
        self._is_routine = False
        self._ticks = 0
        self._notes: tuple[str, ...] = ()
        self._level = ""
        #: Time of the stream's creation, in its server's words; empty before the first check.
        self._created = ""
        self._closed = False
        link.watch(self.check, self._down)
        # Servers announce changes and deletions.
        link.subscribe(f"$JS.EVENT.ADVISORY.STREAM.*.{wanted.options.stream}", lambda *_: self.check())

    async def open(self) -> None:
        """Connect to the servers, without waiting long for them."""
        await self._link.open()
        if not self._link.connected:
            self._lost("NATS cannot be reached")

    def _down(self) -> None:
        if not self._closed:
            self._lost("the connection was lost")

    def tick(self, *, is_well: bool) -> None:
        """Count a second; check if it is time."""
        self._ticks += 1
        if not is_well or self._ticks >= CHECK_INTERVAL:
            self.check(is_routine=is_well)

    def check(self, *, is_routine: bool = False) -> None:
        """
        Check the stream now, or again after the check under way.

        :param is_routine: there is no reason for doubt, so a missing answer is no loss.
        """
        client = self._link.client
        if client is None or self._closed:
            return
        if self._checking is not None:
            self._changed = True
            return
        self._ticks, self._changed, self._is_routine = 0, False, is_routine
        self._checking = task = asyncio.get_running_loop().create_task(self._inspect(client))
        task.add_done_callback(self._checked)

    async def close(self) -> None:
        """End the checks and close the link."""
        self._closed = True
        if self._checking is not None:
            self._checking.cancel()
        await self._link.close()

    async def _inspect(self, client: Client) -> tuple[Client, Judgement]:
        name = self._wanted.options.stream
        try:
            answer = await request(client, f"$JS.API.STREAM.INFO.{name}", seconds=TIMEOUT)
        except Refused as refused:
            if refused.number != NO_STREAM:
                raise
            answer = await self._make(client, name)
        created = str(answer.get("created", ""))
        if self._created not in ("", created):
            _log.warn("the stream {name} is gone with all that was in it; going on with a new one", name=name)
        self._created = created
        version = client.connected_server_version
        found = judge(answer["config"], self._wanted, client.max_payload, (version.major, version.minor))
        return client, found

    async def _make(self, client: Client, name: str) -> Any:
        # If another node creates the same stream meanwhile, the answer is that stream.
        payload = json.dumps(configuration(self._wanted)).encode()
        answer = await request(client, f"$JS.API.STREAM.CREATE.{name}", payload)
        if not self._created:
            _log.info("the stream {name} is new", name=name)
        return answer

    def _checked(self, task: asyncio.Task[tuple[Client, Judgement]]) -> None:
        self._checking = None
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        if error is not None:
            if self._link.connected and not (self._is_routine and isinstance(error, TimeoutError)):
                self._lost(words(error))
        else:
            client, judgement = task.result()
            if client is self._link.client:
                self._log_changes(judgement)
                self._judged(client, judgement)
        if self._changed:
            self.check()

    def _log_changes(self, judgement: Judgement) -> None:
        """Log the level and the notes of a judgement when they change."""
        name = self._wanted.options.stream
        if judgement.level != self._level:
            self._level = judgement.level
            _log.info("the stream {name}: what is stored in it is {how}", name=name, how=judgement.level)
        for note in judgement.notes:
            if note not in self._notes:
                _log.warn("the stream {name}: {note}", name=name, note=note)
        self._notes = judgement.notes
