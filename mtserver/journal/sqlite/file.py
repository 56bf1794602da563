"""
One journal file: recognised before it is touched, opened, brought forward, and noticed if it is moved.

Laws:

* What is not a journal, or a damaged one, is refused with what is wrong, and stays as it is.
* A write-ahead log is never thrown away: not one of a file that is gone, nor one that is damaged.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import apsw
from twisted.logger import Logger

from mtserver.journal.sqlite import schema

#: Milliseconds to wait for another process that has the file locked before saying that the journal is unavailable.
BUSY_TIMEOUT = 1000

#: Bytes of a file that is looked through for damage before the server starts. SQLite's look takes 0.4 to 1 s for 1 GB.
QUICK = 256 * 1024 * 1024

_log = Logger("mtserver.journal")


class NotAJournal(OSError):
    """There is something at this place that is not a journal, or not one that this version can use."""


class Damaged(OSError):
    """What is in a journal is not what was put into it."""


class SyncError(OSError):
    """What has been written may not be on disk."""


def is_loss(error: Exception) -> bool:
    """Whether something was lost on its way to the disk: a failed fsync, ours or SQLite's."""
    return isinstance(error, SyncError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC


def whose(path: Path) -> str:
    """
    What is wrong with a file that is to be a journal, for good; an empty text if nothing is.

    Damage is looked for where the file is all there is (no write-ahead log), and not too large: `is_looked_through`.
    """
    wrong = log_of_another(path)
    if wrong or size_of(path) == 0:
        return wrong  # an empty file becomes a journal
    alone = is_looked_through(path)
    before = _state(path)
    try:
        # As it is on disk, without a lock or a side file: a look leaves no trace, and a process may fork after it.
        connection = apsw.Connection(
            f"{path.absolute().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            stranger = schema.stranger(connection)
            damage = "" if stranger or not alone else first_damage(connection, path)
        finally:
            connection.close()
    except apsw.NotADBError:
        return "that is a file, but not a database"
    except apsw.CorruptError as error:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return "that is a file, but not a database"
        stranger, damage = "", str(error) if alone else ""
    except apsw.Error:
        return ""  # away or busy, which may pass
    if damage and _state(path) == before:  # otherwise another process is at work on it
        return f"damaged: {damage}; python -m mtserver.journal {path} --verify says more"
    return stranger


def is_looked_through(path: Path) -> bool:
    """Whether :func:`whose` looks for damage: the file is a whole without its write-ahead log, and not too large."""
    return size_of(log_path(path)) == 0 and 0 < size_of(path) <= QUICK


def first_damage(connection: apsw.Connection, path: Path) -> str:
    """What SQLite finds first when it looks through all of a file that is a whole by itself; or an empty text."""
    if size_of(path) < connection.pragma("page_count") * connection.pragma("page_size"):
        return "its end is missing"
    return quick_check(connection)


def quick_check(connection: apsw.Connection) -> str:
    """What SQLite finds first in its own structure; or an empty text."""
    found = str(connection.execute("PRAGMA quick_check(1)").get)
    return "" if found == "ok" else " ".join(found.replace("*** in database main ***", "").split())


def log_of_another(path: Path) -> str:
    """What is wrong with the write-ahead log beside a file, which SQLite would throw away or not take for one."""
    log = log_path(path)
    try:
        with log.open("rb") as file:
            header = file.read(32)
    except OSError:
        return ""  # none, or away
    if size_of(path) == 0 and header:
        return f"{log.name} has messages of a file that is gone; put it back, or move {log.name} away as well"
    # All zero, or a part of it: the power was cut when it was begun, and nothing in it was called stored.
    if len(header) == 32 and any(header) and not _is_log(header):
        return f"damaged: {log.name} is not a write-ahead log, or its beginning was overwritten; put it right or away"
    return ""


def _is_log(header: bytes) -> bool:
    """Whether that is the header of a write-ahead log, by its checksum (https://sqlite.org/fileformat2.html#walformat)."""
    magic, *_ = struct.unpack(">I", header[:4])
    if magic not in (0x377F0682, 0x377F0683):
        return False
    words = struct.unpack(">6I" if magic & 1 else "<6I", header[:24])
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return struct.pack(">2I", one, two) == header[24:]


def log_path(path: Path) -> Path:
    """The write-ahead log of a file."""
    return Path(f"{path}-wal")


def shared_path(path: Path) -> Path:
    """What those who have a file open share with each other."""
    return Path(f"{path}-shm")


def remove_leftovers(path: Path, shared: tuple[int, int] | None) -> None:
    """
    Remove what lies beside the name of a file that was moved away, its log emptied.

    Whoever still reads the moved file would share it with the new one: SQLite finds both by name.

    :param shared: by what :func:`shared_path` was known; another one is the new file's own.
    """
    if shared is not None and identity(shared_path(path)) == shared and size_of(log_path(path)) == 0:
        log_path(path).unlink(missing_ok=True)
        shared_path(path).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """In bytes; 0 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _state(path: Path) -> tuple[int, ...]:
    """What changes when somebody writes to a journal."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, size_of(log_path(path))


def open_for_writing(path: Path, *, fast: bool) -> apsw.Connection:
    """
    A connection that writes; the file is made if it is not there, and brought to this version.

    :param fast: do not wait for the disk.
    :raises NotAJournal: for a file that is something else.
    """
    wrong = log_of_another(path)
    if wrong:
        raise NotAJournal(wrong)
    made = not path.exists()
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: after a simulated power cut it kept 200 of 200 acknowledged commits, NORMAL none.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if fast else 'FULL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            wrong = schema.stranger(connection)
            if wrong:
                raise NotAJournal(wrong)
            before, now = schema.migrate(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        if before not in (0, now):
            _log.info(
                "the journal {path} was brought from version {before} to {now}", path=str(path), before=before, now=now
            )
        if not fast:
            # What a process that was killed has committed and not synced is visible by now, and will be called stored.
            if made:
                sync_log(path)
            else:
                rewrite_log(connection, path)
    except BaseException:
        connection.close()
        raise
    if made:
        # The file's name has to survive a power cut as well as its contents.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return connection


def rewrite_log(connection: apsw.Connection, path: Path) -> None:
    """
    See to it that all that has been committed so far is on disk, whatever became of the process that did.

    It is written into the database, and the log begins anew. To sync the log would not do: after an fsync that failed,
    the kernel holds pages as clean that the disk never got, for all processes, until the file system is unmounted. What
    is appended behind them is lost at the next power cut, however well that was synced.
    """
    try:
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        sync_log(path)  # another process has it open, and knows of its own failures


def sync_log(path: Path) -> None:
    """
    See to it that all that has been committed so far is on disk: for what others have committed.

    Only ever the write-ahead log, never the database: to close a descriptor of that would drop SQLite's locks (POSIX).
    """
    try:
        log = os.open(log_path(path), os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(log)
    except OSError as error:
        raise SyncError(error.errno, error.strerror) from None
    finally:
        os.close(log)


def identity(path: Path) -> tuple[int, int] | None:
    """By what a file is known, whatever its name; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
