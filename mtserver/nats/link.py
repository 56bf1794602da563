"""A connection to a cluster of NATS servers that is made again, with another of them, whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mtserver.errors import ConfigurationError, MtserverError
from mtserver.nats.address import Address
from mtserver.nats.checks import context_for, read_credentials
from mtserver.nats.link_log import LinkLog, words
from mtserver.nats.subscription import MessageCallback, Subscription
from mtserver.telemetry.logs import format_exception

if TYPE_CHECKING:
    from mtserver.nats.connection import Connection

#: Oldest nats-server that will do. Older ones, such as the 2.9 of Debian 12, are no longer maintained.
OLDEST = (2, 10)
#: Seconds that :meth:`Link.open` waits for the servers.
OPEN_TIMEOUT = 2.0
#: Seconds between two pings.
PING_INTERVAL = 1
#: Seconds for the server to answer.
TIMEOUT = 2
#: Seconds before the second attempt, and the most before later ones; each is shortened at random by up to a half.
FIRST_DELAY, LAST_DELAY = 0.1, 1.0
#: Seconds after which a connection counts as a good one, so that after its loss the delays begin anew.
STEADY = 5.0

_log = Logger("mtserver.nats")


class Link:
    """
    The link of :mod:`mtserver.nats`. It lives in the loop's thread, and needs a loop of asyncio.

    :param address: the servers, and the files for them.
    :param name: the name that the servers' monitoring shows.
    :param needs: a subject that the user must be allowed to subscribe and publish to, where a message harms nobody;
        empty: rights are not checked.
    :param missed: called with the number of messages dropped, since they came faster than they were handled.
    """

    def __init__(
        self, address: Address, name: str, needs: str = "", missed: Callable[[int], Any] = lambda _: None
    ) -> None:
        self.address = address
        self._name = name
        self._needs = needs
        self._missed = missed
        #: Connection, while the servers can be reached. Read it again after each ``await``: it may be another one.
        self.client: Connection | None = None
        #: Connection, from the moment that subscriptions are made on it.
        self._newest: Connection | None = None
        #: Counts of pings sent and answered: all that was published before an answered ping has arrived.
        self.pings = self.pongs = 0
        #: Most bytes of a message, as the last server said.
        self.max_payload = 1024 * 1024
        self._watchers: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._subscriptions: dict[Subscription, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._link_log = LinkLog()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def connected(self) -> bool:
        """Whether the servers can be reached."""
        return self.client is not None

    def watch(self, up: Callable[[], Any], down: Callable[[], Any]) -> None:
        """Call `up` each time that the servers can be reached again, and `down` when they cannot any more."""
        self._watchers.append((up, down))

    async def open(self) -> None:
        """Connect from now on. Return once one server has answered or all were tried; soon, in any case."""
        self._task = asyncio.create_task(self._run())
        waited = asyncio.create_task(self._tried.wait())
        await asyncio.wait([waited], timeout=OPEN_TIMEOUT)
        waited.cancel()

    async def close(self) -> None:
        """Send what is left to send, and end."""
        task, self._task = self._task, None
        if task is None:
            return
        client = self.client
        if client is not None:
            await asyncio.wait([self.spawn(client.round_trip(1))], timeout=1)
        task.cancel()
        await asyncio.wait([task, *self._tasks], timeout=TIMEOUT)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine to its end; a failure is logged, unless the connection is gone."""
        task: asyncio.Task[Any] = asyncio.create_task(self._attempt(work, self.client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attempt(self, work: Any, client: Connection | None) -> None:
        try:
            await work
        except Exception as error:  # of any kind, since nobody waits for the result
            if client is not None and self.client is client:
                self._link_log.failed(error)

    # Subscriptions.

    def subscribe(self, subject: str, callback: MessageCallback) -> Subscription:
        """Call `callback` with each message on a subject. The server knows before it gets what is published next."""
        subscription = Subscription(subject, callback)
        self._subscriptions[subscription] = None
        if self._newest is not None:
            subscription.number = self._newest.add_subscription(subject, callback)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Call the callback no more, not for messages on their way either."""
        self._subscriptions.pop(subscription, None)
        if self._newest is not None:
            self._newest.remove_subscription(subscription.number)

    # The connection.

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        servers = list(self.address.servers)
        random.shuffle(servers)
        delays = _delays()
        while True:
            for _ in servers:
                servers.append(servers.pop(0))  # after a loss, another one first
                lost = asyncio.Event()  # one for each connection: a failed attempt sets its own, too
                client = await self._connect(servers[-1], lost)
                if client is not None:
                    began = loop.time()
                    await self._hold(client, lost)
                    if loop.time() - began >= STEADY:
                        delays = _delays()
                    break
            self._tried.set()
            await asyncio.sleep(next(delays))

    async def _connect(self, server: tuple[str, int], lost: asyncio.Event) -> Connection | None:
        from mtserver.nats.connection import Connection  # needs nats-py, which is an extra

        url = self.address.url(server)
        reported: list[Exception] = []
        client = None
        try:
            context = context_for(self.address.tls, self.address.authorities)
            client = Connection(url, context, lost.set, lambda error: self._failed(error, reported), self._missed)
            await client.connect_once(self._name, read_credentials(self.address.credentials))
            _check_version(client.info)
            self._newest = client
            for subscription in self._subscriptions:
                subscription.number = client.add_subscription(subscription.subject, subscription.callback)
            await self._check_rights(client, reported)
            await client.round_trip(TIMEOUT)
        except (Exception, asyncio.CancelledError) as error:
            self._newest = None
            if client is not None:
                await client.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
            why = reported[-1] if reported and not isinstance(error, MtserverError) else error
            self._link_log.away(f"{url}: {words(why)}")
            return None
        else:
            return client

    async def _check_rights(self, client: Connection, reported: list[Exception]) -> None:
        """Raise where the user lacks rights: else all would seem well, and no message ever arrive."""
        if self._needs:
            number = client.add_subscription(self._needs, lambda *_: None)
            await client.publish(self._needs, b"")
            await client.round_trip(TIMEOUT)
            client.remove_subscription(number)
            if reported:
                raise reported[0]

    async def _hold(self, client: Connection, lost: asyncio.Event) -> None:
        self.max_payload = client.max_payload
        self._link_log.there(client.url, client.info)
        self.client = client
        try:
            for up, _ in self._watchers:
                _call(up)
            self._tried.set()
            while not lost.is_set() and await self._ping(client):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), PING_INTERVAL)
        finally:
            self.client = self._newest = None
            for _, down in self._watchers:
                _call(down)
            if self._task is not None:
                why = client.last_error
                self._link_log.away("the connection was lost" + (f": {words(why)}" if why is not None else ""))
            await client.abort()

    async def _ping(self, client: Connection) -> bool:
        self.pings += 1
        try:
            await client.round_trip(TIMEOUT)
        except Exception:  # of any kind: the connection is lost
            return False
        self.pongs = self.pings
        return True

    def _failed(self, error: Exception, reported: list[Exception]) -> None:
        """Keep an error of a connection that is being made, for its attempt; log one of the present connection."""
        if self.client is None:
            reported.append(error)
        else:
            self._link_log.failed(error)


def _call(watcher: Callable[[], Any]) -> None:
    try:
        watcher()
    except Exception as error:  # of any kind: the link goes on
        _log.error("NATS: {traceback}", traceback=format_exception(error))


def _check_version(info: dict[str, Any]) -> None:
    version = str(info.get("version", ""))
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        raise ConfigurationError(f"it says that it is nats-server {version!r}, which is no version")
    if (int(parts[0]), int(parts[1])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigurationError(f"it is nats-server {version}, and {oldest} is the oldest that will do")


def _delays() -> Iterator[float]:
    return (
        min(LAST_DELAY, FIRST_DELAY * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        for attempt in itertools.count()
    )
