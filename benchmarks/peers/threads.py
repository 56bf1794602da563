"""A thread per client, blocking sockets."""

from __future__ import annotations

import socket
import threading
import time

from benchmarks.peers.arguments import BACKLOG, parse

arguments = parse("sleep=")
pause = float(arguments.sleep or 0)


def handle(message: bytes) -> bytes:
    if pause:
        time.sleep(pause)
    return message


def serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = b""
        while data := connection.recv(65536):
            *messages, rest = (rest + data).split(b"\n")
            if messages:
                connection.sendall(b"".join([handle(message) + b"\n" for message in messages]))


def main() -> None:
    with socket.create_server(("127.0.0.1", arguments.port), backlog=BACKLOG) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
