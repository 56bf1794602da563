"""
What one client is still to be sent: frames that could not be written yet. Pure; order is kept.
"""

from __future__ import annotations

from collections import deque


class Outbox:
    """Collects frames, and gives them away in pieces."""

    __slots__ = ("_frames", "broken", "size")

    def __init__(self) -> None:
        self._frames: deque[bytes | memoryview] = deque()
        #: Bytes held.
        self.size = 0
        #: The last piece ended within a frame, whose rest is held: nothing else makes sense to the reader before it.
        self.broken = False

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: bytes) -> None:
        """One or more messages in their framing."""
        self._frames.append(frame)
        self.size += len(frame)

    def next_piece(self, size: int) -> bytes:
        """The next bytes to write: everything, if that is at most `size` bytes; else `size` bytes of it."""
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
        self.size -= len(piece)
        return piece

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self.size = 0
        self.broken = False
