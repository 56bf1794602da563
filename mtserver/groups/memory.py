"""Groups whose members are all clients of this process; and this process's part of those that have others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.logger import Logger

from mtserver import refusals
from mtserver.concurrency.offload import Promise, done
from mtserver.groups import Change, Listener, Member, Tell
from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception

_log = Logger("mtserver.groups")

Watcher = Callable[[Change], Any]


class Group:
    """The members of one group who are clients of this process, each with what others see of it."""

    __slots__ = ("members", "watchers")

    def __init__(self) -> None:
        self.members: dict[Any, Member] = {}
        self.watchers: list[Watcher] = []


class MemoryGroups:
    """
    See :class:`mtserver.groups.Groups`.

    :param most: groups that one client may be in.
    :param node: the name of this one, among several.
    """

    def __init__(self, most: int, node: str = "") -> None:
        self._most = most
        self._node = node
        self._groups: dict[str, Group] = {}
        #: The groups of each client that is in some.
        self._joined: dict[Any, dict[str, None]] = {}
        #: Senders who wait, and whether what they wait for is still so.
        self._waiting: list[tuple[Promise[None], Callable[[], bool]]] = []

    def begin(self, tell: Tell, flush: Callable[[], None]) -> None:
        """See :class:`mtserver.groups.Groups`."""
        self._tell = tell
        self._flush = flush

    def open(self) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        return done()

    @property
    def connected(self) -> bool:
        """See :class:`mtserver.groups.Groups`."""
        return True

    # Members.

    def join(self, listener: Listener, group: str, label: str) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        joined = self._joined.setdefault(listener, {})
        if group not in joined and len(joined) >= self._most:
            raise refusals.too_many_groups(self._most)
        client = listener.client
        member = Member(self._node, client.id, client.identity or "", label)
        kept = self._groups.get(group)
        if kept is None:
            kept = self._groups[group] = Group()
        before = kept.members.get(listener)
        if before is None:
            self._flush()  # what was said before is not for it
        kept.members[listener] = member
        joined[group] = None
        if before != member:
            self._changed(group, before, member)
        return done()

    def leave(self, listener: Listener, group: str) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        joined = self._joined.get(listener, {})
        if group in joined:
            del joined[group]
            if not joined:
                del self._joined[listener]
            self._remove(listener, group)
        return done()

    def forget(self, listener: Listener) -> None:
        """See :class:`mtserver.groups.Groups`."""
        for group in self._joined.pop(listener, ()):
            self._remove(listener, group)

    def _remove(self, listener: Listener, group: str) -> None:
        kept = self._groups[group]
        self._flush()  # what was said before is still for it
        before = kept.members.pop(listener)
        self._changed(group, before, None)
        self._tidy(group)

    def _tidy(self, group: str) -> None:
        kept = self._groups.get(group)
        if kept is not None and not kept.members and not kept.watchers:
            del self._groups[group]

    def groups_of(self, listener: Listener) -> Collection[str]:
        """See :class:`mtserver.groups.Groups`."""
        return list(self._joined.get(listener, ()))

    def members(self, group: str) -> list[Member]:
        """See :class:`mtserver.groups.Groups`."""
        kept = self._groups.get(group)
        # sorted() copies before it compares: in another thread the loop may go on meanwhile.
        return [] if kept is None else sorted(kept.members.values())

    # Watching.

    def watch(self, group: str, changed: Watcher) -> Callable[[], None]:
        """See :class:`mtserver.groups.Groups`."""
        kept = self._groups.setdefault(group, Group())
        kept.watchers.append(changed)

        def stop() -> None:
            if changed in kept.watchers:
                kept.watchers.remove(changed)
            self._tidy(group)

        return stop

    def _changed(self, group: str, before: Member | None, after: Member | None) -> None:
        kept = self._groups.get(group)
        for changed in list(kept.watchers) if kept is not None else ():
            try:
                changed(Change(group, before, after))
            except Exception as error:  # it is the app's
                trace = format_exception(error)
                _log.error("a watcher of the group {group} failed: {traceback}", group=escape(group), traceback=trace)

    # Sending.

    def check_size(self, group: str, message: bytes) -> None:
        """See :class:`mtserver.groups.Groups`."""

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        listeners = self._deliver(group, message, exclude)
        if wait:
            return self._wait_while(some_behind(listeners))
        return done()

    def _deliver(self, group: str, message: bytes, exclude: Any) -> Collection[Any]:
        """Tell the members who are here; who they are."""
        kept = self._groups.get(group)
        if kept is None or not kept.members:
            return ()
        self._tell(kept.members, message, exclude)
        return kept.members

    def _wait_while(self, full: Callable[[], bool]) -> Awaitable[None]:
        """What is done when this is not so any more."""
        if not full():
            return done()
        promise: Promise[None] = Promise()
        self._waiting.append((promise, full))
        return promise

    def tick(self) -> bool:
        """See :class:`mtserver.groups.Groups`."""
        waiting, self._waiting = self._waiting, []
        for promise, full in waiting:
            if full():
                self._waiting.append((promise, full))
            else:
                promise.keep(None)
        return bool(self._waiting)

    def close(self) -> Awaitable[None]:
        """See :class:`mtserver.groups.Groups`."""
        waiting, self._waiting = self._waiting, []
        for promise, _ in waiting:
            promise.keep(None)
        return done()


def some_behind(listeners: Collection[Any]) -> Callable[[], bool]:
    """Whether some of those who are behind now still are."""
    slow = [listener for listener in listeners if listener.is_behind]
    return lambda: any(listener.is_behind for listener in slow)
