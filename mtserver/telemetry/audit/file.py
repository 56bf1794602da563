"""
The file of ``--audit-log``: one JSON object per line, appended whole, in the order of events.

Laws:

* It is made with mode 0600. One that is there keeps its mode, but others must not be able to write to it.
* A file that was moved away is made anew with the next event, so whoever rotates it tells nobody.
* Each line is one write. What cannot be written (a full disk) is said in the ordinary log, counted, and stops nobody;
  a line cut in its middle is ended before the next one.
* ASCII without control characters: no field can forge a line, or drive the terminal that shows it.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from mtserver.errors import ConfigurationError
from mtserver.telemetry import audit
from mtserver.telemetry.events import LOST, Event

#: Characters of one text, at most: a line is bounded, whatever its fields quote.
TEXT_SIZE = 1000

_log = Logger("mtserver")


def check_audit_log(path: str) -> None:
    """:class:`~mtserver.errors.ConfigurationError` for a file that cannot be an audit log. Leaves no trace."""
    file = Path(path)
    if file.is_symlink():
        raise ConfigurationError(f"--audit-log {path}: that is a symbolic link")
    if file.is_dir():
        raise ConfigurationError(f"--audit-log {path}: that is a folder")
    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"--audit-log {path}: there is no folder {file.parent}")
    if file.exists() and stat.S_ISREG(file.stat().st_mode) and file.stat().st_mode & 0o022:
        raise ConfigurationError(f"--audit-log {path}: others may write to it (chmod go-w)")


def format_line(event: Event, fields: Mapping[str, Any], when: float) -> bytes:
    """
    An event as a line of the file: ``time`` (RFC 3339, UTC), ``event``, and its fields.

    :param when: it happened, in seconds since the epoch.
    """
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds"),
        "event": event.name,
    }
    for name, value in fields.items():
        if name not in line:
            line[name] = _plain(value)
    return json.dumps(line, ensure_ascii=True).encode() + b"\n"  # all but printable ASCII is escaped, DEL too


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):  # JSON has no nan and no infinity
        return value
    return str(value)[:TEXT_SIZE]


class AuditFile:
    """
    A subscriber that appends the events it is told of.

    :param path: made if it is not there. Its folder has to be.

    Raises ``OSError`` where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        # Absolute, since the working directory may change under a daemon.
        self._path = Path(path).absolute()
        self._file = -1
        self._lost = 0
        #: The last line lacks its end.
        self._is_cut = False
        self._open()

    def __call__(self, event: Event, fields: Mapping[str, Any]) -> None:
        now = time.time()
        try:
            if not self._is_there():
                self._open()
            if self._lost:
                self._append(format_line(LOST, {"count": self._lost}, now))
                _log.warn("the audit log is written again; {count} events are not in it", count=self._lost)
                self._lost = 0
            self._append(format_line(event, fields, now))
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                _log.error("the audit log cannot be written, its events come here: {why}", why=str(error))
            _log.warn("audit: {text}", text=audit.line(event, fields))

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _is_there(self) -> bool:
        """Whether the path still names the file that is open."""
        try:
            return self._file >= 0 and os.path.samestat(self._path.lstat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        # Not followed to a terminal, nor waiting for the reader of a pipe.
        # Nor through a link, which somebody else may have put there for what it points to.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
        opened = os.open(self._path, flags, 0o600)
        found = os.fstat(opened)
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o022:
            os.close(opened)
            raise PermissionError(f"others may write to {self._path}")
        self.close()
        self._file, self._is_cut = opened, False

    def _append(self, line: bytes) -> None:
        if self._is_cut:
            line = b"\n" + line
        written = os.write(self._file, line)
        if written < len(line):
            # A full disk refuses the rest, too. If it does not, the line is whole after all.
            self._is_cut = True
            line = line[written:]
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError("only a part of the line could be written")
        self._is_cut = False
