"""
What one client is still to be sent: replies not yet framed, then frames not yet written. Pure; order is kept.

Replies are framed together when they are written, a join per batch rather than a concatenation per message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mtserver.errors import HandlerError
from mtserver.framing import Framing


class Outbox:
    """
    Collects, and gives away in pieces.

    :param framing: encodes replies.
    :param unfit: called with the error for a reply that the framing cannot carry; returns the frame to send instead.
    """

    __slots__ = ("_frames", "_framing", "_replies", "_unfit", "broken", "size")

    def __init__(self, framing: Framing, unfit: Callable[[HandlerError], bytes]) -> None:
        self._framing = framing
        self._unfit = unfit
        self._replies: list[bytes] = []
        self._frames: deque[bytes | memoryview] = deque()
        #: Bytes held; the framing of replies counts once they have it.
        self.size = 0
        #: The last piece ended within a frame, whose rest is held: nothing else makes sense to the reader before it.
        self.broken = False

    def __bool__(self) -> bool:
        return bool(self._replies or self._frames)

    def add_reply(self, reply: bytes) -> None:
        """An encoded message that has no framing yet."""
        self._replies.append(reply)
        self.size += len(reply)

    def add_frame(self, frame: bytes) -> None:
        """A message in its framing, after all that was added before."""
        if self._replies:
            self._frame_replies()
        self._frames.append(frame)
        self.size += len(frame)

    def next_piece(self, size: int) -> bytes:
        """The next bytes to write: everything, if that is about `size` bytes; else `size` bytes of it."""
        if self._replies:
            self._frame_replies()
        frames = self._frames
        if self.size <= size:
            data = bytes(frames[0]) if len(frames) == 1 else b"".join(frames)
            self.clear()
            return data
        # Rare: somebody is owed a lot. A view of it, so that 20 MB are not copied once per piece.
        taken = [frames.popleft()]
        length = len(taken[0])
        while length < size and frames:
            taken.append(frames.popleft())
            length += len(taken[-1])
        # Joined once: frame by frame, thousands of short ones would be copied over and over.
        rest = memoryview(taken[0] if len(taken) == 1 else b"".join(taken))
        piece = bytes(rest[:size])
        self.broken = len(rest) > size
        if self.broken:
            frames.appendleft(rest[size:])
        self.size = max(0, self.size - len(piece)) if frames else 0
        return piece

    def clear(self) -> None:
        """Forget everything."""
        self._replies.clear()
        self._frames.clear()
        self.size = 0
        self.broken = False

    def _frame_replies(self) -> None:
        replies, self._replies = self._replies, []
        try:
            frame = self._framing.encode(replies)
            self._frames.append(frame)
            self.size += len(frame) - sum(map(len, replies))
        except HandlerError:
            # It is one of them that does not fit; the others are not to pay for it.
            for reply in replies:
                try:
                    frame = self._framing.encode([reply])
                except HandlerError as error:
                    frame = self._unfit(error)
                self._frames.append(frame)
                self.size += len(frame) - len(reply)
