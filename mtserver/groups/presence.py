"""
Presence: each node tells the others who is in its groups, and that it is there.

Sheets (:mod:`mtserver.groups.members`) are put into a key-value bucket of JetStream, one key each, and the others hear
the very message that puts one there, whether the bucket can take it just then or not: while its servers elect a leader
(several seconds) the nodes go on knowing of each other. Whoever comes up reads the bucket; who has missed something
since asks the node itself. That a node is there it says twice a second, to whoever listens, and stores nothing: what
is stored of a node that has died is shown by nobody, and expires there.

Subjects, below a prefix: ``PREFIX.alive`` (a node's name and its sum; goodbye: -1), ``PREFIX.ask`` (who is there? have
you heard of what I subscribed to?), ``PREFIX.node.NAME`` (for one node: a question for sheets, and answers);
``$KV.PREFIX-presence.NAME.SHEET``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from mtserver.concurrency.offload import Promise, done
from mtserver.groups import Change, Member
from mtserver.groups.barriers import Confirmations, Returning, keep
from mtserver.groups.bucket import Bucket
from mtserver.groups.members import Others, Own, Sheet, entries_of
from mtserver.groups.unknown_messages import Oddities
from mtserver.nats import Link

#: Seconds between two signs of life.
BEAT = 0.5
#: Seconds between two writings of what has changed: all changes between are written together.
WRITING = 0.05
#: Seconds between two questions to one node for what we have missed.
ASKING = 1.0


class Presence:
    """
    See above.

    :param link: to the servers.
    :param prefix: of all subjects, and of the bucket.
    :param node: this node's name.
    :param changed: called with each change of who is in a group on other nodes.
    :param complete: called when whoever was there before NATS was lost is there again, or has had its time.
    """

    def __init__(
        self, link: Link, prefix: str, node: str, changed: Callable[[Change], Any], complete: Callable[[], Any]
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._node = node
        self._changed = changed
        self.returning = Returning(complete)
        self._own = Own()
        self._others = Others()
        self._bucket = Bucket(link, f"{prefix}-presence", node, self._encoded, self._heard_sheet)
        self._oddities = Oddities()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._asked: dict[str, float] = {}
        self._confirmations = Confirmations()
        self._unsent: list[Promise[None]] = []

    async def open(self) -> None:
        """Say that we are here, and listen. Before the link is opened."""
        self._loop = asyncio.get_running_loop()
        link, prefix = self._link, self._prefix
        link.subscribe(f"{prefix}.alive", self._heard_alive)
        link.subscribe(f"{prefix}.ask", self._heard_question)
        link.subscribe(f"{prefix}.node.{self._node}", self._heard_for_us)
        link.subscribe(f"$KV.{prefix}-presence.>", self._heard_sheet)
        self._due = self._loop.time()
        self._beat()

    async def close(self) -> None:
        """Say goodbye."""
        for call in (self._writing, self._beating):
            if call is not None:
                call.cancel()
        self._loop = None
        self._confirmations.end()
        keep(self._unsent)
        with contextlib.suppress(Exception):  # NATS may be lost meanwhile, and then we are heard of no more
            await self._publish("alive", [self._node, -1])
            await self._bucket.forget()

    def up(self) -> None:
        """The servers can be reached."""
        self._publish_soon("ask", [self._node, 0])
        self._say_alive()
        self._bucket.up(self._own.versions())
        self._write_soon()
        self.returning.up(self._now())

    def down(self) -> None:
        """They cannot any more."""
        self.returning.down(self._now())
        self._bucket.down()
        self._confirmations.end()

    async def ready(self, seconds: float) -> None:
        """Wait until what is stored has been read, but not for long."""
        await self._bucket.wait_until_read(seconds)

    # What others see of us.

    def change(self, group: str, before: Member | None, after: Member | None) -> None:
        """A client of ours has joined or left."""
        self._own.change(group, before, after)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None and self._own.changed and self._loop is not None and self._link.connected:
            # The first at once, that is, with all else of this iteration.
            self._writing = self._loop.call_later(0, self._write)

    def _write(self) -> None:
        self._writing = None
        if self._loop is None or not self._own.changed or not self._link.connected:
            return
        for sheet in self._own.take():
            self._bucket.put(sheet.number, sheet.version)
        self._writing = self._loop.call_later(WRITING, self._write)

    def _encoded(self, number: int) -> bytes:
        sheet = self._own.sheet(number)
        return msgspec.msgpack.encode([sheet.version, sheet.entries])

    def _beat(self) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        late = now - self._due
        if late > BEAT:
            self._others.excuse(late)  # it is we who have slept
        self._due = now + BEAT
        self._beating = self._loop.call_later(BEAT, self._beat)
        self._tell(self._others.expire(now))
        self._oddities.turn(now)
        self._confirmations.tick(self._others.alive(), now)
        self.returning.tick(now)
        if self._link.connected:
            self._say_alive()
            self._write_soon()
            self._bucket.tick(self._own.versions())

    def _say_alive(self) -> None:
        self._publish_soon("alive", [self._node, self._own.sum])

    # What we see of others.

    def members(self, group: str) -> list[Member]:
        """Who of other nodes is in it."""
        return self._others.members(group)

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in list(changes):
            self._changed(change)

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0

    def _heard_alive(self, _subject: str, _reply: str, data: bytes) -> None:
        found = self._decoded(data, tuple[str, int])
        if found is None or found[0] == self._node:
            return
        name, total = found
        now = self._now()
        if total < 0:
            self.returning.gone(name)
            self._tell(self._others.gone(name))
            return
        self.returning.heard(name, now)
        self._tell(self._others.heard(name, total, now))
        # The second time: what it has written last may be on its way.
        if self._others.behind(name) > 1 and now >= self._asked.get(name, 0):
            self._asked = {other: when for other, when in self._asked.items() if when > now}
            self._asked[name] = now + ASKING
            self._publish_soon(f"node.{name}", ["which", self._node, self._others.versions(name)])

    def _heard_sheet(self, subject: str, _reply: str, data: bytes) -> None:
        _, _, rest = subject.partition("-presence.")
        name, _, number = rest.rpartition(".")
        found = self._decoded(data, tuple[int, list[tuple[str, int, str, str]]])
        if found is not None and name and name != self._node and number.isdecimal():
            self._tell(self._others.told(name, Sheet(int(number), found[0], found[1]), self._now()))

    def _heard_for_us(self, _subject: str, _reply: str, data: bytes) -> None:
        found = self._decoded(data, list[Any])
        try:
            match found:
                case ["which", str(name), dict(versions)]:
                    for number, version in self._own.versions().items():
                        if versions.get(number) != version:
                            sheet = self._own.sheet(number)
                            told = ["sheet", self._node, number, sheet.version, sheet.entries]
                            self._publish_soon(f"node.{name}", told)
                case ["sheet", str(name), int(number), int(version), list(entries)]:
                    sheet = Sheet(number, version, entries_of(entries))
                    self._tell(self._others.told(name, sheet, self._now()))
                case ["heard", str(name), int(number)]:
                    self._confirmations.confirmed(number, name)
        except (TypeError, ValueError) as error:
            self.not_understood(str(error))

    def not_understood(self, why: str) -> None:
        """Another node has said something that none of ours would say."""
        self._oddities.add(why, self._now())

    # Joins, which are done when everybody has heard of them.

    def _heard_question(self, _subject: str, _reply: str, data: bytes) -> None:
        found = self._decoded(data, tuple[str, int])
        if found is None or found[0] == self._node:
            return
        name, number = found
        if number:
            self._publish_soon(f"node.{name}", ["heard", self._node, number])
        else:
            self._say_alive()

    def confirm(self) -> Awaitable[None]:
        """
        Wait until what has been subscribed to so far is known wherever there is a node.

        The servers of a cluster tell each other of it in the background. A question that takes the same way to all
        nodes comes after it.
        """
        if self._loop is None or not self._link.connected or not self._others.alive():
            return done()
        promise: Promise[None] = Promise()
        if not self._unsent:
            self._loop.call_soon(self._ask)
        self._unsent.append(promise)
        return promise

    def _ask(self) -> None:
        waiting, self._unsent = self._unsent, []
        if self._loop is None or not self._link.connected:
            keep(waiting)
            return
        number = self._confirmations.ask(self._others.alive(), waiting, self._now())
        self._publish_soon("ask", [self._node, number])

    def _decoded(self, data: bytes, kind: Any) -> Any:
        """What another node has said; None, with a line in the log, if it is nothing that one of ours would say."""
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.not_understood(str(error))
            return None

    # Publishing.

    def _publish_soon(self, subject: str, told: Any) -> None:
        if self._link.connected:
            self._link.spawn(self._publish(subject, told))

    async def _publish(self, subject: str, told: Any) -> None:
        client = self._link.client
        if client is not None:
            await client.publish(f"{self._prefix}.{subject}", msgspec.msgpack.encode(told))
