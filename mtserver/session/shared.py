"""The listener, the server and the login of a session, as far as it needs them."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

from mtserver.app import App
from mtserver.codecs import Codec
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.dispatch import Dispatch
from mtserver.framing import Framing
from mtserver.groups.fan_out import FanOut
from mtserver.session.limits import TokenBucket
from mtserver.settings import Settings

#: The messages of a read that holds whole ones only, up to a number of them; None where that is not so. See
#: :meth:`mtserver.framing.Framing.split_complete`.
SplitComplete = Callable[[bytes, int, int], "list[bytes] | None"]


class Login(typing.Protocol):
    """One client that has to say who it is. See :mod:`mtserver.auth.login`."""

    #: The most bytes of its first message.
    max_message: int

    def look(self) -> None: ...

    def end_input(self) -> None: ...

    def expire(self, seconds: float) -> None: ...

    def cancel(self) -> None: ...


class Gate(typing.Protocol):
    """Where the clients of a listener say who they are. See :mod:`mtserver.auth.gate`."""

    #: How a message begins that belongs to authentication; empty: none does.
    verb: bytes

    def receive(self, applicant: Any) -> Login: ...


class Listener(typing.Protocol):
    """One port, whose sessions share this. See :mod:`mtserver.server.listener`."""

    app: App
    framing: type[Framing]
    #: The bytes that carry messages: the framing's.
    encode: Callable[[Sequence[bytes]], bytes]
    codec: Codec
    dispatch: Dispatch
    gate: Gate | None
    #: Bytes of one message, at most.
    max_message: int
    split_complete: SplitComplete

    @property
    def server(self) -> Server: ...


class Server(typing.Protocol):
    """The server, whose sessions share this. See :mod:`mtserver.server.server`."""

    settings: Settings
    loop_calls: LoopCalls
    fan_out: FanOut
    #: A monotonic clock, in seconds.
    seconds: Callable[[], float]
    #: Time that `seconds` counts from, in seconds since the epoch.
    epoch: float
    #: The app's lifespan has opened what handlers need.
    is_open: bool
    draining: bool
    #: The token bucket of each session, where there is a ``--message-rate``.
    buckets: dict[Any, TokenBucket]

    def soon(self, call: Callable[[], Any]) -> None: ...

    def throttle(self, session: Any) -> None: ...

    def wait_for_opening(self, session: Any) -> None: ...

    def joined(self, session: Any) -> None: ...

    def left(self, session: Any, reason: str) -> None: ...

    def finished(self, session: Any) -> None: ...
