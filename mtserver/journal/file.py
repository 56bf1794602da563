"""One journal file: recognised before it is touched, opened, brought forward, and noticed if it is moved."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
from twisted.logger import Logger

from mtserver.journal import schema

#: Milliseconds to wait for another process that has the file locked before saying that the journal is unavailable.
BUSY_TIMEOUT = 1000

_log = Logger("mtserver.journal")


class NotAJournal(OSError):
    """There is something at this place that is not a journal, or not one that this version can use."""


class SyncError(OSError):
    """What has been written may not be on disk."""


def is_loss(error: Exception) -> bool:
    """Whether something was lost on its way to the disk: a failed fsync, ours or SQLite's."""
    return isinstance(error, SyncError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC


def whose(path: Path) -> str:
    """What is wrong with an existing file that is to be a journal, for good; an empty text if nothing is."""
    try:
        # As it is on disk, without a lock or a side file: a look leaves no trace, and a process may fork after it.
        connection = apsw.Connection(
            f"{path.absolute().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            return schema.stranger(connection)
        finally:
            connection.close()
    except apsw.NotADBError:
        return "that is a file, but not a database"
    except apsw.Error:
        return ""  # away or busy, which may pass


def open_for_writing(path: Path, *, fast: bool) -> apsw.Connection:
    """
    A connection that writes; the file is made if it is not there, and brought to this version.

    :param fast: do not wait for the disk.
    :raises NotAJournal: for a file that is something else.
    """
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
        log = os.open(f"{path}-wal", os.O_RDONLY)
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
