"""
The journal through 200 kills and 100 power cuts in mid-load, and what a broken one would lose.

Several lanes run at the same time, each with a journal and clients of its own, since most of the time goes into
starting servers.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import apsw
from twisted.trial.unittest import SynchronousTestCase

from .disk import Disk
from .load import Load, origin
from .server import Server, rows

KILLS = 200
CUTS = 100
#: Messages at the power cuts that may lose something.
FAST_CUTS = 8
#: Attempts, at most, until a break is seen.
ATTEMPTS = 5

#: A server that is killed has nothing to say about coverage, and starts faster without.
PLAIN = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


class Lane(NamedTuple):
    """How one journal is used."""

    name: str
    ids: bool = False
    fast: bool = False
    #: A root of packages that comes before all others.
    package: Path | None = None

    def server(self, folder: Path, journal: Path) -> Server:
        options = ["--journal", f"sqlite:{journal}{'?durability=fast' if self.fast else ''}"]
        options += ["--ack", "accepted"] if self.fast else []
        options += ["--message-ids"] if self.ids else []
        environment = PLAIN if self.package is None else {**PLAIN, "PYTHONPATH": str(self.package)}
        return Server(*options, folder=folder, environment=environment)


def stored(journal: Path) -> dict[int, tuple[str, int]]:
    """Return client and message by number, from a journal that may not have come to be."""
    try:
        return {sequence: origin(message) for sequence, message in rows(journal, "seq, message")}
    except (apsw.CantOpenError, apsw.SQLError):
        return {}


def lost(load: Load, journal: Path) -> list[int]:
    """The numbers that were acknowledged, and do not stand for that message."""
    found = stored(journal)
    return [number for number, message in load.acknowledged.items() if found.get(number) != message]


def check_order(load: Load, journal: Path) -> None:
    """Each client's messages stand in the order in which it sent them, and each once; with ids, all of them."""
    counts: dict[str, list[int]] = {name: [] for name in load.names}
    for name, count in stored(journal).values():
        counts[name].append(count)
    for name, sent in zip(load.names, load.sent, strict=True):
        assert counts[name] == sorted(set(counts[name])), f"{name} is not in its order, or not once"
        if load.ids:
            assert counts[name] == list(range(sent)), f"not all of {name}"


def is_sound(journal: Path) -> bool:
    # Only read, so that it is the server that recovers it.
    with contextlib.closing(apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return bool(connection.pragma("integrity_check") == "ok")


def finish(lane: Lane, load: Load, folder: Path, journal: Path) -> None:
    """Let everybody have an answer to everything, and the server end as it should."""
    with lane.server(folder, journal) as server:
        with load.connect(server.port) as talk:
            talk.listen(until_answered=True)
        server.stop()
        assert server.wait() == 0


def kill(lane: Lane, folder: Path, times: int) -> Load:
    """Kill the server so many times in mid-load. Returns the load behind it."""
    chance, journal = random.Random(lane.name), folder / "journal.db"
    load = Load(lane.name, ids=lane.ids)
    for _ in range(times):
        with lane.server(folder, journal) as server, load.connect(server.port) as talk:
            talk.go_on(chance.randrange(300))
            server.stop(signal.SIGKILL)
            talk.listen()
            assert server.wait() == -signal.SIGKILL
    return load


def cut(lane: Lane, disk: Disk, folder: Path, times: int) -> tuple[Load, int]:
    """
    Cut the disk's power so many times in mid-load. The file has to be sound, and who was refused is not told OK.

    Returns the load behind it, and how many acknowledged messages are lost.
    """
    chance, journal = random.Random(lane.name), disk.folder / "journal.db"
    load = Load(lane.name, ids=lane.ids, size=1000)
    missing = 0
    for _ in range(times):
        with lane.server(folder, journal) as server, load.connect(server.port) as talk:
            talk.go_on(chance.randrange(300))
            # Whatever comes after the cut no machine could have sent. (It does happen: the kernel tells a sync that was
            # under way when the file system was shut down that all is well.)
            talk.doubt()
            disk.cut()
            talk.go_on_until_refused()
            server.stop(signal.SIGKILL)
            talk.listen()
            server.wait()
        disk.remount()
        gone = lost(load, journal)
        missing += len(gone)
        for number in gone:
            del load.acknowledged[number]
        assert not journal.exists() or is_sound(journal)
    return load, missing


def hasty(folder: Path) -> Path:
    """A folder for a server's PYTHONPATH with which its journal waits for no disk."""
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            from mtserver.journal.sqlite import file

            right = file.open_for_writing

            def wrong(path, *, fast):
                connection = right(path, fast=fast)
                connection.execute("PRAGMA synchronous = OFF")
                return connection

            file.open_for_writing = wrong
            """
        )
    )
    return folder


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def run_lanes(self, lanes: Sequence[Lane], run: Callable[[Lane], None]) -> None:
        """Run each in a thread; the first failure is raised."""
        with ThreadPoolExecutor(len(lanes)) as pool:
            for outcome in [pool.submit(run, lane) for lane in lanes]:
                outcome.result()


class TestKills(Case):
    def test_kills(self) -> None:
        """200 times kill -9 in mid-load: every OK that was read is true, in order; with ids, all is there once."""
        lanes = [Lane("plain"), Lane("ids", ids=True), Lane("more-ids", ids=True), Lane("fast", ids=True, fast=True)]

        def run(lane: Lane) -> None:
            folder = self.place(lane.name)
            times = KILLS // len(lanes)
            load, journal = kill(lane, folder, times), folder / "journal.db"
            self.assertGreater(load.interrupted, times * 0.8, "they came too late to prove anything")
            finish(lane, load, folder, journal)
            self.assertEqual(lost(load, journal), [])
            check_order(load, journal)
            self.assertTrue(is_sound(journal))
            self.assertEqual(load.duplicates > 0, lane.ids)

        self.run_lanes(lanes, run)


class TestPowerCuts(Case):
    def test_cuts(self) -> None:
        """100 power cuts in mid-load: every OK that was read is true, and the file is sound; with ids, all is once."""
        lanes = [Lane("plain"), Lane("more"), Lane("ids", ids=True), Lane("more-ids", ids=True)]

        def run(lane: Lane) -> None:
            folder = self.place(lane.name)
            with Disk(folder) as disk:
                load, missing = cut(lane, disk, folder, CUTS // len(lanes))
                self.assertEqual(missing, 0)
                finish(lane, load, folder, disk.folder / "journal.db")
                self.assertEqual(lost(load, disk.folder / "journal.db"), [])
                check_order(load, disk.folder / "journal.db")

        self.run_lanes(lanes, run)

    def test_fast(self) -> None:
        """A power cut may cost acknowledged messages of ``durability=fast``, but never the file."""
        lane, folder = Lane("fast", fast=True), self.place("fast")
        with Disk(folder) as disk:
            cut(lane, disk, folder, FAST_CUTS)

    def test_commits_that_do_not_wait_for_the_disk(self) -> None:
        """The same load notices a journal that is not synced."""
        lane, folder = Lane("hasty", package=hasty(self.place("broken"))), self.place("hasty")
        with Disk(folder) as disk:
            for _ in range(ATTEMPTS):
                if cut(lane, disk, folder, 1)[1]:
                    return
        self.fail("nothing was lost")
