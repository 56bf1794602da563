"""
Groups whose members are clients of several nodes, which NATS connects.

What is said is delivered to members here at once, as without NATS, and published once for each group and iteration of
the loop. A node listens to a group's subject while it has members of it; a join is done when the other nodes' servers
know of that, so that it hears what they say from then on.

While NATS is away, members here go on hearing each other. What members elsewhere miss is counted, and logged every
few seconds. It is not kept for them, but for what its sender waits for: that much is held, at most
:data:`~mtserver.groups.outgoing.MOST` bytes, and sent when NATS is back and the nodes that were there before are, too.
What has been handed to the connection and is lost with it is lost, and counted as what they may have missed: at most
once.
"""

from __future__ import annotations

import asyncio
import operator
import secrets
from collections.abc import Awaitable
from functools import partial
from typing import Any

from twisted.logger import Logger

from mtserver.concurrency.offload import done
from mtserver.errors import HandlerError
from mtserver.groups import Change, Listener, Member
from mtserver.groups.memory import MemoryGroups, some_behind
from mtserver.groups.outgoing import Outgoing
from mtserver.groups.presence import Presence
from mtserver.groups.wire import name_with, pack, room_for, token_of, unpack
from mtserver.nats import Address, Link, Subject
from mtserver.telemetry.escape import escape

#: Of all subjects, where the address names nothing else.
PREFIX = "mtserver"
#: Seconds between two lines about what has been missed.
TELLING = 5.0
#: Seconds to learn who is there, before the first client is served.
LEARNING = 1.0
#: Seconds to send what is held, at the end.
ENDING = 1.0

_log = Logger("mtserver.groups")


class NatsGroups(MemoryGroups):
    """
    See :class:`mtserver.groups.Groups`.

    :param most: groups that one client may be in.
    :param address: of NATS; its name sets these nodes apart from others on the same servers.
    """

    def __init__(self, most: int, address: Address) -> None:
        # Of this start of the process: what the one before has left behind is not ours.
        node = secrets.token_hex(8)
        super().__init__(most, node)
        self._id = bytes.fromhex(node)
        self._prefix = address.name or PREFIX
        self._outgoing = Outgoing()
        # No group is called that: see token_of.
        self._link = Link(address, f"mtserver node {node}", f"{self._prefix}.group.=", self._missed)
        self._presence = Presence(self._link, self._prefix, node, self._changed_elsewhere, self._send_soon)
        self._link.watch(self._up, self._down)
        self._subjects: dict[str, Subject] = {}
        self._sending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.TimerHandle | None = None
        #: Packets of other nodes that came faster than they could be heard.
        self._unheard = 0
        #: What the log has been told: messages dropped, messages doubtful, packets unheard.
        self._told = 0, 0, 0

    @property
    def connected(self) -> bool:
        """See :class:`mtserver.groups.Groups`."""
        return self._link.connected

    async def open(self) -> None:
        """See :class:`mtserver.groups.Groups`."""
        self._loop = asyncio.get_running_loop()
        await self._presence.open()
        await self._link.open()
        if self._link.connected:
            await self._presence.ready(LEARNING)

    async def close(self) -> None:
        """See :class:`mtserver.groups.Groups`."""
        await super().close()
        if self._loop is not None:
            try:
                if self._sending is not None:
                    await asyncio.wait([self._sending], timeout=ENDING)
                await self._presence.close()
                self._tell_missed()
            finally:
                self._loop = None
                await self._link.close()

    def _up(self) -> None:
        self._outgoing.connected = True
        self._presence.up()

    def _down(self) -> None:
        self._outgoing.lost(self._link.answered)
        self._presence.down()
        self._tell_missed_soon()

    # Members.

    def join(self, listener: Listener, group: str, label: str) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        super().join(listener, group, label)
        return self._presence.confirm()

    def _changed(self, group: str, before: Member | None, after: Member | None) -> None:
        """A client of this node has joined, or left."""
        if self._loop is not None:
            here = bool(self._groups[group].members)
            if here and group not in self._subjects:
                heard = partial(self._heard, group)
                self._subjects[group] = self._link.subscribe(self._subject(group), heard)
            elif not here and group in self._subjects:
                self._link.unsubscribe(self._subjects.pop(group))
        self._presence.change(group, before, after)
        super()._changed(group, before, after)

    def _changed_elsewhere(self, change: Change) -> None:
        super()._changed(*change)

    def members(self, group: str) -> list[Member]:
        """See :class:`mtserver.groups.Groups`."""
        return sorted([*super().members(group), *self._presence.members(group)])

    def _subject(self, group: str) -> str:
        return f"{self._prefix}.group.{token_of(group)}"

    # Saying.

    def check_size(self, group: str, message: bytes) -> None:
        """See :class:`mtserver.groups.Groups`."""
        most = room_for(group, self._link.max_payload)
        if len(message) > most:
            raise HandlerError(f"a message to a group has {len(message)} bytes, and {most} is what NATS takes")

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        self.check_size(group, message)
        listeners = self._deliver(group, message, exclude)
        outgoing = self._outgoing
        dropped = outgoing.dropped
        outgoing.add(group, message, waits=wait)
        if outgoing.dropped != dropped:
            self._tell_missed_soon()
        self._send_soon()
        if not wait:
            return done()
        behind = some_behind(listeners)
        return self._wait_while(lambda: behind() or not outgoing.has_room)

    def _send_soon(self) -> None:
        if self._sending is None and self._outgoing and self._presence.returning.is_complete and self._loop is not None:
            # Begins in the next iteration of the loop, with all that is said in this one.
            self._sending = self._link.spawn(self._send_all())

    async def _send_all(self) -> None:
        outgoing, link = self._outgoing, self._link
        try:
            while outgoing and (client := link.client) is not None and client.is_connected:
                group, messages = outgoing.take()
                sent = 0
                try:
                    for count, packet in pack(self._id, group, messages, link.max_payload):
                        if link.client is not client or not client.is_connected:
                            break
                        # From here on nobody knows, whatever nats-py says.
                        sent += count
                        outgoing.sending(count, link.asked, link.answered)
                        await client.publish(self._subject(group), packet)
                finally:
                    outgoing.sent(sent)
        finally:
            self._sending = None
            self._tell_missed_soon()

    # Hearing.

    def _heard(self, group: str, _subject: str, _reply: str, data: bytes) -> None:
        try:
            node, name, messages = unpack(data)
        except ValueError as error:
            self._presence.not_understood(str(error))
            return
        if node == self._id or name != name_with(group):
            return
        for message in messages:
            try:
                self._deliver(group, message, None)
            except HandlerError as error:  # another --framing there
                _log.warn("a message of another node cannot be sent on: {error}", error=escape(str(error)))

    # What has been missed.

    def _missed(self, count: int) -> None:
        self._unheard += count
        self._tell_missed_soon()

    def _counts(self) -> tuple[int, int, int]:
        return self._outgoing.dropped, self._outgoing.doubtful, self._unheard

    def _tell_missed_soon(self) -> None:
        if self._telling is None and self._loop is not None and self._counts() != self._told:
            self._telling = self._loop.call_later(TELLING, self._tell_missed)

    def _tell_missed(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        dropped, doubtful, unheard = map(operator.sub, self._counts(), self._told)
        self._told = self._counts()
        if dropped or doubtful:
            _log.warn(
                "members on other nodes have missed {count} messages to groups, and may have missed {more} more",
                count=dropped,
                more=doubtful,
            )
        if unheard:
            _log.warn("members here have missed {count} packets of messages from other nodes", count=unheard)
