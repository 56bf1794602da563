"""
The command that reads, checks and prunes a journal, also while the server runs::

    python -m mtserver.journal PATH                   prints what is in it, one line for each message
    python -m mtserver.journal PATH --follow          goes on with what comes
    python -m mtserver.journal PATH --stats | --verify | --keep 30d,10GB

What it is asked for goes to standard output, all else to standard error. Exit status: 0, 1 (it cannot, or the file is
damaged), 2 (mistakes in the words), 130 (Ctrl-C).
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

#: Seconds between two looks at a file that is followed.
POLL = 0.1
#: Milliseconds that pruning waits for a server that writes, and seconds that it leaves to it after each step, at least.
PATIENCE = 10_000
PAUSE = 0.05
#: SQLite's steps between two looks at the clock, and at Ctrl-C.
STEPS = 100_000


def main(words: list[str] | None = None) -> None:
    asked = arguments.parse(words)
    path = asked.path
    # Where a terminal cannot show a character, it is shown by its number.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if asked.keep:
            _prune(asked)
        elif asked.follow:
            _follow(asked)
        else:
            connection = reading.open_existing(path)
            try:
                action = _stats if asked.stats else _verify if asked.verify else _print
                action(asked, connection)
            finally:
                connection.close()
        if sys.stdout is not None:  # closed by whoever has started us
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has had enough. What is still to be flushed when Python ends goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (apsw.CorruptError, Damaged, UnicodeDecodeError) as error:
        raise SystemExit(f"mtserver.journal: {path}: damaged: {error}") from None
    except (ConfigurationError, OSError, apsw.Error) as error:
        text = error if isinstance(error, (ConfigurationError, OSError)) else f"{type(error).__name__}: {error}"
        raise SystemExit(f"mtserver.journal: {path}: {text}") from None


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a program for a terminal


def _tell(text: str) -> None:
    print(f"mtserver.journal: {text}", file=sys.stderr)  # noqa: T201 - the same


def _first(asked: argparse.Namespace, connection: apsw.Connection) -> int:
    """The number behind which to begin."""
    after: int = asked.after
    return after if asked.last is None else max(after, reading.before_the_last(connection, asked.last))


def _print(asked: argparse.Namespace, connection: apsw.Connection) -> None:
    written = json_line if asked.json else line
    after = _first(asked, connection)
    # What is stored from now on is for --follow: otherwise there might be no end to it.
    end = reading.position(connection)
    with Progress("looking", after, end) as progress:
        for page in reading.pages(connection, after, asked.wanted.up_to(end)):
            progress.clear()
            for record in page.records:
                _say(written(record))
            progress.at(page.after)


def _follow(asked: argparse.Namespace) -> None:
    written = json_line if asked.json else line
    connection = reading.open_existing(asked.path)
    after = _first(asked, connection)
    connection.close()
    moved = f"{asked.path} was moved or replaced; going on with the new one"
    follower = Follower(asked.path, after, asked.wanted, lambda: _tell(moved))
    pause = threading.Event()
    try:
        while True:
            records = follower.poll()
            for record in records:
                _say(written(record))
            sys.stdout.flush()
            if not records:
                pause.wait(POLL)
    finally:
        follower.close()


def _stats(asked: argparse.Namespace, connection: apsw.Connection) -> None:
    with Progress("counting", end=reading.position(connection)) as progress:
        found = summary.summarise(asked.path, connection, progress.at)
    if asked.json:
        _say(json.dumps(summary.fields(found)))
    else:
        for line in summary.lines(found):
            _say(line)


def _verify(asked: argparse.Namespace, connection: apsw.Connection) -> None:
    count = 0
    with Progress("checking") as progress:

        def at(place: int = 0) -> bool:
            progress.at(place)
            return False  # that is, go on

        connection.set_progress_handler(at, STEPS)
        for found in verify.findings(asked.path, connection, at):
            count += 1
            if count <= verify.MOST:
                progress.clear()
                _say(found)
    if count:
        raise Damaged(f"{count} findings" if count <= verify.MOST else f"more than {verify.MOST} findings")
    _say(f"ok: version {connection.pragma('user_version')}, the last number given is {reading.position(connection)}")


def _prune(asked: argparse.Namespace) -> None:
    reading.open_existing(asked.path).close()  # it is there, and a journal
    connection = open_for_writing(asked.path.absolute(), fast=False)
    connection.set_busy_timeout(PATIENCE)
    connection.transaction_mode = "IMMEDIATE"
    retention = Retention(asked.keep)
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
                    # As long as the step took belongs to the server.
                    pause.wait(max(PAUSE if step.messages else 0.0, time.monotonic() - begun))
    finally:
        connection.close()
        _say(f"{messages} messages removed ({size_text(size)})" + (f", up to number {last}" if last else ""))
        if sources:
            _say(f"{sources} sources removed, of which nothing was left")


if __name__ == "__main__":
    main()
