"""Each message of one client to all others, with asyncio's Protocol: one write per message and client."""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.peers.arguments import BACKLOG, parse

arguments = parse("uvloop")
clients: set[FanOut] = set()


class FanOut(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""
        clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        clients.discard(self)

    def data_received(self, data: bytes) -> None:
        *messages, self.rest = (self.rest + data).split(b"\n")
        for message in messages:
            line = message + b"\n"
            for client in clients:
                if client is not self:
                    client.transport.write(line)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(FanOut, "127.0.0.1", arguments.port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    if arguments.uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
