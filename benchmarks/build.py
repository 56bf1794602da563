"""
Compiles what the benchmarks need beside Python: the load generator and the peers in C and Go.

A compiler that is missing costs its programs, not the whole run: in place of a path there is then the reason, which
the harness prints where the numbers would stand. A compiler that is there and fails is a defect and raises. Works
offline. Knows nothing of what is measured.

    python benchmarks/build.py [FOLDER]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: No -march=native: the numbers are to be compared between machines.
C_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")


def build(out: Path) -> dict[str, Path | str]:
    """The program of each name (`load`, `echo_epoll`, `go`) in `out`, or why there is none."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    return {"load": _build_load(out), "echo_epoll": _build_echo_epoll(out), "go": _build_go(out)}


def _build_load(out: Path) -> Path | str:
    sources = sorted((HERE / "load").glob("*.[ch]"))
    if not _is_stale(out / "load", sources):
        return out / "load"
    gcc = shutil.which("gcc")
    if gcc is None:
        return "gcc is not installed"
    # Asked of the compiler, which alone knows where it looks.
    header = [gcc, "-E", "-x", "c", "-o", os.devnull, "-"]
    if _run(header, source="#include <openssl/ssl.h>\n").returncode != 0:
        return "OpenSSL's headers are not installed (libssl-dev)"
    files = [str(source) for source in sources if source.suffix == ".c"]
    return _compile([gcc, *C_FLAGS, *files, "-lssl", "-lcrypto"], out / "load")


def _build_echo_epoll(out: Path) -> Path | str:
    source = HERE / "peers" / "echo_epoll.c"
    if not _is_stale(out / "echo_epoll", [source]):
        return out / "echo_epoll"
    gcc = shutil.which("gcc")
    if gcc is None:
        return "gcc is not installed"
    return _compile([gcc, *C_FLAGS, str(source)], out / "echo_epoll")


def _build_go(out: Path) -> Path | str:
    folder = HERE / "peers" / "go"
    if not _is_stale(out / "peers", [folder / "go.mod", *folder.glob("*.go")]):
        return out / "peers"
    go = shutil.which("go")
    if go is None:
        return "go is not installed"
    # There is nothing to download, and GOTOOLCHAIN keeps a newer Go from fetching another; with these two folders it
    # needs no $HOME, and without cgo no C compiler.
    offline = {
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(out / "go-cache"),
        "GOPATH": str(out / "go-path"),
        "CGO_ENABLED": "0",
    }
    return _compile([go, "build"], out / "peers", folder=folder, environment=offline)


def _is_stale(program: Path, sources: Iterable[Path]) -> bool:
    if not program.exists():
        return True
    built = program.stat().st_mtime
    return any(source.stat().st_mtime > built for source in sources)


def _compile(
    command: list[str], program: Path, *, folder: Path = HERE, environment: Mapping[str, str] | None = None
) -> Path:
    # Under another name until it is whole: an interrupted build must not look like a fresh one, and a program that
    # is running cannot be written to.
    unfinished = program.with_name(program.name + ".unfinished")
    result = _run([*command, "-o", str(unfinished)], folder=folder, environment=environment)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} cannot build {program.name}:\n{result.stderr}")
    unfinished.replace(program)
    return program


def _run(
    command: list[str], *, source: str = "", folder: Path = HERE, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=source,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "build" / "benchmarks"
    for name, program in build(target).items():
        print(f"{name}: {program}")
