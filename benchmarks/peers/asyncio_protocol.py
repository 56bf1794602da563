"""asyncio's Protocol: the fastest that asyncio has, with the back-pressure that a server cannot do without."""

from __future__ import annotations

import asyncio
import ctypes
import ssl
from typing import cast

from benchmarks.peers.arguments import BACKLOG, parse

arguments = parse("uvloop", "malloc", "cert=", "key=")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_memory() -> None:
    """
    Have malloc keep up to 4 MiB instead of giving it back.

    asyncio reads into a new buffer of 256 KiB each time, which glibc otherwise maps and unmaps.
    """
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, 4 << 20)
    mallopt(M_TRIM_THRESHOLD, 4 << 20)


def handle(message: bytes) -> bytes:
    return message


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        *messages, self.rest = (self.rest + data).split(b"\n")
        if messages:
            self.transport.write(b"".join([handle(message) + b"\n" for message in messages]))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def main() -> None:
    tls = None
    if arguments.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.cert, arguments.key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", arguments.port, backlog=BACKLOG, ssl=tls)
    await server.serve_forever()


if __name__ == "__main__":
    if arguments.malloc:
        keep_memory()
    if arguments.uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
