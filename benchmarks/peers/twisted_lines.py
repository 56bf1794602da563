"""Twisted's own LineReceiver on the epoll reactor; over TLS through its ``ssl:`` endpoint."""
# ruff: noqa: E402 - the reactor is chosen before anything imports it

from __future__ import annotations

from twisted.internet import epollreactor

epollreactor.install()

from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from benchmarks.peers.arguments import BACKLOG, parse


def handle(message: bytes) -> bytes:
    return message


class Echo(LineReceiver):
    delimiter = b"\n"

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(handle(line))


def main() -> None:
    arguments = parse("cert=", "key=")
    where = f"{arguments.port}:interface=127.0.0.1:backlog={BACKLOG}"
    if arguments.cert:
        where = f"ssl:{where}:certKey={arguments.cert}:privateKey={arguments.key}"
    else:
        where = f"tcp:{where}"
    endpoints.serverFromString(reactor, where).listen(Factory.forProtocol(Echo))
    reactor.run()


if __name__ == "__main__":
    main()
