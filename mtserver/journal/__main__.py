"""
Command that reads, checks and prunes a journal, also while the server runs::

    python -m mtserver.journal PATH                   prints what is in it, one line for each message
    python -m mtserver.journal PATH --follow          goes on with what comes
    python -m mtserver.journal PATH --stats | --verify | --keep 30d,10GB

Results go to standard output, all else to standard error. Exit status: 0, 1 (failure, or a damaged file), 2 (mistakes
in the arguments), 130 (Ctrl-C).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time

import apsw

from mtserver.errors import ConfigurationError
from mtserver.journal.command import arguments, summary
from mtserver.journal.command.follow import Follower
from mtserver.journal.command.format import json_line, line, size_text
from mtserver.journal.command.progress import Progress
from mtserver.journal.sqlite import reading, verify
from mtserver.journal.sqlite.file import Damaged, open_for_writing
from mtserver.journal.sqlite.retention import Retention

#: Seconds between two polls of a file that is followed.
POLL_INTERVAL = 0.1
#: Milliseconds that pruning waits for a server that writes.
BUSY_TIMEOUT = 10_000
#: Seconds that pruning leaves to the server after each step, at least.
PAUSE = 0.05
#: Steps of SQLite's machine between two updates of the progress, and chances for Ctrl-C.
STEPS = 100_000


def main(words: list[str] | None = None) -> None:
    options = arguments.parse(words)
    path = options.path
    # Characters that the terminal's encoding lacks are printed as escapes.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if options.keep:
            _prune(options)
        elif options.follow:
            _follow(options)
        else:
            connection = reading.open_existing(path)
            try:
                action = _stats if options.stats else _verify if options.verify else _print
                action(options, connection)
            finally:
                connection.close()
        if sys.stdout is not None:  # None if it was closed before the start
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe, head say, has ended. Python's own flush at exit must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (apsw.CorruptError, Damaged, UnicodeDecodeError) as error:
        raise SystemExit(f"mtserver.journal: {path}: damaged: {error}") from None
    except (ConfigurationError, OSError, apsw.Error) as error:
        text = error if isinstance(error, (ConfigurationError, OSError)) else f"{type(error).__name__}: {error}"
        raise SystemExit(f"mtserver.journal: {path}: {text}") from None


def _write(text: str) -> None:
    print(text)  # noqa: T201 - a program for a terminal


def _warn(text: str) -> None:
    print(f"mtserver.journal: {text}", file=sys.stderr)  # noqa: T201 - the same


def _start(options: argparse.Namespace, connection: apsw.Connection) -> int:
    """Return the sequence number behind which to begin."""
    after: int = options.after
    return after if options.last is None else max(after, reading.before_the_last(connection, options.last))


def _print(options: argparse.Namespace, connection: apsw.Connection) -> None:
    written = json_line if options.json else line
    after = _start(options, connection)
    # Messages that are stored from now on are left to --follow: otherwise there might be no end.
    end = reading.position(connection)
    with Progress("looking", after, end) as progress:
        for page in reading.pages(connection, after, options.wanted.up_to(end)):
            progress.clear()
            for record in page.records:
                _write(written(record))
            progress.at(page.after)


def _follow(options: argparse.Namespace) -> None:
    written = json_line if options.json else line
    connection = reading.open_existing(options.path)
    after = _start(options, connection)
    connection.close()
    moved = f"{options.path} was moved or replaced; going on with the new one"
    follower = Follower(options.path, after, options.wanted, lambda: _warn(moved))
    pause = threading.Event()
    try:
        while True:
            records = follower.poll()
            for record in records:
                _write(written(record))
            sys.stdout.flush()
            if not records:
                pause.wait(POLL_INTERVAL)
    finally:
        follower.close()


def _stats(options: argparse.Namespace, connection: apsw.Connection) -> None:
    with Progress("counting", end=reading.position(connection)) as progress:
        found = summary.summarise(options.path, connection, progress.at)
    if options.json:
        _write(json.dumps(summary.fields(found)))
    else:
        for line in summary.lines(found):
            _write(line)


def _verify(options: argparse.Namespace, connection: apsw.Connection) -> None:
    count = 0
    with Progress("checking") as progress:

        def at(place: int = 0) -> bool:
            progress.at(place)
            return False  # a true value would interrupt SQLite

        connection.set_progress_handler(at, STEPS)
        for found in verify.findings(options.path, connection, at):
            count += 1
            if count <= verify.MOST:
                progress.clear()
                _write(found)
    if count:
        raise Damaged(f"{count} findings" if count <= verify.MOST else f"more than {verify.MOST} findings")
    _write(f"ok: version {connection.pragma('user_version')}, the last number given is {reading.position(connection)}")


def _prune(options: argparse.Namespace) -> None:
    reading.open_existing(options.path).close()  # fails if there is no journal, which the next line would create
    connection = open_for_writing(options.path.absolute(), fast=False)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    connection.transaction_mode = "IMMEDIATE"
    retention = Retention(options.keep)
    messages = size = last = sources = 0
    pause = threading.Event()
    try:
        with Progress("removing", reading.before_the_first(connection), reading.position(connection)) as progress:
            more = True
            while more:
                begun = time.monotonic()
                with connection:
                    step = retention.step(connection, time.time())
                retention.committed(step)
                messages, size, sources = messages + step.messages, size + step.bytes, sources + step.sources
                last = step.last or last
                more = step.more or retention.is_sweeping
                progress.at(step.last)
                if more:
                    # The server gets as much time as the step took.
                    pause.wait(max(PAUSE if step.messages else 0.0, time.monotonic() - begun))
    finally:
        connection.close()
        _write(f"{messages} messages removed ({size_text(size)})" + (f", up to number {last}" if last else ""))
        if sources:
            _write(f"{sources} sources removed, of which nothing was left")


if __name__ == "__main__":
    main()
