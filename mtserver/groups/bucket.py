"""
The key-value bucket in which this node's sheets are stored, for nodes that start later.

A sheet that is put there is published at once to the nodes that are there. Until it is *stored* as well it is put again
once a beat: there may be no bucket yet, or no leader of its servers. A bucket that does not answer may have been
deleted: it is looked for, made again if need be, and given every sheet. A bucket that refuses a sheet is there. Both
are logged, once for each reason until all sheets are stored again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mtserver.nats import Link, MessageCallback, words
from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Once

if TYPE_CHECKING:
    from nats.js import JetStreamContext

#: Seconds after which a stored sheet expires; its node stores it again after half of that.
EXPIRY = 600.0
#: Seconds for JetStream to answer.
ANSWER = 2.0
#: Copies of the bucket, in order of preference: as many as there are servers for.
REPLICAS = (3, 2, 1)
#: Most different reasons that are logged before all sheets are stored again.
REASONS = 20

_log = Logger("mtserver.groups")


class Bucket:
    """
    The bucket, as one node writes and reads it.

    :param link: the link to the servers.
    :param name: the bucket's name.
    :param node: this node's name.
    :param encode: encodes the sheet with a number.
    :param found: called with each stored sheet, as if it were a message on its subject.
    """

    def __init__(
        self, link: Link, name: str, node: str, encode: Callable[[int], bytes], found: MessageCallback
    ) -> None:
        self._found = found
        self._link = link
        self._name = name
        self._node = node
        self._encode = encode
        #: Stored sheets, by number: the version and the time of storing.
        self._stored: dict[int, tuple[int, float]] = {}
        self._storing: dict[int, asyncio.Task[Any]] = {}
        self._usable = False
        self._preparing = False
        self._read = asyncio.Event()
        #: Reasons logged since all sheets were stored.
        self._reasons = Once(REASONS)

    async def wait_until_read(self, seconds: float) -> None:
        """Wait until the stored sheets have been read once, or so many seconds."""
        waited = asyncio.ensure_future(self._read.wait())
        await asyncio.wait([waited], timeout=seconds)
        waited.cancel()

    def up(self, versions: Mapping[int, int]) -> None:
        """Store everything again: the servers can be reached, but may have lost all that they had."""
        self._stored.clear()
        self._usable = False
        self.tick(versions)

    def down(self) -> None:
        """Store nothing until the servers can be reached again."""
        self._usable = False

    def tick(self, versions: Mapping[int, int]) -> None:
        """Store each sheet that is not stored in this version, or not for long any more; to be called regularly."""
        if not self._usable:
            if not self._preparing:
                self._preparing = True
                self._link.spawn(self._prepare())
            return
        owed = [number for number, version in versions.items() if self._is_owed(number, version)]
        if not owed:
            self._reasons.clear()
        for number in owed:
            if number not in self._storing:
                self.put(number, versions[number])

    def _is_owed(self, number: int, version: int) -> bool:
        stored, since = self._stored.get(number, (0, 0.0))
        return stored != version or asyncio.get_running_loop().time() - since > EXPIRY / 2

    def put(self, number: int, version: int) -> None:
        """Publish a sheet's new version to all nodes, and store it."""
        if self._usable and number not in self._storing:
            self._storing[number] = self._link.spawn(self._store(number, version))
        else:
            self._link.spawn(self._publish(number))

    def _key(self, number: int) -> str:
        return f"$KV.{self._name}.{self._node}.{number}"

    async def _publish(self, number: int) -> None:
        client = self._link.client
        if client is not None:
            await client.publish(self._key(number), self._encode(number))

    async def _store(self, number: int, version: int) -> None:
        client = self._link.client
        try:
            if client is None:
                return
            answer = await client.request(self._key(number), self._encode(number), timeout=ANSWER)
            refused = json.loads(answer.data).get("error")
            if refused is None:
                self._stored[number] = version, asyncio.get_running_loop().time()
            else:
                self._warn(refused.get("description", "refused"))
        except Exception as error:  # without an answer of JetStream's, there may be no bucket any more
            self._warn(error)
            if self._link.client is client:
                self._stored.clear()
                self._usable = False
        finally:
            self._storing.pop(number, None)

    async def _prepare(self) -> None:
        client = self._link.client
        try:
            if client is None:
                return
            await self._make(client.jetstream(timeout=ANSWER))
            await self._read_all(client)
            self._usable = self._link.client is client
        except Exception as error:  # of any kind: the next beat tries again
            self._warn(error)
        finally:
            self._read.set()
            self._preparing = False

    async def _make(self, jetstream: JetStreamContext) -> None:
        """Make the bucket, or give it more copies, as many as the cluster has servers for."""
        from nats.js.api import KeyValueConfig, StorageType
        from nats.js.errors import APIError, NotFoundError

        try:
            found = (await jetstream.stream_info(f"KV_{self._name}")).config
        except NotFoundError:
            found = None
        has = found.num_replicas or 1 if found is not None else 0
        for replicas in REPLICAS:
            if replicas <= has:
                return
            try:
                if found is not None:  # made while there were fewer servers
                    await jetstream.update_stream(found, num_replicas=replicas)
                else:
                    # Stored in memory, since nothing in it outlives the nodes that it is about.
                    await jetstream.create_key_value(
                        KeyValueConfig(bucket=self._name, ttl=EXPIRY, storage=StorageType.MEMORY, replicas=replicas)
                    )
            except APIError:
                if replicas == REPLICAS[-1]:
                    raise
            else:
                return

    async def _read_all(self, client: Any) -> None:
        store = await client.jetstream(timeout=ANSWER).key_value(self._name)
        watcher = await store.watchall(inactive_threshold=5)
        try:
            while (entry := await watcher.updates(timeout=ANSWER)) is not None:
                if entry.value and not entry.operation:
                    self._found(f"$KV.{self._name}.{entry.key}", "", entry.value)
        finally:
            await watcher.stop()

    async def forget(self) -> None:
        """Remove this node's sheets: the node ends."""
        client = self._link.client
        if client is not None and self._usable:
            if self._storing:
                await asyncio.wait(self._storing.values(), timeout=ANSWER / 2)  # else one is stored after the purge
            try:
                jetstream = client.jetstream(timeout=ANSWER / 2)
                await jetstream.purge_stream(f"KV_{self._name}", subject=f"$KV.{self._name}.{self._node}.>")
            except Exception as error:  # of any kind: the sheets expire
                self._warn(error)

    def _warn(self, error: Exception | str) -> None:
        """Log what is wrong with JetStream, once."""
        from nats.errors import NoRespondersError

        text = words(error) if isinstance(error, Exception) else error
        if isinstance(error, NoRespondersError) or getattr(error, "code", 0) is None:  # nats-py has no words for it
            text = "nobody answers: there is no bucket, no leader of it, or no JetStream"
        if self._link.connected and self._reasons.is_new(text):
            _log.warn("presence cannot be stored, and nodes that come now learn of it later: {why}", why=escape(text))
