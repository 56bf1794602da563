"""
The key-value bucket in which this node's sheets are stored, for nodes that come later.

What is put there is published at once, and heard by those who listen; that it is *stored* is another matter, which is
seen to until it is: while there is no bucket, or its servers have no leader, each sheet is tried again, once a beat.
A bucket that does not answer may have been deleted: it is looked for, made anew if need be, and given every sheet. One
that refuses a sheet is there. Either is said in the log, once for each reason until all is stored again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mtserver.nats import Heard, Link, words
from mtserver.telemetry.escape import escape
from mtserver.telemetry.rate_limit import Once

if TYPE_CHECKING:
    from nats.js import JetStreamContext

#: Seconds after which what nobody has stored again is gone; it is stored again in half of that.
EXPIRY = 600.0
#: Seconds for JetStream to answer.
ANSWER = 2.0
#: Copies, as far as there are servers for them.
REPLICAS = (3, 2, 1)
#: Different reasons that are logged, at most, before all is stored again.
REASONS = 20

_log = Logger("mtserver.groups")


class Bucket:
    """
    See above.

    :param link: to the servers.
    :param name: of the bucket.
    :param node: whose sheets are stored.
    :param encoded: what is to be stored of a sheet.
    :param found: called with the sheets that are stored, as with messages on their subjects.
    """

    def __init__(self, link: Link, name: str, node: str, encoded: Callable[[int], bytes], found: Heard) -> None:
        self._found = found
        self._link = link
        self._name = name
        self._node = node
        self._encoded = encoded
        #: Of each sheet that is stored: its version, and since when.
        self._stored: dict[int, tuple[int, float]] = {}
        self._storing: dict[int, asyncio.Task[Any]] = {}
        self._usable = False
        self._preparing = False
        self._read = asyncio.Event()
        #: Why something is not stored, as far as it has been logged since all was.
        self._reasons = Once(REASONS)

    async def wait_until_read(self, seconds: float) -> None:
        """Until what is stored has been read, or that long."""
        waited = asyncio.ensure_future(self._read.wait())
        await asyncio.wait([waited], timeout=seconds)
        waited.cancel()

    def up(self, versions: Mapping[int, int]) -> None:
        """The servers can be reached: they may have lost all that they had."""
        self._stored.clear()
        self._usable = False
        self.tick(versions)

    def down(self) -> None:
        """They cannot."""
        self._usable = False

    def tick(self, versions: Mapping[int, int]) -> None:
        """Called from time to time: store what is not."""
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
        """Tell everybody of a sheet's new version, and store it."""
        if self._usable and number not in self._storing:
            self._storing[number] = self._link.spawn(self._store(number, version))
        else:
            self._link.spawn(self._publish(number))

    def _key(self, number: int) -> str:
        return f"$KV.{self._name}.{self._node}.{number}"

    async def _publish(self, number: int) -> None:
        client = self._link.client
        if client is not None:
            await client.publish(self._key(number), self._encoded(number))

    async def _store(self, number: int, version: int) -> None:
        client = self._link.client
        try:
            if client is None:
                return
            answer = await client.request(self._key(number), self._encoded(number), timeout=ANSWER)
            refused = json.loads(answer.data).get("error")
            if refused is None:
                self._stored[number] = version, asyncio.get_running_loop().time()
            else:
                self._trouble(refused.get("description", "refused"))
        except Exception as error:  # no answer, or none of JetStream's: there may be no bucket, nor what was in it
            self._trouble(error)
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
            await self._have(client.jetstream(timeout=ANSWER))
            await self._read_all(client)
            self._usable = self._link.client is client
        except Exception as error:  # likewise
            self._trouble(error)
        finally:
            self._read.set()
            self._preparing = False

    async def _have(self, jetstream: JetStreamContext) -> None:
        """The bucket, with as many copies as the cluster has servers for."""
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
                if found is not None:  # made when there were fewer servers
                    await jetstream.update_stream(found, num_replicas=replicas)
                else:
                    # In memory: nothing in it outlives the nodes that it is about.
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
        """Nobody needs to know any more what this node has stored: it ends."""
        client = self._link.client
        if client is not None and self._usable:
            if self._storing:
                await asyncio.wait(self._storing.values(), timeout=ANSWER / 2)  # or it comes after that
            try:
                jetstream = client.jetstream(timeout=ANSWER / 2)
                await jetstream.purge_stream(f"KV_{self._name}", subject=f"$KV.{self._name}.{self._node}.>")
            except Exception as error:  # it expires
                self._trouble(error)

    def _trouble(self, error: Exception | str) -> None:
        """Say what is wrong with JetStream, once."""
        from nats.errors import NoRespondersError

        text = words(error) if isinstance(error, Exception) else error
        if isinstance(error, NoRespondersError) or getattr(error, "code", 0) is None:  # which nats-py has no words for
            text = "nobody answers: there is no bucket, no leader of it, or no JetStream"
        if self._link.connected and self._reasons.is_new(text):
            _log.warn("presence cannot be stored, and nodes that come now learn of it later: {why}", why=escape(text))
