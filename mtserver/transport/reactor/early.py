"""
Substitutes for uvloop's transport at the begin of a connection, while uvloop cannot do yet what it is asked.

Protocols may write to Twisted's transports and pause them as soon as they meet them. A transport of uvloop's exists an
iteration of the loop later, and then reads at once.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Receiver(Protocol):
    """The connection, as its transport sees it: uvloop's protocol, and two words about reading."""

    @property
    def receives(self) -> bool: ...

    def use(self, transport: Any) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, problem: BaseException | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def serve(loop: Any, protocol: Any, sock: socket.socket, failed: Callable[[BaseException], None]) -> None:
    """Make a uvloop transport for an accepted socket; `failed` is called, later, if the connection has gone already."""
    try:
        # The coroutine waits for one future. A task would drive it at three times the price.
        coroutine = loop.connect_accepted_socket(lambda: protocol, sock)
        coroutine.send(None).add_done_callback(functools.partial(_finish, coroutine, failed))
    except (OSError, RuntimeError) as problem:
        loop.call_soon(failed, problem)


def _finish(coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None], _: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    except (OSError, RuntimeError) as problem:
        failed(problem)


class PendingTransport:
    """Collects what is asked of uvloop's transport until there is one, in the next iteration."""

    __slots__ = ("_paused", "_size", "_written", "aborted")

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._size = 0
        self._paused = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        if data:
            self._written.append(bytes(data))
            self._size += len(data)

    def get_write_buffer_size(self) -> int:
        return self._size

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False

    def is_reading(self) -> bool:
        return not self._paused

    def abort(self) -> None:
        self.aborted = True

    def pass_on(self, transport: Any) -> None:
        """Write to uvloop's transport what was written here."""
        if self._written:
            transport.write(b"".join(self._written))


class PausedTransport:
    """
    Stands between uvloop's transport and a connection that was paused before uvloop was ready.

    uvloop begins to read right after ``connection_made``, and cannot be told not to. Bytes read before it can be paused
    are held here until the connection wants them.
    """

    __slots__ = ("_chunks", "_connection", "_loop", "_transport", "_wanted")

    def __init__(self, connection: Receiver, transport: Any, loop: Any) -> None:
        self._connection = connection
        self._chunks: list[bytes] = []
        self._loop = loop
        self._transport = transport
        self._wanted = False
        transport.set_protocol(self)
        loop.call_soon(transport.pause_reading)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    # Methods of a transport, for the connection.

    def is_reading(self) -> bool:
        return self._wanted

    def pause_reading(self) -> None:
        self._wanted = False

    def resume_reading(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._loop.call_soon(self._step_aside)

    def _step_aside(self) -> None:
        connection, transport = self._connection, self._transport
        if not self._wanted or not connection.receives:
            return
        self._wanted = False
        connection.use(transport)
        transport.set_protocol(connection)
        transport.resume_reading()
        if self._chunks:
            connection.data_received(b"".join(self._chunks))

    # Methods of a protocol, for uvloop.

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)

    def eof_received(self) -> bool:
        return True  # uvloop meets the end of file again once it reads on

    def connection_lost(self, problem: BaseException | None) -> None:
        self._connection.connection_lost(problem)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
