"""The standard library's ``socketserver``, as its documentation shows it."""

from __future__ import annotations

import socketserver

from benchmarks.peers.arguments import BACKLOG, parse


def handle(message: bytes) -> bytes:
    return message


class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(handle(line))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = BACKLOG


if __name__ == "__main__":
    with Server(("127.0.0.1", parse().port), Handler) as server:
        server.serve_forever()
