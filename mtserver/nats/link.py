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
from mtserver.messages import escape
from mtserver.nats.address import Address
from mtserver.nats.checks import context_for, read_credentials

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
#: Bytes received on one subject and not yet looked at; more is dropped, which is counted.
UNREAD = 8 * 1024 * 1024

_log = Logger("mtserver.nats")

#: Called, in the loop, with a message: its subject, its subject for an answer (or an empty text), and itself.
Heard = Callable[[str, str, bytes], Any]


class Subject:
    """What is subscribed to, on whatever connection there is."""

    __slots__ = ("heard", "subject", "subscription")

    def __init__(self, subject: str, heard: Heard) -> None:
        self.subject = subject
        self.heard = heard
        self.subscription: Any = None

    async def __call__(self, message: Any) -> None:
        self.heard(message.subject, message.reply, message.data)


class Link:
    """
    See :mod:`mtserver.nats`. For the loop's thread, and a loop of asyncio.

    :param address: where the servers are, and with which files.
    :param name: what the servers' monitoring shows.
    :param missed: called with the number of messages, each time that so many arrived faster than they were read.
    """

    def __init__(self, address: Address, name: str, missed: Callable[[int], Any] = lambda _: None) -> None:
        self.address = address
        self._name = name
        self._missed = missed
        #: nats-py's, while the servers can be reached. Ask again after each ``await``: it may be another.
        self.client: Connection | None = None
        #: Bytes that one message may have; of the server that we were last connected to.
        self.max_payload = 1024 * 1024
        self._watchers: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._subjects: dict[Subject, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Why we are not connected, as far as it has been logged; None: we are.
        self._reasons: set[str] | None = None

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
            await asyncio.wait([self.spawn(client.rtt(1))], timeout=1)
        self._subjects.clear()
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
                _log.warn("NATS: {why}", why=escape(_words(error)))

    # Subjects.

    def subscribe(self, subject: str, heard: Heard) -> Subject:
        """Have `heard` called with what is published there. What is published after this has the server know of it."""
        kept = Subject(subject, heard)
        self._subjects[kept] = None
        if self.client is not None:
            self.spawn(self._subscribe(self.client, kept))
        return kept

    def unsubscribe(self, kept: Subject) -> None:
        """The opposite."""
        del self._subjects[kept]
        subscription, kept.subscription = kept.subscription, None
        if subscription is not None and self.client is not None:
            self.spawn(subscription.unsubscribe())

    async def _subscribe(self, client: Connection, kept: Subject) -> None:
        if kept in self._subjects:
            limit = max(UNREAD, 2 * self.max_payload)
            kept.subscription = await client.subscribe(kept.subject, cb=kept.__call__, pending_bytes_limit=limit)
            if kept not in self._subjects:
                await kept.subscription.unsubscribe()

    # The connection.

    async def _keep(self) -> None:
        servers = list(self.address.servers)
        random.shuffle(servers)
        delays = _delays()
        while True:
            lost = asyncio.Event()
            for _ in servers:
                servers.append(servers.pop(0))  # after a loss, another one first
                client = await self._connect(servers[-1], lost)
                if client is not None:
                    delays = _delays()
                    await self._serve(client, lost)
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
            client = Connection(url, context, lost.set, lambda error: self._failed(error, said))
            await client.begin(self._name, read_credentials(self.address.credentials))
            _check_version(client.info)
            for kept in list(self._subjects):
                await self._subscribe(client, kept)
            await asyncio.wait_for(client.rtt(ANSWER), ANSWER)
        except (Exception, asyncio.CancelledError) as error:
            if client is not None:
                await client.abandon()
            if isinstance(error, asyncio.CancelledError):
                raise
            why = said[-1] if said and not isinstance(error, MtserverError) else error
            self._away(f"{url}: {_words(why)}")
            return None
        else:
            return client

    async def _serve(self, client: Connection, lost: asyncio.Event) -> None:
        self.max_payload = client.max_payload
        self._back(client)
        self.client = client
        try:
            for up, _ in self._watchers:
                up()
            self._settled.set()
            while not lost.is_set() and await _answers(client):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), ASKING)
        finally:
            self.client = None
            for _, down in self._watchers:
                down()
            if self._task is not None:
                self._away("the connection was lost")
            await client.abandon()

    def _failed(self, error: Exception, said: list[Exception]) -> None:
        from nats.errors import SlowConsumerError

        if isinstance(error, SlowConsumerError):
            self._missed(1)
        else:
            said.append(error)

    def _away(self, why: str) -> None:
        if self._reasons is None:
            self._reasons = set()
        if why not in self._reasons and len(self._reasons) < 20:
            self._reasons.add(why)
            _log.warn("NATS is away, and tried again: {why}", why=escape(why))

    def _back(self, client: Connection) -> None:
        self._reasons = None
        server, version = client.info.get("server_name", ""), client.info.get("version", "")
        _log.info("NATS is there: {url}, {server} {version}", url=client.url, server=server, version=version)


async def _answers(client: Connection) -> bool:
    try:
        await asyncio.wait_for(client.rtt(ANSWER), ANSWER)
    except Exception:  # whatever nats-py has to say: it has been lost, and why does not matter any more
        return False
    return True


def _check_version(info: dict[str, Any]) -> None:
    version = str(info.get("version", ""))
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        raise ConfigurationError(f"it says that it is nats-server {version!r}, which is no version")
    if (int(parts[0]), int(parts[1])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigurationError(f"it is nats-server {version}, and {oldest} is the oldest that will do")


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("nats: ")
    return text or ("it does not answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _delays() -> Any:
    return (
        min(LAST_DELAY, FIRST_DELAY * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 - that not all come at once
        for attempt in itertools.count()
    )
