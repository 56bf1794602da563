"""
Groups whose members are clients of several nodes, which NATS connects.

A message is delivered to members on this node at once, as without NATS, and published, in one packet for all messages
to a group in one iteration of the loop. A node subscribes to a group's subject while it has members of the group. A
join is done when the other nodes' servers know the subscription, so that it gets what is sent there from then on.

While NATS is away, members on the same node go on hearing each other. Messages that members elsewhere miss are counted,
and logged every few seconds. They are dropped, except where their sender waits: those are held, at most
:data:`~mtserver.groups.outgoing.MAX_HELD` bytes, and sent when NATS is back and so are the nodes that were there
before. Messages that are lost with a connection stay lost, and count as possibly missed: delivery is at most once.
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
from mtserver.groups.groups import Change, Member, Recipient
from mtserver.groups.memory import MemoryGroups, some_behind
from mtserver.groups.outgoing import Outgoing
from mtserver.groups.presence import Presence
from mtserver.groups.wire import name_with, pack, room_for, token_of, unpack
from mtserver.nats import Address, Link, Subscription
from mtserver.telemetry.escape import escape

#: First token of all subjects, where the address has no name.
PREFIX = "mtserver"
#: Seconds between two log lines about missed messages.
LOG_INTERVAL = 5.0
#: Seconds to learn the members on other nodes, before the first client is served.
READY_TIMEOUT = 1.0
#: Seconds to send held messages at the end.
CLOSE_TIMEOUT = 1.0

_log = Logger("mtserver.groups")


class NatsGroups(MemoryGroups):
    """
    :class:`~mtserver.groups.groups.Groups` on several nodes.

    :param max_groups: the most groups that one client may be in.
    :param address: the address of NATS; its name sets these nodes apart from others on the same servers.
    """

    def __init__(self, max_groups: int, address: Address) -> None:
        # A new name at each start of the process: what the last one has left behind is not this one's.
        node = secrets.token_hex(8)
        super().__init__(max_groups, node)
        self._id = bytes.fromhex(node)
        self._prefix = address.name or PREFIX
        self._outgoing = Outgoing()
        # The subject whose rights are checked; no group's token is "=", see token_of.
        self._link = Link(address, f"mtserver node {node}", f"{self._prefix}.group.=", self._missed)
        self._presence = Presence(self._link, self._prefix, node, self._changed_elsewhere, self._send_soon)
        self._link.watch(self._up, self._down)
        self._subjects: dict[str, Subscription] = {}
        self._sending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log_timer: asyncio.TimerHandle | None = None
        #: Count of the packets of other nodes that came faster than they were handled.
        self._overflowed = 0
        #: Counts at the last log line: messages dropped, messages doubtful, packets overflowed.
        self._logged = 0, 0, 0

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._presence.open()
        await self._link.open()
        if self._link.connected:
            await self._presence.ready(READY_TIMEOUT)

    async def close(self) -> None:
        await super().close()
        if self._loop is not None:
            try:
                if self._sending is not None:
                    await asyncio.wait([self._sending], timeout=CLOSE_TIMEOUT)
                await self._presence.close()
                self._log_missed()
            finally:
                self._loop = None
                await self._link.close()

    def _up(self) -> None:
        self._outgoing.connected = True
        self._presence.up()

    def _down(self) -> None:
        self._outgoing.lost(self._link.pongs)
        self._presence.down()
        self._log_missed_soon()

    # Members.

    def join(self, recipient: Recipient, group: str, label: str) -> Awaitable[None]:
        super().join(recipient, group, label)
        return self._presence.confirm()

    def _changed(self, group: str, before: Member | None, after: Member | None) -> None:
        """Subscribe to a group with its first member on this node, unsubscribe after its last, and tell other nodes."""
        if self._loop is not None:
            here = bool(self._groups[group].members)
            if here and group not in self._subjects:
                receive = partial(self._receive, group)
                self._subjects[group] = self._link.subscribe(self._subject(group), receive)
            elif not here and group in self._subjects:
                self._link.unsubscribe(self._subjects.pop(group))
        self._presence.change(group, before, after)
        super()._changed(group, before, after)

    def _changed_elsewhere(self, change: Change) -> None:
        super()._changed(*change)

    def members(self, group: str) -> list[Member]:
        return sorted([*super().members(group), *self._presence.members(group)])

    def _subject(self, group: str) -> str:
        return f"{self._prefix}.group.{token_of(group)}"

    # Sending.

    def check_size(self, group: str, message: bytes) -> None:
        most = room_for(group, self._link.max_payload)
        if len(message) > most:
            raise HandlerError(f"a message to a group has {len(message)} bytes, and {most} is what NATS takes")

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        self.check_size(group, message)
        recipients = self._deliver(group, message, exclude)
        outgoing = self._outgoing
        dropped = outgoing.dropped
        outgoing.add(group, message, waits=wait)
        if outgoing.dropped != dropped:
            self._log_missed_soon()
        self._send_soon()
        if not wait:
            return done()
        behind = some_behind(recipients)
        return self._wait_while(lambda: behind() or not outgoing.has_room)

    def _send_soon(self) -> None:
        if (
            self._sending is None
            and self._outgoing
            and self._presence.return_barrier.is_complete
            and self._loop is not None
        ):
            # A task begins in the next iteration of the loop, and takes all that is sent in this one.
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
                        # Counted before it is sent: from here on its arrival is in doubt, whatever nats-py raises.
                        sent += count
                        outgoing.sending(count, link.pings, link.pongs)
                        await client.publish(self._subject(group), packet)
                finally:
                    outgoing.sent(sent)
        finally:
            self._sending = None
            self._log_missed_soon()

    # Receiving.

    def _receive(self, group: str, _subject: str, _reply: str, data: bytes) -> None:
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
            except HandlerError as error:  # the other node may have another --framing
                _log.warn("a message of another node cannot be sent on: {error}", error=escape(str(error)))

    # The count of missed messages.

    def _missed(self, count: int) -> None:
        self._overflowed += count
        self._log_missed_soon()

    def _counts(self) -> tuple[int, int, int]:
        return self._outgoing.dropped, self._outgoing.doubtful, self._overflowed

    def _log_missed_soon(self) -> None:
        if self._log_timer is None and self._loop is not None and self._counts() != self._logged:
            self._log_timer = self._loop.call_later(LOG_INTERVAL, self._log_missed)

    def _log_missed(self) -> None:
        if self._log_timer is not None:
            self._log_timer.cancel()
            self._log_timer = None
        dropped, doubtful, unheard = map(operator.sub, self._counts(), self._logged)
        self._logged = self._counts()
        if dropped or doubtful:
            _log.warn(
                "members on other nodes have missed {count} messages to groups, and may have missed {more} more",
                count=dropped,
                more=doubtful,
            )
        if unheard:
            _log.warn("members here have missed {count} packets of messages from other nodes", count=unheard)
