"""
What a connection has in the place of uvloop's transport while that cannot do what is asked of it.

Twisted's transports can be written to and paused as soon as a protocol meets them. uvloop's exist an iteration later,
and then read at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtserver.transport.reactor.connection import Connection


class Unborn:
    """Stands in for uvloop's transport until there is one, in the next iteration."""

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

    def pass_on(self, uv: Any) -> None:
        if self._written:
            uv.write(b"".join(self._written))


class Held:
    """
    Stands between uvloop's transport and a connection that was paused before uvloop was ready.

    uvloop begins to read right after ``connection_made``, and cannot be told not to. What it has read by the time it
    can be paused waits here.
    """

    __slots__ = ("_chunks", "_connection", "_loop", "_uv", "_wanted")

    def __init__(self, connection: Connection, uv: Any, loop: Any) -> None:
        self._connection = connection
        self._chunks: list[bytes] = []
        self._loop = loop
        self._uv = uv
        self._wanted = False
        uv.set_protocol(self)
        loop.call_soon(uv.pause_reading)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._uv, name)

    # The connection takes us for uvloop's transport.

    def is_reading(self) -> bool:
        return self._wanted

    def pause_reading(self) -> None:
        self._wanted = False

    def resume_reading(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        connection, uv = self._connection, self._uv
        if not self._wanted or not connection.receives:
            return
        self._wanted = False
        connection.release(uv)
        uv.set_protocol(connection)
        uv.resume_reading()
        if self._chunks:
            connection.data_received(b"".join(self._chunks))

    # uvloop takes us for its protocol.

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)

    def eof_received(self) -> bool:
        return True  # it will be met again when reading goes on

    def connection_lost(self, problem: BaseException | None) -> None:
        self._connection.connection_lost(problem)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
