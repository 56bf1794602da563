"""Whether a file has changed."""

from __future__ import annotations

from pathlib import Path


def version(path: Path) -> tuple[int, ...]:
    """What changes when the file does; an empty tuple while there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode
