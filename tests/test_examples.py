"""Every example is executed: here, and those that need a server of their own in the integration tests."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mtserver.testing import Harness
from tests.msgspeccase import words_of_msgspec

EXAMPLES = Path(__file__).parent.parent / "examples"


class Examples(SynchronousTestCase):
    def module(self, name: str) -> Any:
        self.patch(sys, "path", [str(EXAMPLES), *sys.path])
        self.addCleanup(sys.modules.pop, name, None)
        return importlib.import_module(name)

    def test_short(self) -> None:
        """None has more than 30 lines, its docstring not counted; but a few, whose empty ones do not count."""
        most = {"sender.py": 60, "sender_twisted.py": 85, "three_nodes.py": 60}
        for path in EXAMPLES.glob("*.py"):
            code = path.read_text().split('"""', 2)[2].strip().splitlines()
            counted = [line for line in code if line] if path.name in most else code
            self.assertLessEqual(len(counted), most.get(path.name, 30), path.name)

    def test_shout(self) -> None:
        """The upper-casing echo."""
        client = Harness(self.module("shout").shout).connect()
        client.send(b"hello")
        self.assertEqual(client.received, [b"HELLO"])

    def test_till(self) -> None:
        """The per-client counter, by its own tests, which are the tested handler."""
        self.addCleanup(sys.modules.pop, "till", None)
        tests = self.module("test_till")
        names = [name for name in dir(tests) if name.startswith("test_")]
        self.assertEqual(len(names), 3)
        for name in names:
            getattr(tests, name)()

    def test_station(self) -> None:
        """Typed messages."""
        station = self.module("station")
        cold = words_of_msgspec({"type": "Reading", "celsius": -300}, station.Reading)
        client = Harness(station.station).connect()
        client.send({"type": "Ask"}, {"type": "Reading", "celsius": 20}, {"type": "Reading", "celsius": 23})
        client.send({"type": "Ask"}, {"type": "Ask", "last": 1}, {"type": "Reading", "celsius": -300})
        self.assertEqual(
            client.received,
            [
                {"celsius": None, "readings": 0},
                {"celsius": 21.5, "readings": 2},
                {"celsius": 23.0, "readings": 1},
                {"error": "bad-message", "text": cold},
            ],
        )

    def test_files(self) -> None:
        """The blocking handler."""
        Path("file.txt").write_bytes(b"contents")
        self.addCleanup(Path("file.txt").unlink)
        client = Harness(self.module("files").digest).connect()
        client.send("file.txt", "../etc/passwd")
        digest = hashlib.sha256(b"contents").hexdigest()
        self.assertEqual(client.received, [digest, "ERR bad-message that is not the name of a file here"])
        client.send("x" * 5000, "missing")
        self.assertEqual(
            client.received[2:], ["ERR bad-message File name too long", "ERR bad-message No such file or directory"]
        )

    def test_account(self) -> None:
        """Deposits: one that is sent again, at once or to a new server, is answered and not made again."""
        app = self.module("account").app
        said = "ERR bad-message say deposit <owner> <amount>"
        with Harness(app, journal="sqlite:accounts.db", message_ids=True) as harness:
            client = harness.connect()
            client.send("RESUME till-7", "@1 deposit alice 10", "@2 deposit bob 1", "@3 deposit alice 5")
            client.send("@3 deposit alice 5", "@4 withdraw alice 15", "@4 deposit alice -15")
            self.assertEqual(client.received[:4], ["OK 0", "OK 1 alice has 10", "OK 2 bob has 1", "OK 3 alice has 15"])
            self.assertEqual(client.received[4:], ["OK 3 dup", said, said])
        with Harness(app, journal="sqlite:accounts.db", message_ids=True) as harness:
            client = harness.connect()
            client.send("RESUME till-7", "@1 deposit alice 10", "@6 deposit alice 1")
            self.assertEqual(client.received, ["OK 3 @3", "OK 1 dup", "OK 4 alice has 16"])
