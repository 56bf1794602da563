"""An asyncio library inside a handler, here asyncio's own streams: each message is asked of another server.

UPSTREAM=localhost:9998 twistd -n mtserver --port 9999 --app relay:relay
"""

import asyncio
import os

from mtserver import Client, Unavailable


async def relay(client: Client, message: bytes) -> bytes:
    host, _, port = os.environ.get("UPSTREAM", "localhost:9998").partition(":")
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(message + b"\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError):
        raise Unavailable("the server behind does not answer", retry_after=5) from None
    return answer.removesuffix(b"\n")
