"""
The server under test, as a process of its own in a temporary folder.

::

    with Server("--app", "shout:shout", modules={"shout": SHOUT}) as server, server.connect() as peer:
        assert peer.exchange(b"hello") == [b"HELLO"]

It ends with the block, whatever happens in it; if that was a failure, its log is shown. Every wait has a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import SkipTest

import apsw

from .peer import DEADLINE, Peer

#: A free port on loopback; the log says which one it became.
TCP = "tcp:0:interface=127.0.0.1"
FOREGROUND = ("twistd", "-n", "--pidfile=")


def needs(tool: str, package: str) -> str:
    """The path of a program. Without it the test is skipped, but not where CI promises to have everything."""
    path = shutil.which(tool)
    if path is None:
        text = f"needs {tool}: apt-get install {package}"
        raise AssertionError(text) if os.environ.get("CI") else SkipTest(text)
    return path


def script(name: str) -> str:
    """A console script of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of `condition`, looked at a hundred times a second."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        pause.wait(0.01)
    return value


def rows(path: Path, columns: str = "seq, client, message") -> list[tuple[Any, ...]]:
    """What a journal holds, in its order, read as another process would."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(f"SELECT {columns} FROM messages ORDER BY seq").fetchall()
    finally:
        connection.close()


def write_modules(folder: Path, modules: Mapping[str, str]) -> None:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))


def run_to_end(
    folder: Path, *options: str, environment: Mapping[str, str] = {}, twistd: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to end by itself, because it cannot or should not serve."""
    return subprocess.run(
        [script("twistd"), "-n", "--pidfile=", *twistd, "mtserver", *options],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class Server:
    """
    One server process.

    :param options: of ``mtserver``.
    :param ports: its ``--port`` strings.
    :param modules: name and text of the modules to be put in its working directory.
    :param folder: its working directory, which stays; without it, a new one that goes with the server.
    :param command: what runs the plugin, with its own options; console scripts by name.
    :param prefix: a command line that runs another (``sh -c '...; exec "$@"' sh``).
    :param environment: in addition to our own.
    :param inherited: descriptors that it gets from us, by the same numbers.
    """

    def __init__(
        self,
        *options: str,
        ports: Sequence[str] = (TCP,),
        modules: Mapping[str, str] = {},
        folder: Path | None = None,
        command: Sequence[str] = FOREGROUND,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] = {},
        inherited: Sequence[int] = (),
    ) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="mtserver-"))
        write_modules(self.folder, modules)
        wanted = [word for port in ports for word in ("--port", port)]
        self._command = [*prefix, script(command[0]), *command[1:], "mtserver", *wanted, *options]
        self._environment = {**os.environ, **environment}
        self._inherited = inherited
        self._ports = len(ports)
        self._log = self.folder / "log"
        self.journal = self.folder / "mtserver.db"
        #: The port of each TCP or TLS port string, in their order.
        self.numbers: list[int] = []

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherited,
            )
        try:
            wait_until(self._is_ready, "listening")
        except BaseException:
            self._end(show=True)
            raise
        self.numbers = [int(number) for number in re.findall(r"Listening on 127\.0\.0\.1:(\d+)", self.log)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(show=kind is not None and not issubclass(kind, SkipTest))

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with status {self._process.returncode}")
        return self.log.count("Listening on ") >= self._ports

    def _end(self, *, show: bool) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE)
        if show:
            sys.stderr.write(f"--- {' '.join(self._command)}\n{self.log[-8000:]}\n---\n")
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return self.numbers[0]

    @property
    def log_bytes(self) -> bytes:
        return self._log.read_bytes()

    @property
    def log(self) -> str:
        return self.log_bytes.decode(errors="replace")

    def wait_for_log(self, pattern: str, seconds: float = DEADLINE) -> re.Match[str]:
        """The first place in the log that matches."""
        match: re.Match[str] = wait_until(lambda: re.search(pattern, self.log), f"{pattern!r} in the log", seconds)
        return match

    def connect(self, port: int | None = None) -> Peer:
        return Peer.connect(self.port if port is None else port)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal; see :meth:`wait`."""
        self._process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """The exit status, once it has ended."""
        return self._process.wait(seconds)

    def memory(self, name: str) -> int:
        """``VmRSS`` or ``VmHWM`` (the most there has been) in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak_memory(self) -> int:
        """``VmHWM`` begins anew from ``VmRSS``, which is returned."""
        if not Path("/proc/self/clear_refs").exists():
            raise SkipTest("needs Linux: memory is read from /proc")
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")
