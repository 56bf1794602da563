"""A wall clock that is set, with libfaketime in the server's process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .peer import Peer
from .server import Server, wait_until

NOW = {
    "clock": """
        import time

        async def now(client, message: bytes) -> bytes:
            return b"%d" % time.time()
    """
}
HOUR = 3600


def faketime() -> str:
    places = [
        *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
        *Path("/usr").glob("lib*/faketime/libfaketime.so.1"),
    ]
    if not places:
        text = "needs libfaketime: apt-get install libfaketime"
        raise AssertionError(text) if os.environ.get("CI") else SkipTest(text)
    return str(places[0])


class TestClock(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.offset = self.folder / "offset"
        self.environment = {
            "LD_PRELOAD": faketime(),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._set(0)

    def _set(self, offset: int) -> None:
        self._offset = offset
        # In one step: the server reads the file at every look at the clock.
        new = self.folder / "offset.new"
        new.write_text(f"{offset:+d}\n")
        new.replace(self.offset)

    def _server(self, *options: str) -> Server:
        return Server("--app", "clock:now", *options, modules=NOW, folder=self.folder, environment=self.environment)

    def _jump(self, peer: Peer, offset: int) -> None:
        """Set the clock, and see that the server's does follow."""
        before = int(peer.exchange(b"?")[0])
        self._set(self._offset + offset)
        wait_until(lambda: abs(int(peer.exchange(b"?")[0]) - before - offset) < HOUR / 2, "the clock to be set")

    def test_an_hour_forward(self) -> None:
        """No deadline passes early: with --idle-timeout 600 an idle client is still there after the next sweeps."""
        with (
            self._server("--idle-timeout", "600", "--message-timeout", "1") as server,
            server.connect() as idle,
            server.connect() as other,
        ):
            self.assertTrue(idle.exchange(b"?")[0].isdigit())
            # A sweep before the jump too, so that what it knows of the idle client is from then.
            self._sweep(server)
            self._jump(other, HOUR)
            self._sweep(server)
            self.assertTrue(idle.exchange(b"?")[0].isdigit())

    def _sweep(self, server: Server) -> None:
        """With --message-timeout 1: see the deadlines looked at, by somebody who misses one."""
        with server.connect() as slow:
            slow.send(b"unfinished")
            self.assertRegex(slow.rest(), rb"\AERR timeout ")

    def test_an_hour_back(self) -> None:
        """Deadlines go on: with --idle-timeout 2 an idle client is closed in time, not an hour later."""
        with (
            self._server("--idle-timeout", "2") as server,
            server.connect() as idle,
            server.connect() as other,
        ):
            self.assertTrue(idle.exchange(b"?")[0].isdigit())
            self._jump(other, -HOUR)
            self.assertRegex(idle.rest(), rb"\AERR idle ")

    def test_handlers_that_wait(self) -> None:
        """Somebody who waits in ``asyncio.sleep`` waits no shorter and no longer."""
        modules = {
            **NOW,
            "waits": """
                import asyncio
                from clock import now

                async def waits(client, message: bytes) -> bytes:
                    if message == b"?":
                        return await now(client, message)
                    client.send(b"waiting")
                    await asyncio.sleep(float(message))
                    return b"done"
            """,
        }
        with (
            Server("--app", "waits:waits", modules=modules, folder=self.folder, environment=self.environment) as server,
            server.connect() as short,
            server.connect() as long,
            server.connect() as other,
        ):
            self.assertEqual(short.exchange(b"2"), [b"waiting"])
            self.assertEqual(long.exchange(b"1000"), [b"waiting"])
            self._jump(other, -HOUR)
            self.assertEqual(short.line(), b"done")
            self._jump(other, HOUR)
            self.assertEqual(other.exchange(b"0.5"), [b"waiting"])
            self.assertEqual(other.line(), b"done")
            long.socket.settimeout(0.1)
            self.assertRaises(TimeoutError, long.line)
