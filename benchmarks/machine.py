"""The machine: which cores serve and which load, what it is, what its disks are. Linux only."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Files in memory: waiting for such a disk costs nothing, so that nothing durable can be measured on it.
IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True, slots=True)
class Cores:
    """Servers on one, the load on the others, so that neither takes the other's time."""

    server: frozenset[int]
    load: frozenset[int]

    @classmethod
    def split(cls, cores: set[int]) -> Cores:
        """The first core serves, which a machine with one core cannot keep from its load."""
        first, *others = sorted(cores)
        return cls(frozenset({first}), frozenset(others or [first]))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """
    Processes started within stay on these cores.

    They inherit it, threads and all; set after the start, it would miss threads that are there by then.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_files() -> None:
    """Raise the limit of open files as far as it goes, for servers and load alike; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def filesystem(folder: Path) -> str:
    """The type of the file system that a folder is on, ``ext4`` for example."""
    folder = folder.resolve()
    found, kind = Path(), "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split(" ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount))
        # The last one mounted at a place is the one that is seen.
        if folder.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, name
    return kind


def memory(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """What a process has had of processors since its start, in seconds; in ticks of usually 10 ms."""
    # The command stands in brackets and may hold anything, brackets and blanks too.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe(cores: Cores, temp: Path, programs: dict[str, list[str]]) -> dict[str, str]:
    """
    What a reader must know to judge the numbers.

    :param programs: the command that tells a program's version, by the program's name.
    """
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    facts = {
        "processor": f"{found[1] if found else platform.machine()}, {len(cores.server | cores.load)} cores used",
        "cores": _describe_cores(cores),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.release()}",
        "disk": filesystem(temp),
        "Python": platform.python_version(),
    }
    for name in ("mtserver", "twisted", "uvloop", "gevent"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[name] = importlib.metadata.version(name)
    for name, command in programs.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            # Whatever its status: mosquitto has no option for its version alone.
            told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
            version = re.search(r"\d+(\.\d+)+", told)
            facts[name] = version[0] if version else "unknown"
    return facts


def _describe_cores(cores: Cores) -> str:
    if cores.server & cores.load:
        return "server and load share the only core: expect little of the numbers"
    (server,) = cores.server
    text = f"server on {server}, load on {', '.join(map(str, sorted(cores.load)))}"
    siblings = Path(f"/sys/devices/system/cpu/cpu{server}/topology/thread_siblings_list")
    with contextlib.suppress(OSError):
        if re.search(r"[,-]", siblings.read_text()):
            text += f" (hardware threads {siblings.read_text().strip()} share a core)"
    return text
