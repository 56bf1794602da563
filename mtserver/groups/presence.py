"""
Presence: each node tells the others its groups' members, and that it is there.

Sheets (:mod:`mtserver.groups.members`) are put into a key-value bucket of JetStream, one key each, and the other nodes
receive the very message that puts one there, whether the bucket can take it just then or not: while its servers elect a
leader (several seconds) the nodes go on knowing of each other. A node that starts reads the bucket; one that has missed
a sheet since asks the sheet's node for it. A node gives a sign of life twice a second, which is not stored: sheets of a
node that has died are shown nowhere, and expire in the bucket.

Subjects, below a prefix: ``PREFIX.alive`` (a node's name and the sum of its versions; goodbye: -1), ``PREFIX.ask`` (a
question to all nodes: are you there, or, with a number, do you know my subscriptions?), ``PREFIX.node.NAME`` (to one
node: a question for sheets, and answers); ``$KV.PREFIX-presence.NAME.SHEET``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from mtserver.concurrency.offload import Promise, done
from mtserver.groups.barriers import JoinBarrier, ReturnBarrier, release
from mtserver.groups.bucket import Bucket
from mtserver.groups.groups import Change, Member
from mtserver.groups.members import OtherNodes, OwnMembers, Sheet, entries_of
from mtserver.groups.unknown_messages import UnknownMessages
from mtserver.nats import Link

#: Seconds between two signs of life.
BEAT = 0.5
#: Seconds between two writings of changed sheets: all changes between are written together.
WRITING = 0.05
#: Seconds between two questions to one node for missed sheets.
PING_INTERVAL = 1.0


class Presence:
    """
    The presence of one node, and of the others as it knows them.

    :param link: the link to the servers.
    :param prefix: the first token of all subjects, and of the bucket's name.
    :param node: this node's name.
    :param changed: called with each change of a group's members on other nodes.
    :param complete: called when the nodes that were there before NATS was lost are there again, or have had their time.
    """

    def __init__(
        self, link: Link, prefix: str, node: str, changed: Callable[[Change], Any], complete: Callable[[], Any]
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._node = node
        self._changed = changed
        self.return_barrier = ReturnBarrier(complete)
        self._own = OwnMembers()
        self._others = OtherNodes()
        self._bucket = Bucket(link, f"{prefix}-presence", node, self._encoded, self._receive_sheet)
        self._unknown = UnknownMessages()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._asked: dict[str, float] = {}
        self._join_barrier = JoinBarrier()
        self._unsent: list[Promise[None]] = []

    async def open(self) -> None:
        """Subscribe, and begin to give signs of life. Called before the link is opened."""
        self._loop = asyncio.get_running_loop()
        link, prefix = self._link, self._prefix
        link.subscribe(f"{prefix}.alive", self._receive_beat)
        link.subscribe(f"{prefix}.ask", self._receive_question)
        link.subscribe(f"{prefix}.node.{self._node}", self._receive_answer)
        link.subscribe(f"$KV.{prefix}-presence.>", self._receive_sheet)
        self._due = self._loop.time()
        self._beat()

    async def close(self) -> None:
        """Say goodbye."""
        for call in (self._writing, self._beating):
            if call is not None:
                call.cancel()
        self._loop = None
        self._join_barrier.end()
        release(self._unsent)
        with contextlib.suppress(Exception):  # without NATS, silence says goodbye
            await self._publish("alive", [self._node, -1])
            await self._bucket.forget()

    def up(self) -> None:
        """Tell the other nodes everything again: the servers can be reached."""
        self._publish_soon("ask", [self._node, 0])
        self._publish_beat()
        self._bucket.up(self._own.versions())
        self._write_soon()
        self.return_barrier.up(self._now())

    def down(self) -> None:
        """Begin to wait: the servers cannot be reached any more."""
        self.return_barrier.down(self._now())
        self._bucket.down()
        self._join_barrier.end()

    async def ready(self, seconds: float) -> None:
        """Wait until the bucket has been read, for so many seconds at most."""
        await self._bucket.wait_until_read(seconds)

    # Own members, told to the other nodes.

    def change(self, group: str, before: Member | None, after: Member | None) -> None:
        """Tell the other nodes that a client of this node has joined or left."""
        self._own.change(group, before, after)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None and self._own.changed and self._loop is not None and self._link.connected:
            # The first change is written at once, that is, with all others of this iteration.
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
            self._others.excuse_silence(late)  # this node's loop was blocked, and heard nobody
        self._due = now + BEAT
        self._beating = self._loop.call_later(BEAT, self._beat)
        self._report(self._others.expire(now))
        self._unknown.turn(now)
        self._join_barrier.tick(self._others.alive(), now)
        self.return_barrier.tick(now)
        if self._link.connected:
            self._publish_beat()
            self._write_soon()
            self._bucket.tick(self._own.versions())

    def _publish_beat(self) -> None:
        self._publish_soon("alive", [self._node, self._own.sum])

    # Members on the other nodes.

    def members(self, group: str) -> list[Member]:
        """Return a group's members on other nodes."""
        return self._others.members(group)

    def _report(self, changes: Iterable[Change]) -> None:
        for change in list(changes):
            self._changed(change)

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0

    def _receive_beat(self, _subject: str, _reply: str, data: bytes) -> None:
        found = self._decoded(data, tuple[str, int])
        if found is None or found[0] == self._node:
            return
        name, total = found
        now = self._now()
        if total < 0:
            self.return_barrier.gone(name)
            self._report(self._others.remove_node(name))
            return
        self.return_barrier.seen(name, now)
        self._report(self._others.receive_beat(name, total, now))
        # Asked at the second missing sheet in a row, since the last one written may be on its way.
        if self._others.behind(name) > 1 and now >= self._asked.get(name, 0):
            self._asked = {other: when for other, when in self._asked.items() if when > now}
            self._asked[name] = now + PING_INTERVAL
            self._publish_soon(f"node.{name}", ["which", self._node, self._others.versions(name)])

    def _receive_sheet(self, subject: str, _reply: str, data: bytes) -> None:
        _, _, rest = subject.partition("-presence.")
        name, _, number = rest.rpartition(".")
        found = self._decoded(data, tuple[int, list[tuple[str, int, str, str]]])
        if found is not None and name and name != self._node and number.isdecimal():
            self._report(self._others.receive_sheet(name, Sheet(int(number), found[0], found[1]), self._now()))

    def _receive_answer(self, _subject: str, _reply: str, data: bytes) -> None:
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
                    self._report(self._others.receive_sheet(name, sheet, self._now()))
                case ["heard", str(name), int(number)]:
                    self._join_barrier.confirm(number, name)
        except (TypeError, ValueError) as error:
            self.not_understood(str(error))

    def not_understood(self, why: str) -> None:
        """Log a message that no node of this version sends."""
        self._unknown.add(why, self._now())

    # Joins, which are done once all nodes know of them.

    def _receive_question(self, _subject: str, _reply: str, data: bytes) -> None:
        found = self._decoded(data, tuple[str, int])
        if found is None or found[0] == self._node:
            return
        name, number = found
        if number:
            self._publish_soon(f"node.{name}", ["heard", self._node, number])
        else:
            self._publish_beat()

    def confirm(self) -> Awaitable[None]:
        """
        Wait until all subscriptions so far are known to the servers of all nodes.

        The servers of a cluster tell each other of subscriptions in the background. A question that takes the same way
        to all nodes comes after them, and so does each answer.
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
            release(waiting)
            return
        number = self._join_barrier.begin(self._others.alive(), waiting, self._now())
        self._publish_soon("ask", [self._node, number])

    def _decoded(self, data: bytes, kind: Any) -> Any:
        """Decode a message of another node; None, with a line in the log, if it is none that a node sends."""
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
