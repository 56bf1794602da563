"""The interface of groups, whatever keeps them. The package's docstring states its laws."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple, Protocol

from mtserver.errors import BadMessage

#: Most characters of a group's name, and of a member's label.
NAME_SIZE = 128


class Member(NamedTuple):
    """A client that is in a group."""

    #: Node that it is connected to; empty where there is only one.
    node: str
    #: Number of the client on that node.
    client: int
    #: Identity of the client; empty if it has not authenticated.
    identity: str
    #: Label that it was given when it joined.
    label: str


class Change(NamedTuple):
    """A client has joined a group, left it, or (by joining again) got another label."""

    group: str
    #: Member before the change; None: it has joined.
    before: Member | None
    #: Member after the change; None: it has left.
    after: Member | None


class Listener(Protocol):
    """The port of a client, as far as groups go."""

    @property
    def framing(self) -> Any: ...


class Recipient(Protocol):
    """One client of this process, as far as groups go."""

    @property
    def client(self) -> Any: ...

    @property
    def listener(self) -> Listener: ...

    @property
    def is_behind(self) -> bool:
        """Whether so much is unread by it that a sender who can wait should."""
        ...

    def deliver(self, data: bytes, messages: int) -> None:
        """Send that many messages, in the client's framing."""
        ...


#: Function that delivers a message (encoded, not framed) to members of this process but one, in order with all else.
Deliver = Callable[[Collection[Any], bytes, Any], None]


class Groups(Protocol):
    """A keeper of groups. Its methods are called in the loop's thread, unless they say otherwise."""

    @property
    def connected(self) -> bool:
        """Whether messages reach the other nodes, if there are any."""
        ...

    def begin(self, deliver: Deliver, flush: Callable[[], None]) -> None:
        """
        Take the server's side. Called once, before any other method.

        :param deliver: delivers a message to members of this process.
        :param flush: delivers at once what `deliver` was given so far; called before the members of a group change.
        """
        ...

    def open(self) -> Awaitable[None]:
        """Look for the other nodes, once the loop runs, without a long wait for them."""
        ...

    def join(self, recipient: Recipient, group: str, label: str) -> Awaitable[None]:
        """Make a client a member of a group, or change its label."""
        ...

    def leave(self, recipient: Recipient, group: str) -> Awaitable[None]:
        """End a client's membership."""
        ...

    def forget(self, recipient: Recipient) -> None:
        """End all memberships of a client that is gone."""
        ...

    def groups_of(self, recipient: Recipient) -> Collection[str]:
        """Return the names of a client's groups. Any thread may call."""
        ...

    def send(self, group: str, message: bytes, exclude: Any, *, wait: bool) -> Awaitable[None]:
        """Send an encoded message to the members. It is on its way when this returns; the awaitable is for `wait`."""
        ...

    def check_size(self, group: str, message: bytes) -> None:
        """Raise :class:`~mtserver.errors.HandlerError` if a message is too long to be sent. Any thread may call."""
        ...

    def members(self, group: str) -> list[Member]:
        """Return the members on all nodes, in the order of nodes and clients' numbers. Any thread may call."""
        ...

    def watch(self, group: str, changed: Callable[[Change], Any]) -> Callable[[], None]:
        """Call `changed` with each change of the members, until the returned function is called."""
        ...

    def tick(self) -> bool:
        """Let senders go on for whom there is room; called several times a second. Return whether some still wait."""
        ...

    def close(self) -> Awaitable[None]:
        """End all memberships, and the link to other nodes."""
        ...


def check_name(name: str) -> str:
    """Return a group's name, which a client may have chosen; :class:`~mtserver.errors.BadMessage` if it cannot be."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_SIZE:
        raise BadMessage(f"the name of a group has 1 to {NAME_SIZE} characters")
    return _sendable(name, "the name of a group")


def check_label(label: str) -> str:
    """Return a member's label, which may be empty; :class:`~mtserver.errors.BadMessage` if it cannot be."""
    if not isinstance(label, str) or len(label) > NAME_SIZE:
        raise BadMessage(f"a label has {NAME_SIZE} characters at most")
    return _sendable(label, "a label")


def _sendable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadMessage(f"{what} is text that can be sent") from None
    return text
