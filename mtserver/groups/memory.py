"""Groups whose members are all clients of this process, and this process's part of groups that have others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.concurrency.offload import Promise, done
from mtserver.groups.groups import Change, Deliver, Member, Recipient
from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception

_log = Logger("mtserver.groups")

Watcher = Callable[[Change], Any]


class LocalMembers:
    """The members of one group that are clients of this process, and the watchers of the group."""

    __slots__ = ("members", "watchers")

    def __init__(self) -> None:
        self.members: dict[Any, Member] = {}
        self.watchers: list[Watcher] = []


class MemoryGroups:
    """
    :class:`~mtserver.groups.groups.Groups` in the memory of this process.

    :param max_groups: the most groups that one client may be in.
    :param node: the name of this node, where there are several.
    """

    def __init__(self, max_groups: int, node: str = "") -> None:
        self._max_groups = max_groups
        self._node = node
        self._groups: dict[str, LocalMembers] = {}
        #: Names of the groups of each client that is in any.
        self._joined: dict[Any, dict[str, None]] = {}
        #: Senders that wait, each with a function that says whether it still has to.
        self._waiting: list[tuple[Promise[None], Callable[[], bool]]] = []

    def begin(self, deliver: Deliver, flush: Callable[[], None]) -> None:
        self._deliver_to = deliver
        self._flush = flush

    def open(self) -> Awaitable[None]:
        return done()

    @property
    def connected(self) -> bool:
        return True

    # Members.

    def join(self, recipient: Recipient, group: str, label: str) -> Awaitable[None]:
        joined = self._joined.setdefault(recipient, {})
        if group not in joined and len(joined) >= self._max_groups:
            raise refusals.too_many_groups(self._max_groups)
        client = recipient.client
        member = Member(self._node, client.id, client.identity or "", label)
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = LocalMembers()
        before = found.members.get(recipient)
        if before is None:
            self._flush()  # the new member gets no message sent before
        found.members[recipient] = member
        joined[group] = None
        if before != member:
            self._changed(group, before, member)
        return done()

    def leave(self, recipient: Recipient, group: str) -> Awaitable[None]:
        joined = self._joined.get(recipient, {})
        if group in joined:
            del joined[group]
            if not joined:
                del self._joined[recipient]
            self._remove(recipient, group)
        return done()

    def forget(self, recipient: Recipient) -> None:
        for group in self._joined.pop(recipient, ()):
            self._remove(recipient, group)

    def _remove(self, recipient: Recipient, group: str) -> None:
        found = self._groups[group]
        self._flush()  # the member that leaves gets the messages sent before
        before = found.members.pop(recipient)
        self._changed(group, before, None)
        self._tidy(group)

    def _tidy(self, group: str) -> None:
        found = self._groups.get(group)
        if found is not None and not found.members and not found.watchers:
            del self._groups[group]

    def groups_of(self, recipient: Recipient) -> Collection[str]:
        return list(self._joined.get(recipient, ()))

    def members(self, group: str) -> list[Member]:
        found = self._groups.get(group)
        # Safe in another thread: sorted() copies the values before it compares them.
        return [] if found is None else sorted(found.members.values())

    # Watching.

    def watch(self, group: str, changed: Watcher) -> Callable[[], None]:
        found = self._groups.setdefault(group, LocalMembers())
        found.watchers.append(changed)

        def stop() -> None:
            if changed in found.watchers:
                found.watchers.remove(changed)
            self._tidy(group)

        return stop

    def _changed(self, group: str, before: Member | None, after: Member | None) -> None:
        found = self._groups.get(group)
        for changed in list(found.watchers) if found is not None else ():
            try:
                changed(Change(group, before, after))
            except Exception as error:  # of any kind, since watchers are the app's
                trace = format_exception(error)
                _log.error("a watcher of the group {group} failed: {traceback}", group=escape(group), traceback=trace)

    # Sending.

    def check_size(self, group: str, message: bytes) -> None:
        """Accept any size, since nothing leaves the process."""

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        recipients = self._deliver(group, message, exclude)
        if wait:
            return self._wait_while(some_behind(recipients))
        return done()

    def _deliver(self, group: str, message: bytes, exclude: Any) -> Collection[Any]:
        """Deliver to the members on this node, and return them."""
        found = self._groups.get(group)
        if found is None or not found.members:
            return ()
        self._deliver_to(found.members, message, exclude)
        return found.members

    def _wait_while(self, full: Callable[[], bool]) -> Awaitable[None]:
        """Return an awaitable that is done once `full` returns False."""
        if not full():
            return done()
        promise: Promise[None] = Promise()
        self._waiting.append((promise, full))
        return promise

    def tick(self) -> bool:
        waiting, self._waiting = self._waiting, []
        for promise, full in waiting:
            if full():
                self._waiting.append((promise, full))
            else:
                promise.keep(None)
        return bool(self._waiting)

    def close(self) -> Awaitable[None]:
        waiting, self._waiting = self._waiting, []
        for promise, _ in waiting:
            promise.keep(None)
        return done()


def some_behind(recipients: Collection[Any]) -> Callable[[], bool]:
    """Return a function that says whether any recipient that is behind now still is."""
    slow = [recipient for recipient in recipients if recipient.is_behind]
    return lambda: any(recipient.is_behind for recipient in slow)
