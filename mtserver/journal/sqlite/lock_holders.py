"""
Who reads a database just now, as far as Linux tells: processes whose snapshot keeps the write-ahead log from starting
anew.

A reader locks a byte of the file ``-shm`` (POSIX), and ``/proc/locks`` says who has locked what. The file itself is
only looked up here, never opened: to close any descriptor of it would drop all the locks that this process has on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from mtserver.journal.sqlite.file import shared_path
from mtserver.telemetry.escape import escape

#: The bytes of ``-shm`` that stand for snapshots ("WAL-Mode File Format", section 2.3).
SNAPSHOTS = range(123, 128)

_LOCKS = Path("/proc/locks")


def readers(database: Path) -> str:
    """Those with a snapshot, this process excepted: ``process 7 (sqlite3)``; an empty text if nobody can be named."""
    try:
        inode = shared_path(database).stat().st_ino
        found = holders(_LOCKS.read_text(), inode) - {os.getpid()}
    except OSError:
        return ""
    return ", ".join(f"process {number}{_name(number)}" for number in sorted(found))


def holders(locks: str, inode: int) -> set[int]:
    """The numbers of the processes with a snapshot, of what ``/proc/locks`` says."""
    found = set()
    for line in locks.splitlines():
        # 3: POSIX  ADVISORY  READ 8254 fe:00:2172100 123 123. Waiting ones have an arrow behind the number.
        words = line.split()
        if len(words) < 8 or words[1] != "POSIX" or words[3] != "READ" or words[5].rpartition(":")[2] != str(inode):
            continue
        # Not the device before the inode: file systems of several layers have two truths about it.
        first, last, number = words[6], words[7], int(words[4])
        # A process of another container has the number 0.
        if number > 0 and int(first) in SNAPSHOTS and last.isdigit() and int(last) in SNAPSHOTS:
            found.add(number)
    return found


def _name(number: int) -> str:
    try:
        # Which a process chooses for itself.
        return f" ({escape(Path(f'/proc/{number}/comm').read_bytes().strip())})"
    except OSError:
        return ""
