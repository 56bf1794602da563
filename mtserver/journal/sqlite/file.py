"""
Journal file: recognised before anything writes to it, opened, migrated, synced, and told from another of its name.

Laws:

* A file that is not a journal, or is damaged, is refused with the reason, and stays as it is.
* A write-ahead log is never thrown away, not even one whose file is gone, or one that is damaged.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import apsw
from twisted.logger import Logger

from mtserver.journal.sqlite import schema

#: Milliseconds to wait for another process that has the file locked before the journal counts as unavailable.
BUSY_TIMEOUT = 1000

#: Bytes of a file that is checked for damage before the server starts. SQLite's check takes 0.4 to 1 s for 1 GB.
QUICK = 256 * 1024 * 1024

_log = Logger("mtserver.journal")


class NotAJournal(OSError):
    """Error when a file is not a journal, or not one that this version can use."""


class Damaged(OSError):
    """Error when a journal does not contain what was put into it."""


class SyncError(OSError):
    """Error when what was written may not be on disk."""


def is_loss(error: Exception) -> bool:
    """
    Whether something was lost on its way to the disk: a failed fsync, ours or SQLite's.

    After a failed fsync the kernel may hold pages as clean that never reached the disk, so a second fsync, also through
    a new descriptor, proves nothing (LWN 752063, "PostgreSQL's fsync() surprise").
    """
    return isinstance(error, SyncError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC


def file_problem(path: Path) -> str:
    """
    Return what lasting reason keeps a file from being a journal; empty if there is none.

    Damage is looked for only in a file that :func:`is_checked_at_start`.
    """
    wrong = log_problem(path)
    if wrong or size_of(path) == 0:
        return wrong  # an empty file becomes a journal
    alone = is_checked_at_start(path)
    before = _fingerprint(path)
    try:
        # "immutable" needs no lock and no side file: the check leaves no trace, and twistd may fork after it.
        connection = apsw.Connection(
            f"{path.absolute().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            stranger = schema.problem(connection)
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
    if damage and _fingerprint(path) == before:  # otherwise another process is at work on it
        return f"damaged: {damage}; python -m mtserver.journal {path} --verify says more"
    return stranger


def is_checked_at_start(path: Path) -> bool:
    """Whether :func:`file_problem` looks for damage: in a file without a write-ahead log that is not too large."""
    return size_of(log_path(path)) == 0 and 0 < size_of(path) <= QUICK


def first_damage(connection: apsw.Connection, path: Path) -> str:
    """Return the first damage in a file without a write-ahead log; empty if there is none."""
    if size_of(path) < connection.pragma("page_count") * connection.pragma("page_size"):
        return "its end is missing"
    return quick_check(connection)


def quick_check(connection: apsw.Connection) -> str:
    """Return the first damage that SQLite finds in its own structures; empty if there is none."""
    found = str(connection.execute("PRAGMA quick_check(1)").get)
    return "" if found == "ok" else " ".join(found.replace("*** in database main ***", "").split())


def log_problem(path: Path) -> str:
    """Return what is wrong with the write-ahead log beside a file, where SQLite would drop or ignore it."""
    log = log_path(path)
    try:
        with log.open("rb") as file:
            header = file.read(32)
    except OSError:
        return ""  # none, or away
    if size_of(path) == 0 and header:
        return f"{log.name} has messages of a file that is gone; put it back, or move {log.name} away as well"
    # A header of zeros, or a part of one: the power was cut when the log was begun; nothing in it was acknowledged.
    if len(header) == 32 and any(header) and not _is_log(header):
        return f"damaged: {log.name} is not a write-ahead log, or its beginning was overwritten; put it right or away"
    return ""


def _is_log(header: bytes) -> bool:
    """Whether this is the header of a write-ahead log, by its checksum (https://sqlite.org/fileformat2.html#walformat)."""
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
    """Path of a file's write-ahead log."""
    return Path(f"{path}-wal")


def shared_path(path: Path) -> Path:
    """Path of the shared memory of all connections to a file."""
    return Path(f"{path}-shm")


def remove_leftovers(path: Path, shared: tuple[int, int] | None) -> None:
    """
    Remove the log (emptied before) and the shared memory of a file that was moved away.

    SQLite finds both by name, so readers of the moved file would share them with writers of the new one.

    :param shared: inode of the moved file's shared memory; another one belongs to the new file.
    """
    if shared is not None and inode_of(shared_path(path)) == shared and size_of(log_path(path)) == 0:
        log_path(path).unlink(missing_ok=True)
        shared_path(path).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Return values of which one changes when somebody writes to a journal."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, size_of(log_path(path))


def open_for_writing(path: Path, *, fast: bool) -> apsw.Connection:
    """
    Open a connection that writes; create the file if there is none, and migrate it to this version.

    :param fast: commits return before the disk has synced.
    :raises NotAJournal: if the file is something else.
    """
    wrong = log_problem(path)
    if wrong:
        raise NotAJournal(wrong)
    is_new = not path.exists()
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: after a simulated power cut it kept 200 of 200 acknowledged commits, NORMAL none.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if fast else 'FULL'}")
        _migrate(connection, path)
        if not fast:
            # Commits that a killed process has not synced are visible by now, and would be acknowledged as duplicates.
            if is_new:
                sync_log(path)
            else:
                rewrite_log(connection, path)
    except BaseException:
        connection.close()
        raise
    if is_new:
        _sync_folder(path.parent)
    return connection


def _migrate(connection: apsw.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        wrong = schema.problem(connection)
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


def _sync_folder(path: Path) -> None:
    """Sync a folder, so that the names of new files in it survive a power cut."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def rewrite_log(connection: apsw.Connection, path: Path) -> None:
    """
    Put all commits of earlier processes on disk: copy the log into the database, and restart it.

    Syncing the log would not do. After an fsync that failed in another process, the kernel holds pages of it as clean
    that the disk never got, until the file system is unmounted. A power cut then loses what was appended behind them,
    however well that was synced.
    """
    try:
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        sync_log(path)  # another process has the file open, and knows of its own failed syncs


def sync_log(path: Path) -> None:
    """
    Sync the write-ahead log, with the commits of other processes that did not.

    The database must not be synced like this: closing a descriptor of it would drop SQLite's locks (POSIX).
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


def inode_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which tell a file from another of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
