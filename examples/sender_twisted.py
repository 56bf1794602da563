"""`sender.py` once more, on Twisted: each line of a file is stored once, in order, whatever happens.

    python examples/sender_twisted.py HOST PORT NAME FILE

A line's id is its number. What has no answer is unknown; so on each connection the server is asked which line of NAME
it has stored last, and the next one goes first. Ended and started again, it goes on there as well.
"""

import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater, react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin

WINDOW = 100  # messages on their way, whose answers have not come yet
PATIENCE = 30.0  # seconds without an answer, after which a connection counts as lost
FIRST, LONGEST = 0.2, 30.0  # seconds between two attempts at most, unless the server says more
FOR_GOOD = {"bad-message", "too-long", "auth", "internal"}  # sent again, it would be refused again


class Refused(Exception): ...


class Connection(LineOnlyReceiver, TimeoutMixin):
    delimiter = b"\n"
    transport: Any

    def connectionMade(self) -> None:
        self.received: DeferredQueue[str | Exception] = DeferredQueue()
        self.setTimeout(PATIENCE)

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()
        self.received.put(line.decode())

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.setTimeout(None)
        self.received.put(reason.value)

    async def last_word(self, question: str) -> str:
        """Of the next OK. Any other answer is an error."""
        answer = await self.received.get()
        if isinstance(answer, Exception):
            raise answer
        kind, *words = answer.split()
        if kind != "OK":
            raise (Refused if words[0] in FOR_GOOD else ConnectionError)(f"{question}: {answer}")
        return words[-1]


async def send(reactor: Any, endpoint: IStreamClientEndpoint, name: str, messages: Sequence[bytes]) -> None:
    """Returns once all of them are stored."""
    stored, longest = 0, FIRST
    while True:
        try:
            connection: Any = await endpoint.connect(Factory.forProtocol(Connection))
            async for count in conversation(connection, name, messages):
                stored, longest = count, FIRST if count > stored else longest
        except (ConnectError, ConnectionClosed, OSError) as error:
            print(f"{stored} are stored, and then: {error!r}", file=sys.stderr)
            retry_after = re.search(r"retry-after=(\d+)", str(error))
        else:
            return
        # Not all clients that have lost a server are to come back at the same moment.
        await deferLater(reactor, random.uniform(0, longest) + (int(retry_after[1]) if retry_after else 0))
        longest = min(2 * longest, LONGEST)


async def conversation(connection: Connection, name: str, messages: Sequence[bytes]) -> AsyncIterator[int]:
    """Yields how many messages are stored, with each answer, until it is all of them."""
    try:
        connection.sendLine(f"RESUME {name}".encode())
        last = await connection.last_word("RESUME")
        if not re.fullmatch(r"0|@\d+", last):  # or that is a server without --message-ids
            raise Refused(f"the last message of {name} is {last}, which is no line's number")
        yield (stored := int(last.lstrip("@")))
        sent = stored
        while stored < len(messages):
            if sent - stored <= WINDOW // 2:  # many with one write
                some = messages[sent : stored + WINDOW]
                connection.transport.write(b"".join(b"@%d %s\n" % each for each in enumerate(some, sent + 1)))
                sent += len(some)
            await connection.last_word(f"message {stored + 1}")
            yield (stored := stored + 1)
    finally:
        connection.transport.abortConnection()


async def main(reactor: Any, host: str, port: str, name: str, lines: Sequence[bytes]) -> None:
    try:
        await send(reactor, HostnameEndpoint(reactor, host, int(port)), name, lines)
    except Refused as refused:
        raise SystemExit(str(refused)) from None
    print(len(lines), "lines are stored")


if __name__ == "__main__":
    react(main, [*sys.argv[1:4], Path(sys.argv[4]).read_bytes().splitlines()])
