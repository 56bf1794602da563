"""
Disks of the tests' own: a small one that fills up, and one whose power can be cut. For root only; others skip the test.

::

    with small_disk(folder, "8m"): ...

    with Disk(folder) as disk:
        (disk.folder / "file").write_bytes(b"...")
        disk.cut()
        disk.remount()

What was mounted is unmounted when the block is left, whatever happens in it, and nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import SkipTest

from .server import needs

#: Of <linux/fs.h> and fs/ext4/ext4.h.
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878
_FITRIM = 0xC0185879
_EXT4_IOC_SHUTDOWN = 0x8004587D
#: Without what ext4 has logged and not written. (0 would freeze the file system first, which saves everything; 1 would
#: save the log.) Pages that were not written are never written: all of that goes when the power does.
_NOLOGFLUSH = 2


def _root() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise SkipTest("needs root: mounts a file system")


def _mount(*words: str | Path) -> None:
    """Mount something for the first time, which not every root may."""
    done = subprocess.run([needs("mount", "mount"), *words], capture_output=True, check=False)
    if done.returncode:
        raise SkipTest(f"needs root that may mount: {done.stderr.decode().strip()}")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[None]:
    """A file system of this size in `folder`, with nothing else on it, and in memory."""
    _root()
    umount = needs("umount", "mount")
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield
    finally:
        subprocess.run([umount, "-l", folder], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that there is with one file."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass


class Disk:
    """
    An ext4 file system on a loop device.

    :param place: a folder, which stays; the disk is in the files ``image`` and ``disk`` there.
    :param size: in bytes. Only what is written takes room.
    """

    def __init__(self, place: Path, size: int = 64 * 1024 * 1024) -> None:
        self._image = place / "image"
        self._size = size
        #: Where it is mounted.
        self.folder = place / "disk"
        # The loop device goes with the mount.
        self._attach = ("-t", "ext4", "-o", "loop", self._image, self.folder)

    def __enter__(self) -> Self:
        _root()
        make, umount = needs("mkfs.ext4", "e2fsprogs"), needs("umount", "mount")
        self._umount: tuple[str | Path, ...] = (umount, self.folder)
        with self._image.open("xb") as image:
            image.truncate(self._size)
        subprocess.run([make, "-q", "-F", self._image], check=True)
        self.folder.mkdir()
        _mount(*self._attach)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.path.ismount(self.folder):
            # Lazily: whatever still has a file open there, this does not fail.
            subprocess.run([*self._umount, "-l"], check=True)

    def cut(self) -> None:
        """Cut its power: what has not been written by now never is, and everything on it fails until `remount`."""
        self._control(_EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))

    def remount(self) -> None:
        """Switch it on again. Nobody may have a file open there."""
        subprocess.run(self._umount, check=True)
        subprocess.run(["mount", *self._attach], check=True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Whoever writes there waits until the block is left, and cannot be killed before."""
        self._control(_FIFREEZE, struct.pack("i", 0))
        try:
            yield
        finally:
            self._control(_FITHAW, struct.pack("i", 0))

    def give_back(self) -> None:
        """
        Give the room of its free blocks back to where its image is: it has less behind it than it promises.

        If that room is taken there, it fails to write files, and nothing else.
        """
        # First take all of it, so that what is not free is there.
        with self._image.open("r+b") as image:
            os.posix_fallocate(image.fileno(), 0, self._size)
        # A page at a time: a loop device calls a request a success of which the first page could be written.
        device = self.folder.stat().st_dev
        queue = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/max_sectors_kb")
        queue.write_text(str(os.sysconf("SC_PAGE_SIZE") // 1024))
        self._control(_FITRIM, struct.pack("QQQ", 0, (1 << 64) - 1, 0))

    def _control(self, request: int, argument: bytes) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, request, argument)
        finally:
            os.close(folder)
