"""Versions of a file, by which a change of it is noticed."""

from __future__ import annotations

from pathlib import Path


def version(path: Path) -> tuple[int, ...]:
    """Describe a file by its status, which differs once the file has changed; an empty tuple while there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode
