"""
Clients that send all the time, and whose server may end at any moment.

::

    load = Load("lane", ids=True)
    with Server(...) as server, load.connect(server.port) as talk:
        talk.go_on(100)
        server.stop(signal.SIGKILL)
        talk.listen()

Each client counts its messages, over all its connections, and always has some more on the way than are answered. With
ids it does as it should: after each loss it says ``RESUME`` and sends everything again that was not answered. Without,
it goes on with the next, since nobody knows what became of those. What has been answered is kept in `acknowledged`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .peer import DEADLINE, Crowd

#: Messages of one client on the way.
WINDOW = 16

_OK = re.compile(rb"OK ([1-9]\d*)(?: accepted)?( dup)?")
_LAST = re.compile(rb"OK (?:0|([1-9]\d*)(?: accepted)? @(\d+))")
_UNAVAILABLE = re.compile(rb"ERR unavailable retry-after=\d+ .+")


class Load:
    """
    What some clients have sent, and what they were told.

    :param name: in front of their messages and names.
    :param ids: their messages carry ids; the server has ``--message-ids``.
    :param size: bytes of each message, at least.
    """

    def __init__(self, name: str, clients: int = 8, *, ids: bool = False, size: int = 0) -> None:
        self.ids = ids
        self.size = size
        self.names = [f"{name}-{client}" for client in range(clients)]
        #: How many messages each has begun to send.
        self.sent = [0] * clients
        #: What each has sent and has no answer to.
        self.unanswered: list[deque[int]] = [deque() for _ in range(clients)]
        #: What each ``OK`` that was read stands for.
        self.acknowledged: dict[int, tuple[str, int]] = {}
        #: Answers ``OK`` so far, and those of them that said ``dup``.
        self.answers = self.duplicates = 0
        #: How often connections ended while there were messages without an answer.
        self.interrupted = 0

    def connect(self, port: int) -> Talk:
        """All of them to a server."""
        return Talk(self, port)

    def message(self, index: int, count: int) -> bytes:
        """What a client sends as its message of this number."""
        return f"{self.names[index]}:{count}:".encode().ljust(self.size, b".")


def origin(message: bytes) -> tuple[str, int]:
    """Whose message this is, and which."""
    name, count, _ = message.decode().split(":")
    return name, int(count)


class Talk:
    """One connection of each."""

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self._crowd = Crowd(port, len(load.names))
        #: Lines of each that have been looked at.
        self._seen = [0] * len(load.names)
        #: What each has to send again on its next connection, though it has an answer.
        self._again: list[list[int]] = [[] for _ in load.names]
        self._believes = True
        #: The clients that have been told ``ERR unavailable``. They send no more, and may not be told ``OK`` either.
        self._refused: set[int] = set()

    def __enter__(self) -> Self:
        for index, name in enumerate(self._load.names):
            again = self._load.unanswered[index]
            if self._load.ids:
                lines = [b"RESUME " + name.encode(), *(self._line(index, count) for count in again)]
                self._crowd.send(index, b"".join(line + b"\n" for line in lines))
            else:
                again.clear()
            self._fill(index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crowd.close()
        self._load.interrupted += any(self._load.unanswered)
        for unanswered, again in zip(self._load.unanswered, self._again, strict=True):
            unanswered.extendleft(reversed(again))

    def go_on(self, answers: int) -> None:
        """Send and read until so many more are acknowledged."""
        enough = self._load.answers + answers
        self._go_on(lambda: self._load.answers >= enough)

    def go_on_until_refused(self) -> None:
        """Send and read until each has been told ``ERR unavailable``."""
        self._go_on(lambda: len(self._refused) == len(self._load.names))

    def _go_on(self, enough: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not enough():
            self._look(end)
            assert not self._crowd.ended, "a connection has ended while its server was running"
            for index, unanswered in enumerate(self._load.unanswered):
                if len(unanswered) <= WINDOW // 2 and index not in self._refused:
                    self._fill(index)

    def listen(self, *, until_answered: bool = False) -> None:
        """Send no more, and read until every connection has ended; or until everything is answered."""
        end = time.monotonic() + DEADLINE
        while len(self._crowd.ended) < len(self._load.names):
            if until_answered and not any(self._load.unanswered):
                return
            self._look(end)

    def doubt(self) -> None:
        """Read what has come; from now on ``OK`` is no longer believed, and the message is sent again later."""
        self._look(time.monotonic() + DEADLINE, 0)
        self._believes = False

    def _line(self, index: int, count: int) -> bytes:
        message = self._load.message(index, count)
        return b"@%d %b" % (count, message) if self._load.ids else message

    def _fill(self, index: int) -> None:
        load = self._load
        room = max(0, WINDOW - len(load.unanswered[index]))
        following = range(load.sent[index], load.sent[index] + room)
        self._crowd.send(index, b"".join(self._line(index, count) + b"\n" for count in following))
        load.sent[index] = following.stop
        load.unanswered[index].extend(following)

    def _look(self, end: float, seconds: float = 0.1) -> None:
        if time.monotonic() > end:
            raise AssertionError(f"not over in time: {[len(each) for each in self._load.unanswered]} unanswered")
        for index in self._crowd.read_once(seconds):
            lines = self._crowd.lines(index)
            for line in lines[self._seen[index] :]:
                self._answered(index, line, is_first=not self._seen[index])
                self._seen[index] += 1

    def _answered(self, index: int, line: bytes, *, is_first: bool) -> None:
        load = self._load
        if load.ids and is_first:
            self._resumed(index, line)
            return
        count = load.unanswered[index].popleft()
        stored = _OK.fullmatch(line)
        if stored is None:
            assert _UNAVAILABLE.fullmatch(line), line
            self._refused.add(index)
        else:
            assert index not in self._refused, f"{line!r} after a message of {load.names[index]} that was refused"
        if stored is None or not self._believes:
            self._again[index].append(count)
            return
        sequence = int(stored[1])
        assert sequence not in load.acknowledged, f"{line!r} was said before"
        load.acknowledged[sequence] = load.names[index], count
        load.answers += 1
        load.duplicates += stored[2] is not None

    def _resumed(self, index: int, line: bytes) -> None:
        """The last that is stored: of what this client has sent, and no answer to anything behind it was read."""
        if not self._believes and _UNAVAILABLE.fullmatch(line):
            self._refused.add(index)  # the power was cut before this client was told; so is all behind it refused
            return
        last = _LAST.fullmatch(line)
        assert last is not None, line
        stored = int(last[2]) if last[2] else -1
        unanswered, sent = self._load.unanswered[index], self._load.sent[index]
        assert (unanswered[0] if unanswered else sent) - 1 <= stored < sent, (line, unanswered)
