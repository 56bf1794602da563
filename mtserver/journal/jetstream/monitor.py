"""
An eye on the stream: found, made where there is none, judged, and looked at again whenever it may have changed.

That is when the connection is there (again), when the server says that it was changed or deleted, every second while it
does not do what it should, and every :data:`LOOKS` seconds in case none of that was heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from twisted.logger import Logger

from mtserver.journal.jetstream.request import NO_STREAM, Refused, ask
from mtserver.journal.jetstream.stream import Judgement, Wanted, configuration, judge
from mtserver.nats import Link, words

#: Ticks (seconds) after which it is looked at though nothing is known to have happened to it.
LOOKS = 10
#: Seconds for an answer. Servers that have just lost a stream's leader give none, and would a moment later.
PATIENCE = 1.0

_log = Logger("mtserver.journal")


class Watch:
    """
    Of one stream.

    :param link: to its servers; opened and closed here.
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
        self._looking: asyncio.Task[tuple[Client, Judgement]] | None = None
        #: It is to be looked at again, since it has changed meanwhile.
        self._changed = False
        self._just_in_case = False
        self._ticks = 0
        self._notes: tuple[str, ...] = ()
        self._level = ""
        #: When the stream that we know was made, in its server's words; empty: none has been seen.
        self._created = ""
        self._closed = False
        link.watch(self.look, self._down)
        # Every change and its end are announced; who misses that sees it with the next look.
        link.subscribe(f"$JS.EVENT.ADVISORY.STREAM.*.{wanted.options.stream}", lambda *_: self.look())

    async def open(self) -> None:
        """Look for the servers. Returns without waiting long for them."""
        await self._link.open()
        if not self._link.connected:
            self._lost("NATS cannot be reached")

    def _down(self) -> None:
        if not self._closed:
            self._lost("the connection was lost")

    def tick(self, *, is_well: bool) -> None:
        """A second has passed."""
        self._ticks += 1
        if not is_well or self._ticks >= LOOKS:
            self.look(just_in_case=is_well)

    def look(self, *, just_in_case: bool = False) -> None:
        """Look at it now, or once more if somebody does. Just in case: no answer in time is no bad news then."""
        client = self._link.client
        if client is None or self._closed:
            return
        if self._looking is not None:
            self._changed = True
            return
        self._ticks, self._changed, self._just_in_case = 0, False, just_in_case
        self._looking = task = asyncio.get_running_loop().create_task(self._look(client))
        task.add_done_callback(self._seen)

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        await self._link.close()

    async def _look(self, client: Client) -> tuple[Client, Judgement]:
        name = self._wanted.options.stream
        try:
            answer = await ask(client, f"$JS.API.STREAM.INFO.{name}", patience=PATIENCE)
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
        # Where another node makes the same one meanwhile, its answer is that it is there.
        asked = json.dumps(configuration(self._wanted)).encode()
        answer = await ask(client, f"$JS.API.STREAM.CREATE.{name}", asked)
        if not self._created:
            _log.info("the stream {name} is new", name=name)
        return answer

    def _seen(self, task: asyncio.Task[tuple[Client, Judgement]]) -> None:
        self._looking = None
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        if error is not None:
            if self._link.connected and not (self._just_in_case and isinstance(error, TimeoutError)):
                self._lost(words(error))
        else:
            client, judgement = task.result()
            if client is self._link.client:
                self._tell(judgement)
                self._judged(client, judgement)
        if self._changed:
            self.look()

    def _tell(self, judgement: Judgement) -> None:
        """Say what the operator should know, once, and again when it is something else."""
        name = self._wanted.options.stream
        if judgement.level != self._level:
            self._level = judgement.level
            _log.info("the stream {name}: what is stored in it is {how}", name=name, how=judgement.level)
        for note in judgement.notes:
            if note not in self._notes:
                _log.warn("the stream {name}: {note}", name=name, note=note)
        self._notes = judgement.notes
