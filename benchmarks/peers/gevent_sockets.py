"""gevent's StreamServer: a greenlet per client, sockets that look blocking."""

from __future__ import annotations

import socket
from typing import Any

import gevent
from gevent.server import StreamServer

from benchmarks.peers.arguments import BACKLOG, parse

arguments = parse("sleep=")
pause = float(arguments.sleep or 0)


def handle(message: bytes) -> bytes:
    if pause:
        gevent.sleep(pause)
    return message


def serve(connection: Any, _address: Any) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = b""
    while data := connection.recv(65536):
        *messages, rest = (rest + data).split(b"\n")
        if messages:
            connection.sendall(b"".join([handle(message) + b"\n" for message in messages]))


if __name__ == "__main__":
    StreamServer(("127.0.0.1", arguments.port), serve, backlog=BACKLOG).serve_forever()
