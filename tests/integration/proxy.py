"""
Between clients and a server: a proxy that cuts connections after so many bytes, or lets them hang.

::

    with Proxy([Cut(up=100), Cut(down=7, hangs=True)]) as proxy:
        proxy.target = server.port
        Peer.connect(proxy.port)  # the first: reset when 100 bytes have gone to the server

Those behind the last cut are left alone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from .peer import CHUNK, DEADLINE

#: More bytes than any connection has.
ALL = 1 << 40


class Cut(NamedTuple):
    """When a connection ends, and how."""

    #: Bytes that reach the server.
    up: int = ALL
    #: Bytes that reach the client.
    down: int = ALL
    #: Not at all: nothing more is passed on, and neither side is told.
    hangs: bool = False
    #: By RST, not FIN.
    resets: bool = True


class Proxy:
    """
    One listening port, which stays the same while servers come and go behind it.

    :param cuts: for the first connections, in their order.
    """

    def __init__(self, cuts: Sequence[Cut] = ()) -> None:
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        #: The server's port.
        self.target = 0
        #: Connections so far.
        self.connections = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                number, self.connections = self.connections, self.connections + 1
                self._start(self._serve, client, self._cuts[number] if number < len(self._cuts) else Cut())

    def _serve(self, client: socket.socket, cut: Cut) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            self._pass_on(client, server, cut)
            for each in (client, server) if cut.resets else ():
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pass_on(self, client: socket.socket, server: socket.socket, cut: Cut) -> None:
        left = {client: cut.up, server: cut.down}
        other = {client: server, server: client}
        with selectors.DefaultSelector() as selector:
            for each in left:
                selector.register(each, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = source.recv(min(CHUNK, left[source]) or 1)
                    if not data:
                        return
                    if left[source] and not (cut.hangs and 0 in left.values()):
                        other[source].sendall(data)
                        left[source] -= len(data)
                    if 0 in left.values() and not cut.hangs:
                        return
