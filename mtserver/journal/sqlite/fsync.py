"""
fsync of a database through SQLite's own descriptor.

A checkpoint syncs the database only when it has caught up with the log. A checkpoint that lags behind a busy writer
never does, and would leave all its pages to the last one, for which a commit waits. A second descriptor is out of the
question: closing it would drop SQLite's locks (POSIX). So this calls ``xSync`` of SQLite's file object
(https://sqlite.org/c3ref/io_methods.html), which apsw does not expose.
"""

from __future__ import annotations

import ctypes

import apsw

from mtserver.journal.sqlite.file import SyncError


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods`` up to ``xSync``."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("xClose", ctypes.c_void_p),
        ("xRead", ctypes.c_void_p),
        ("xWrite", ctypes.c_void_p),
        ("xTruncate", ctypes.c_void_p),
        ("xSync", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)),
    )


class _File(ctypes.Structure):
    """``sqlite3_file``."""

    _fields_ = (("pMethods", ctypes.POINTER(_Methods)),)


def flush(connection: apsw.Connection) -> None:
    """
    Wait until what this connection has written into its database is on disk.

    :raises SyncError: if it may not be.
    """
    pointer = ctypes.c_void_p()
    connection.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(pointer))
    file = ctypes.cast(pointer, ctypes.POINTER(_File))
    result = file.contents.pMethods.contents.xSync(pointer, apsw.SQLITE_SYNC_NORMAL)
    if result != apsw.SQLITE_OK:
        raise SyncError(result, "the database could not be flushed")
