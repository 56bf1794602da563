"""
Lock holders: the processes whose snapshot of a database keeps the write-ahead log from restarting (Linux only).

A reader locks a byte of the file ``-shm`` (POSIX), and ``/proc/locks`` lists the locks. The file is never opened here:
closing any descriptor of it would drop all the locks that this process has on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from mtserver.journal.sqlite.file import shared_path
from mtserver.telemetry.escape import escape

#: Bytes of ``-shm`` that stand for snapshots ("WAL-Mode File Format", section 2.3).
SNAPSHOTS = range(123, 128)

_LOCKS = Path("/proc/locks")


def readers(database: Path) -> str:
    """Name the other processes with a snapshot, as ``process 7 (sqlite3)``; empty if none can be named."""
    try:
        inode = shared_path(database).stat().st_ino
        found = holders(_LOCKS.read_text(), inode) - {os.getpid()}
    except OSError:
        return ""
    return ", ".join(f"process {number}{_name(number)}" for number in sorted(found))


def holders(locks: str, inode: int) -> set[int]:
    """Parse ``/proc/locks`` for the numbers of the processes with a snapshot."""
    found = set()
    for line in locks.splitlines():
        # 3: POSIX  ADVISORY  READ 8254 fe:00:2172100 123 123. Locks that wait have an arrow behind the first number.
        words = line.split()
        if len(words) < 8 or words[1] != "POSIX" or words[3] != "READ" or words[5].rpartition(":")[2] != str(inode):
            continue
        # The device before the inode is not compared: on overlay file systems it differs from that of stat().
        first, last, number = words[6], words[7], int(words[4])
        # Processes of other containers have the number 0.
        if number > 0 and int(first) in SNAPSHOTS and last.isdigit() and int(last) in SNAPSHOTS:
            found.add(number)
    return found


def _name(number: int) -> str:
    try:
        # Escaped, since a process chooses its name itself.
        return f" ({escape(Path(f'/proc/{number}/comm').read_bytes().strip())})"
    except OSError:
        return ""
