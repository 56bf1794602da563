"""
An eye on the stream: found, made where there is none, judged, and looked at again whenever it may have changed.

That is when the connection has come back, when the server says that it was changed or deleted, when something could not
be stored, and every :data:`LOOKS` seconds in case none of that was heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from twisted.logger import Logger

from mtserver.journal.jetstream.asking import NO_STREAM, Refused, ask
from mtserver.journal.jetstream.stream import Judgement, Wanted, configuration, judge
from mtserver.nats import Link

#: Ticks (seconds) after which it is looked at though nothing is known to have happened to it.
LOOKS = 10

_log = Logger("mtserver.journal")


class Watch:
    """
    Of one stream.

    :param judged: called with the connection and what the stream can do, after each look.
    :param lost: called with the reason whenever it cannot be seen.
    """

    def __init__(
        self, link: Link, wanted: Wanted, judged: Callable[[Client, Judgement], None], lost: Callable[[str], None]
    ) -> None:
        self._link = link
        self._wanted = wanted
        self._judged = judged
        self._lost = lost
        self._looking: asyncio.Task[Any] | None = None
        self._ticks = 0
        self._advised: Client | None = None
        self._notes: tuple[str, ...] = ()
        self._level = ""
        self._is_known = False
        self._closed = False

    def tick(self, *, is_well: bool) -> None:
        """A second has passed."""
        self._ticks += 1
        if not is_well or self._ticks >= LOOKS:
            self.look()

    def look(self) -> None:
        """Look at it now, unless somebody does."""
        if self._looking is None and not self._closed:
            self._ticks = 0
            self._looking = task = asyncio.get_running_loop().create_task(self._look())
            task.add_done_callback(self._seen)

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> tuple[Client, Judgement]:
        connection = self._link.connection
        if connection is None or not connection.is_connected:
            raise Refused("not connected")
        name = self._wanted.options.stream
        if connection is not self._advised:
            # Every change and the end of it are announced; who misses it sees it with the next look.
            await connection.subscribe(f"$JS.EVENT.ADVISORY.STREAM.*.{name}", cb=self._advise)
            self._advised = connection
        try:
            answer = await ask(connection, f"$JS.API.STREAM.INFO.{name}")
        except Refused as refused:
            if refused.number != NO_STREAM:
                raise
            answer = await self._make(connection, name)
        self._is_known = True
        version = connection.connected_server_version
        found = judge(answer["config"], self._wanted, connection.max_payload, (version.major, version.minor))
        return connection, found

    async def _make(self, connection: Client, name: str) -> Any:
        wanted = configuration(self._wanted)
        answer = await ask(connection, f"$JS.API.STREAM.CREATE.{name}", json.dumps(wanted).encode())
        if self._is_known:
            _log.warn("the stream {name} is gone, with all that was in it; going on with a new one", name=name)
        else:
            _log.info("the stream {name} is new", name=name)
        return answer

    def _seen(self, task: asyncio.Task[tuple[Client, Judgement]]) -> None:
        self._looking = None
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        if error is not None:
            self._lost(f"{error}" if isinstance(error, Refused) else f"{type(error).__name__}: {error}")
            return
        connection, judgement = task.result()
        self._tell(judgement)
        self._judged(connection, judgement)

    def _tell(self, judgement: Judgement) -> None:
        """Say what the operator should know, once, and again when it is something else."""
        name = self._wanted.options.stream
        if judgement.level != self._level:
            self._level = judgement.level
            _log.info("the stream {name}: what is stored in it is {level}", name=name, level=judgement.level)
        for note in judgement.notes:
            if note not in self._notes:
                _log.warn("the stream {name}: {note}", name=name, note=note)
        self._notes = judgement.notes

    async def _advise(self, _message: Any) -> None:
        self.look()


