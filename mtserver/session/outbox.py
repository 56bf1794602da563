"""
Frames for one client that could not be written yet. Pure; order is kept.

There is one while something is held here or in the transport, and none otherwise.
"""

from __future__ import annotations

from collections import deque


class Outbox:
    """The frames held for one client, given away in pieces."""

    __slots__ = ("_frames", "ends_within_frame", "size", "unread_since")

    def __init__(self) -> None:
        self._frames: deque[bytes | memoryview] = deque()
        #: Bytes held here.
        self.size = 0
        #: The last piece ended within a frame, whose rest is held: nothing else makes sense to the reader before it.
        self.ends_within_frame = False
        #: Since when the transport has had no room, on the server's clock; None while it has.
        self.unread_since: float | None = None

    def add(self, frame: bytes) -> None:
        """Hold one or more messages in their framing, behind all that is held."""
        self._frames.append(frame)
        self.size += len(frame)

    def next_piece(self, size: int) -> bytes:
        """The next bytes to write: everything, if that is at most `size` bytes; else `size` bytes of it."""
        frames = self._frames
        if self.size <= size:
            data = bytes(frames[0]) if len(frames) == 1 else b"".join(frames)
            frames.clear()
            self.size = 0
            self.ends_within_frame = False
            return data
        # A view is kept of the rest, so that 20 MB are not copied once per piece.
        taken = [frames.popleft()]
        length = len(taken[0])
        while length < size and frames:
            taken.append(frames.popleft())
            length += len(taken[-1])
        # One join: frame by frame, thousands of short ones would be copied over and over.
        rest = memoryview(taken[0] if len(taken) == 1 else b"".join(taken))
        piece = bytes(rest[:size])
        self.ends_within_frame = len(rest) > size
        if self.ends_within_frame:
            frames.appendleft(rest[size:])
        self.size -= len(piece)
        return piece
