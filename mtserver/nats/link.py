"""A connection to a cluster of NATS servers that is made again, with another of them, whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mtserver.errors import ConfigurationError, MtserverError
from mtserver.nats.address import Address
from mtserver.nats.checks import context_for, read_credentials
from mtserver.nats.link_log import Telling, words
from mtserver.telemetry.logs import format_exception

if TYPE_CHECKING:
    from mtserver.nats.connection import Connection

#: The oldest nats-server that will do: the first that numbers streams' subjects for several consumers, and is still
#: mended. Debian 12 has 2.9.
OLDEST = (2, 10)
#: Seconds that :meth:`Link.open` waits for the servers.
OPENING = 2.0
#: Seconds between two questions to the server whether it is there, and for its answer.
ASKING = 1
ANSWER = 2
#: Seconds before the first attempt is repeated, and at most; each is shortened at random by up to a half.
FIRST_DELAY, LAST_DELAY = 0.1, 1.0
#: Seconds after which a connection has been a good one, so that after its loss attempts begin at once again.
STEADY = 5.0

_log = Logger("mtserver.nats")

#: Called, in the loop, with a message: its subject, its subject for an answer (or an empty text), and itself.
Heard = Callable[[str, str, bytes], Any]


class Subject:
    """What is subscribed to, on whatever connection there is."""

    __slots__ = ("heard", "number", "subject")

    def __init__(self, subject: str, heard: Heard) -> None:
        self.subject = subject
        self.heard = heard
        #: Of the connection that there is; 0: there is none.
        self.number = 0


class Link:
    """
    See :mod:`mtserver.nats`. For the loop's thread, and a loop of asyncio.

    :param address: where the servers are, and with which files.
    :param name: what the servers' monitoring shows.
    :param needs: a subject that we have to be allowed to subscribe and to publish to, and where nobody minds what is
        published; empty: there is none.
    :param missed: called with the number of messages that arrived faster than they could be heard.
    """

    def __init__(
        self, address: Address, name: str, needs: str = "", missed: Callable[[int], Any] = lambda _: None
    ) -> None:
        self.address = address
        self._name = name
        self._needs = needs
        self._missed = missed
        #: nats-py's, while the servers can be reached. Ask again after each ``await``: it may be another.
        self.client: Connection | None = None
        #: The same, already while it is being made: where subjects are subscribed to.
        self._line: Connection | None = None
        #: How many questions the server has been asked and has answered: what was published before the last one of
        #: these has arrived.
        self.asked = self.answered = 0
        #: Bytes that one message may have; of the server that we were last connected to.
        self.max_payload = 1024 * 1024
        self._watchers: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._subjects: dict[Subject, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._telling = Telling()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def connected(self) -> bool:
        """The servers can be reached."""
        return self.client is not None

    def watch(self, up: Callable[[], Any], down: Callable[[], Any]) -> None:
        """Have one called each time that the servers can be reached, the other when they cannot any more."""
        self._watchers.append((up, down))

    async def open(self) -> None:
        """Look for the servers from now on. Returns when one has answered or none has: soon."""
        self._task = asyncio.create_task(self._keep())
        waited = asyncio.create_task(self._settled.wait())
        await asyncio.wait([waited], timeout=OPENING)
        waited.cancel()

    async def close(self) -> None:
        """Send what there is to be sent, and end."""
        task, self._task = self._task, None
        if task is None:
            return
        client = self.client
        if client is not None:
            await asyncio.wait([self.spawn(client.round_trip(1))], timeout=1)
        task.cancel()
        await asyncio.wait([task, *self._tasks], timeout=ANSWER)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Have a coroutine run to its end; where it fails, and not because the connection is gone, that is logged."""
        task: asyncio.Task[Any] = asyncio.create_task(self._attempt(work, self.client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attempt(self, work: Any, client: Connection | None) -> None:
        try:
            await work
        except Exception as error:  # whatever it is: nobody waits for it
            if client is not None and self.client is client:
                self._telling.failed(error)

    # Subjects.

    def subscribe(self, subject: str, heard: Heard) -> Subject:
        """Have `heard` called with what is published there. What is published after this has the server know of it."""
        kept = Subject(subject, heard)
        self._subjects[kept] = None
        if self._line is not None:
            kept.number = self._line.listen(subject, heard)
        return kept

    def unsubscribe(self, kept: Subject) -> None:
        """The opposite: nothing is heard any more, also of what is on its way."""
        self._subjects.pop(kept, None)
        if self._line is not None:
            self._line.ignore(kept.number)

    # The connection.

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        servers = list(self.address.servers)
        random.shuffle(servers)
        delays = _delays()
        while True:
            for _ in servers:
                servers.append(servers.pop(0))  # after a loss, another one first
                lost = asyncio.Event()  # of each connection its own: that of one that came to nothing is "lost", too
                client = await self._connect(servers[-1], lost)
                if client is not None:
                    began = loop.time()
                    await self._serve(client, lost)
                    if loop.time() - began >= STEADY:
                        delays = _delays()
                    break
            self._settled.set()
            await asyncio.sleep(next(delays))

    async def _connect(self, server: tuple[str, int], lost: asyncio.Event) -> Connection | None:
        from mtserver.nats.connection import Connection  # nats-py, only where it is used

        url = self.address.url(server)
        said: list[Exception] = []
        client = None
        try:
            context = context_for(self.address.tls, self.address.authorities)
            client = Connection(url, context, lost.set, lambda error: self._failed(error, said), self._missed)
            await client.begin(self._name, read_credentials(self.address.credentials))
            _check_version(client.info)
            self._line = client
            for kept in self._subjects:
                kept.number = client.listen(kept.subject, kept.heard)
            await self._check_rights(client, said)
            await client.round_trip(ANSWER)
        except (Exception, asyncio.CancelledError) as error:
            self._line = None
            if client is not None:
                await client.abandon()
            if isinstance(error, asyncio.CancelledError):
                raise
            why = said[-1] if said and not isinstance(error, MtserverError) else error
            self._telling.away(f"{url}: {words(why)}")
            return None
        else:
            return client

    async def _check_rights(self, client: Connection, said: list[Exception]) -> None:
        """Without them all would seem to be well, and nobody hear anything."""
        if self._needs:
            number = client.listen(self._needs, lambda *_: None)
            await client.publish(self._needs, b"")
            await client.round_trip(ANSWER)
            client.ignore(number)
            if said:
                raise said[0]

    async def _serve(self, client: Connection, lost: asyncio.Event) -> None:
        self.max_payload = client.max_payload
        self._telling.there(client.url, client.info)
        self.client = client
        try:
            for up, _ in self._watchers:
                _call(up)
            self._settled.set()
            while not lost.is_set() and await self._answers(client):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), ASKING)
        finally:
            self.client = self._line = None
            for _, down in self._watchers:
                _call(down)
            if self._task is not None:
                why = client.last_error
                self._telling.away("the connection was lost" + (f": {words(why)}" if why is not None else ""))
            await client.abandon()

    async def _answers(self, client: Connection) -> bool:
        self.asked += 1
        try:
            await client.round_trip(ANSWER)
        except Exception:  # whatever nats-py has to say: it has been lost, and why does not matter any more
            return False
        self.answered = self.asked
        return True

    def _failed(self, error: Exception, said: list[Exception]) -> None:
        """Something has gone wrong on a connection that is being made, or that there is."""
        if self.client is None:
            said.append(error)
        else:
            self._telling.failed(error)


def _call(watcher: Callable[[], Any]) -> None:
    try:
        watcher()
    except Exception as error:  # the link is not to end for it
        _log.error("NATS: {traceback}", traceback=format_exception(error))


def _check_version(info: dict[str, Any]) -> None:
    version = str(info.get("version", ""))
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        raise ConfigurationError(f"it says that it is nats-server {version!r}, which is no version")
    if (int(parts[0]), int(parts[1])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigurationError(f"it is nats-server {version}, and {oldest} is the oldest that will do")


def _delays() -> Any:
    return (
        min(LAST_DELAY, FIRST_DELAY * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 - that not all come at once
        for attempt in itertools.count()
    )
