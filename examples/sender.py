"""Sends each line of a file to `twistd mtserver --message-ids`, so that it is stored once, in order, whatever happens.

    python examples/sender.py HOST PORT NAME FILE

A line's id is its number. What has no answer is unknown; so on each connection the server is asked which line of NAME
it has stored last, and the next one goes first. Ended and started again, it goes on there as well.
"""

import asyncio
import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

WINDOW = 100  # messages on their way, whose answers have not come yet
PATIENCE = 30.0  # seconds without an answer, after which a connection counts as lost
FIRST, LONGEST = 0.2, 30.0  # seconds between two attempts at most, unless the server says more
FOR_GOOD = {"bad-message", "too-long", "auth", "internal"}  # sent again, it would be refused again


class Refused(Exception): ...


async def send(host: str, port: int, name: str, messages: Sequence[bytes]) -> None:
    """Returns once all of them are stored."""
    stored, longest = 0, FIRST
    while True:
        try:
            async with asyncio.timeout(PATIENCE) as patience:
                async for count in conversation(host, port, name, messages):
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                    stored, longest = count, FIRST if count > stored else longest
                return
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            print(f"{stored} are stored, and then: {error!r}", file=sys.stderr)
            retry_after = re.search(r"retry-after=(\d+)", str(error))
        # Not all clients that have lost a server are to come back at the same moment.
        await asyncio.sleep(random.uniform(0, longest) + (int(retry_after[1]) if retry_after else 0))
        longest = min(2 * longest, LONGEST)


async def conversation(host: str, port: int, name: str, messages: Sequence[bytes]) -> AsyncIterator[int]:
    """Yields how many messages are stored, with each answer, until it is all of them."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"RESUME {name}\n".encode())
        last = last_word("RESUME", await reader.readuntil())
        if not re.fullmatch(r"0|@\d+", last):  # or that is a server without --message-ids
            raise Refused(f"the last message of {name} is {last}, which is no line's number")
        yield (stored := int(last.lstrip("@")))
        sent = stored
        while stored < len(messages):
            if sent - stored <= WINDOW // 2:  # many with one write
                some = messages[sent : stored + WINDOW]
                writer.write(b"".join(b"@%d %s\n" % each for each in enumerate(some, sent + 1)))
                sent += len(some)
            last_word(f"message {stored + 1}", await reader.readuntil())
            yield (stored := stored + 1)
    finally:
        writer.transport.abort()


def last_word(question: str, answer: bytes) -> str:
    """Of an OK. Any other answer is an error."""
    kind, *words = answer.decode().split()
    if kind != "OK":
        raise (Refused if words[0] in FOR_GOOD else ConnectionError)(f"{question}: {answer.decode().strip()}")
    return words[-1]


if __name__ == "__main__":
    lines = Path(sys.argv[4]).read_bytes().splitlines()
    try:
        asyncio.run(send(sys.argv[1], int(sys.argv[2]), sys.argv[3], lines))
    except Refused as refused:
        sys.exit(str(refused))
    print(len(lines), "lines are stored")
