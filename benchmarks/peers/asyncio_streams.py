"""asyncio's streams, as its documentation shows them: readline, write, drain."""

from __future__ import annotations

import asyncio

from benchmarks.peers.arguments import BACKLOG, parse

arguments = parse("uvloop", "sleep=")
pause = float(arguments.sleep or 0)


async def handle(message: bytes) -> bytes:
    if pause:
        await asyncio.sleep(pause)
    return message


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(await handle(line))
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", arguments.port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    if arguments.uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
