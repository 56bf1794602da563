"""
Groups: clients who hear the same things, on this node and on others.

::

    await client.join("room", label="bob")
    await client.app.group("room").send("hello", exclude=client)
    for member in client.app.group("room").members(): ...
    await client.leave("room")

Laws, the same wherever the members are (``--groups``):

* For one sender and one group what is said is heard first in, first out, by each member once.
* Who joins hears what is said after ``join`` has returned; who leaves hears nothing said after ``leave`` has.
* On one node what is said reaches every member; one that reads too slowly is treated as ``--send-buffer`` and
  ``--send-timeout`` say. Across nodes it is said at most once: while the nodes cannot reach each other
  (``connected`` is False), members of other nodes miss it, which is counted and logged.
* A sender chooses what becomes of what there is no room for, here or on the way to other nodes: ``full="drop"`` (the
  default) never makes it wait, ``full="wait"`` does until there is. Slow members of other nodes are the business of
  those nodes.
* Any text of 1 to 128 characters is the name of a group, and no more than a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple, Protocol

from mtserver.errors import BadMessage, ConfigurationError
from mtserver.nats import check_nats, check_reactor, is_address
from mtserver.settings import Settings

__all__ = [
    "Change",
    "Groups",
    "Listener",
    "Member",
    "check_groups",
    "check_label",
    "check_name",
    "open_groups",
]

#: Characters of a group's name, at most; and of a member's label.
NAME_SIZE = 128


class Member(NamedTuple):
    """A client that is in a group."""

    #: The node that it is connected to; empty where there is only one.
    node: str
    #: Its number there.
    client: int
    #: Who it is, once authenticated; empty otherwise.
    identity: str
    #: What it called itself when it joined.
    label: str


class Change(NamedTuple):
    """Somebody has joined a group, left it, or (by joining again) got another label."""

    group: str
    #: As it was; None: it was not there.
    before: Member | None
    #: As it is; None: it is not there any more.
    after: Member | None


class Listener(Protocol):
    """One client of this process."""

    client: Any

    @property
    def is_behind(self) -> bool:
        """So much is unread by it that a sender who can wait should."""
        ...


#: Delivers a message (encoded, but not framed) to members of this process, in order with all else they are told.
Tell = Callable[[Collection[Any], bytes, Any], None]


class Groups(Protocol):
    """Where groups are kept. For the loop's thread."""

    @property
    def connected(self) -> bool:
        """What is said here is heard on the other nodes, if there are any."""
        ...

    def begin(self, tell: Tell, flush: Callable[[], None]) -> None:
        """
        What it is served by. Called once, before anything else.

        :param tell: delivers to members of this process.

        :param flush: delivers at once what `tell` was given so far: called before the members of a group change.
        """
        ...

    def open(self) -> Awaitable[None]:
        """The loop runs: look for the other nodes. Returns without waiting long for them."""
        ...

    def join(self, listener: Listener, group: str, label: str) -> Awaitable[None]:
        """Have this client hear what the group is told."""
        ...

    def leave(self, listener: Listener, group: str) -> Awaitable[None]:
        """The opposite."""
        ...

    def forget(self, listener: Listener) -> None:
        """The client is gone: it leaves all its groups."""
        ...

    def groups_of(self, listener: Listener) -> Collection[str]:
        """Those that this client is in. In any thread."""
        ...

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        """Tell the members something, encoded. It has been said when this returns; the awaitable is for `wait`."""
        ...

    def check_size(self, group: str, message: bytes) -> None:
        """:class:`~mtserver.errors.HandlerError` if that is more than can be sent. In any thread."""
        ...

    def members(self, group: str) -> list[Member]:
        """Who is in it now, on all nodes, in the order of nodes and clients' numbers. In any thread."""
        ...

    def watch(self, group: str, changed: Callable[[Change], Any]) -> Callable[[], None]:
        """Have each change told, until what is returned is called."""
        ...

    def tick(self) -> bool:
        """Called some times a second while senders may wait; whether they still do."""
        ...

    def close(self) -> Awaitable[None]:
        """Leave everything."""
        ...


def check_name(name: str) -> str:
    """A group's name, which may be a peer's idea; :class:`~mtserver.errors.BadMessage` if it cannot be."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_SIZE:
        raise BadMessage(f"the name of a group has 1 to {NAME_SIZE} characters")
    return _sendable(name, "the name of a group")


def check_label(label: str) -> str:
    """A member's label, likewise. It may be empty."""
    if not isinstance(label, str) or len(label) > NAME_SIZE:
        raise BadMessage(f"a label has {NAME_SIZE} characters at most")
    return _sendable(label, "a label")


def _sendable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadMessage(f"{what} is text that can be sent") from None
    return text


def check_groups(settings: Settings) -> None:
    """:class:`~mtserver.errors.ConfigurationError` where ``--groups`` cannot be, or not with this process's reactor."""
    described = f"--groups {settings.groups}"
    if is_address(settings.groups):
        check_nats(described, settings)
        check_reactor(described)
    elif settings.groups != "memory:":
        raise ConfigurationError(f"{described}: neither memory: nor of the form nats://HOST:4222[,HOST:4222...]")


def open_groups(settings: Settings) -> Groups:
    """The groups that ``--groups`` means."""
    if settings.groups == "memory:":
        from mtserver.groups.memory import MemoryGroups

        return MemoryGroups(settings.max_groups)
    from mtserver.groups.nats import NatsGroups

    return NatsGroups(settings.max_groups, check_nats(f"--groups {settings.groups}", settings))
