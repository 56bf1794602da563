"""The benchmarks' servers are processes, and all of them end with their measurement, whatever happens in it."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import machine, servers
from benchmarks.workloads import LINE, Beside, Entry, Probe

SERVE = "{python} -m http.server --bind 127.0.0.1"
BESIDE = (Beside(f"{SERVE} {{other_port}}", "other_port"), Beside(f"{SERVE} {{nats_port}}", "nats_port"))


class Servers(SynchronousTestCase):
    def setUp(self) -> None:
        tools: dict[str, servers.Tool] = {"python": Path(sys.executable), "openssl": "not needed"}
        cores = machine.Cores.split(os.sched_getaffinity(0))
        self.bench = servers.Bench(tools, cores, Path(tempfile.gettempdir()))
        self.addCleanup(self.bench.__exit__)
        found = servers.free_ports()
        self.ports = {name: str(next(found)) for name in ("port", "other_port", "nats_port")}

    def start(self, probe: Probe | None = None, command: str = f"{SERVE} {{port}}") -> list[int]:
        """The processes, which by then have ended."""
        with self.bench._servers(Entry("mtserver", command, probe, beside=BESIDE), self.ports) as running:
            self.assertTrue(all(process.poll() is None for process in running))
        self.assertTrue(all(process.poll() is not None for process in running))
        return [process.pid for process in running]

    def nobody_listens(self) -> None:
        for port in self.ports.values():
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int(port)), 1)

    def test_end(self) -> None:
        """The server and what runs beside it run together, and are gone together."""
        self.assertEqual(len(set(self.start())), 3)
        self.nobody_listens()

    def test_failure(self) -> None:
        """A server that answers wrongly or ends at once takes with it what runs beside it."""
        with self.assertRaises(servers.MeasurementError):
            self.start(LINE)
        self.nobody_listens()
        with self.assertRaises(servers.MeasurementError):
            self.start(command="{python} -c pass")
        self.nobody_listens()
