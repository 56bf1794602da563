"""Clients: one at a time on a blocking socket with deadlines, or a thousand on a selector."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from unittest import SkipTest

#: Seconds for anything that has to happen. Only what hangs ever takes that long.
DEADLINE = 60.0
#: Seconds of silence that end :meth:`Peer.pour`.
PATIENCE = 15.0
CHUNK = 1 << 18


class Peer:
    """A client of line-framed servers; with :meth:`read` and :meth:`rest`, of others."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = bytearray()

    @classmethod
    def connect(cls, port: int, *, receive_buffer: int = 0) -> Self:
        connection = socket.socket()
        try:
            connection.settimeout(DEADLINE)
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def finish(self) -> None:
        """Nothing more will be sent: half-close."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _fill(self) -> bool:
        data = self.socket.recv(CHUNK)
        self._received += data
        return bool(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._received) < size:
            if not self._fill():
                raise AssertionError(f"end after {len(self._received)} of {size} bytes: {self._received[:200]!r}")
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def line(self) -> bytes:
        """The next line, without its end."""
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if not self._fill():
                raise AssertionError(f"end within a line: {self._received[:200]!r}")
        return self.read(end + 1)[:-1]

    def lines(self, count: int) -> list[bytes]:
        return [self.line() for _ in range(count)]

    def rest(self) -> bytes:
        """All there is until the server ends its side."""
        while self._fill():
            pass
        return self.read(len(self._received))

    def exchange(self, *messages: bytes) -> list[bytes]:
        """Send lines, and read as many."""
        self.send(b"".join(message + b"\n" for message in messages))
        return self.lines(len(messages))

    def pour(
        self,
        data: bytes,
        times: int,
        *,
        enough: Callable[[bytearray], bool] = lambda _: False,
        patience: float = PATIENCE,
        deadline: float = DEADLINE,
    ) -> tuple[int, bytes]:
        """
        Send `data` again and again while reading what comes, until the server takes and says no more.

        :param enough: ends it early, given what has been received.
        :param patience: seconds without a byte in either direction that end it too.
        :param deadline: seconds after which it is a failure.
        :return: how many bytes were sent, and what was received.
        """
        self.socket.setblocking(False)
        received, sent, whole = self._received, 0, len(data) * times
        view, begun = memoryview(data), time.monotonic()
        wanted = selectors.EVENT_READ | selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector, contextlib.suppress(ConnectionError):
            selector.register(self.socket, wanted)
            while wanted and not enough(received):
                if time.monotonic() > begun + deadline:
                    raise AssertionError(f"not over after {deadline:g} s: {sent} bytes sent, {len(received)} received")
                selector.modify(self.socket, wanted)
                found = selector.select(patience)
                if not found:
                    break
                ((_, ready),) = found
                if ready & selectors.EVENT_READ:
                    piece = self.socket.recv(CHUNK)
                    received += piece
                    if not piece:
                        wanted &= ~selectors.EVENT_READ
                if ready & selectors.EVENT_WRITE:
                    sent += self.socket.send(view[sent % len(data) :])
                    if sent >= whole:
                        wanted &= ~selectors.EVENT_WRITE
        self.socket.settimeout(DEADLINE)
        self._received = bytearray()
        return sent, bytes(received)


def room_for_sockets(count: int) -> None:
    """Let this process have so many sockets, or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SkipTest(f"needs {wanted} open files: the hard limit is {hard}, see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Crowd:
    """
    Many clients at once, on one selector.

    :param port: where to connect them all.
    :param count: how many.
    """

    def __init__(self, port: int, count: int) -> None:
        room_for_sockets(count)
        self._stack = contextlib.ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        #: What each has received so far.
        self.received = [bytearray() for _ in range(count)]
        #: Those whose connection has ended: True if by RST.
        self.ended: dict[int, bool] = {}
        self._sockets: list[socket.socket] = []
        try:
            for index in range(count):
                connection = self._stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
                self._sockets.append(connection)
                self._selector.register(connection, selectors.EVENT_READ, index)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def send(self, index: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._sockets[index].sendall(data)

    def lines(self, index: int) -> list[bytes]:
        """The complete lines that a client has received."""
        return bytes(self.received[index]).split(b"\n")[:-1]

    def read_until(self, enough: Callable[[], bool], seconds: float = 2 * DEADLINE) -> None:
        """Read for everyone until `enough`, which is asked after each look, or until all connections have ended."""
        end = time.monotonic() + seconds
        while not enough() and len(self.ended) < len(self._sockets):
            if time.monotonic() > end:
                raise AssertionError(f"not over after {seconds:g} s")
            self.read_once(0.1)

    def read_once(self, seconds: float) -> Sequence[int]:
        """Wait at most `seconds` for bytes, read them, and return whose they are."""
        heard: list[int] = []
        for key, _ in self._selector.select(seconds):
            index: int = key.data
            try:
                data = self._sockets[index].recv(CHUNK)
                reset = False
            except ConnectionError:
                data, reset = b"", True
            if data:
                self.received[index] += data
                heard.append(index)
            else:
                self.ended[index] = reset
                self._selector.unregister(self._sockets[index])
        return heard
