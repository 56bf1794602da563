"""Ports of one daemon with an app and a framing of their own, tried with real clients."""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import DEADLINE
from tests.integration.server import Server, run_to_end

TABLES = """
max-clients = 3

[[listen]]
port = "tcp:0:interface=127.0.0.1"

[[listen]]
port = "tcp:0:interface=127.0.0.1"
app = "mirror:mirror"
framing = "int16"
"""
MIRROR = """
async def mirror(client, message: bytes) -> bytes:
    return message[::-1]
"""


class TestListen(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "mtserver.toml").write_text(TABLES)

    def test_two_apps(self) -> None:
        """Lines are collected at one port, frames mirrored at the other, by one process; the limit counts both."""
        options = ("--config", "mtserver.toml")
        with Server(*options, ports=(), folder=self.folder, modules={"mirror": MIRROR}) as server:
            server.wait_for_log(r"(?s)Listening on .*Listening on \S+:\d+\n")
            lines, frames = map(int, re.findall(r"Listening on 127\.0\.0\.1:(\d+)", server.log))
            sent = subprocess.run(
                ["nc", "-N", "127.0.0.1", str(lines)],
                input=b"a\nb\n",
                capture_output=True,
                timeout=DEADLINE,
                check=True,
            )
            self.assertEqual(sent.stdout, b"OK 1\nOK 2\n")
            with socket.create_connection(("127.0.0.1", frames), DEADLINE) as client:
                client.sendall(b"\0\3abc")
                self.assertEqual(client.recv(100), b"\0\3cba")
                others = [socket.create_connection(("127.0.0.1", lines), DEADLINE) for _ in range(3)]
                self.assertRegex(others[-1].recv(100), b"^ERR busy")
                for other in others:
                    other.close()

    def test_mistakes(self) -> None:
        """A mistake in a table is one line, before any port is open."""
        for table, wrong in (
            ('app = "echo"', "a table without a port"),
            ('port = 1\nfarming = "line"', "'farming' is not one of port, app, framing"),
            ('port = 1\nframing = "lines"', "no framing is called 'lines'"),
            ('port = 1\napp = "nothing"', "nothing"),
        ):
            (self.folder / "mtserver.toml").write_text(f"[[listen]]\n{table}\n")
            ended = run_to_end(self.folder, "--config", "mtserver.toml")
            self.assertEqual(ended.returncode, 1)
            self.assertIn(wrong, ended.stderr)
            self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
