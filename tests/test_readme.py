"""The README tells the truth: its table is the options', its code runs, its commands are the ones that CI runs."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mtserver.apps.collect import app as collect
from mtserver.refusals import CODES
from mtserver.settings import Settings
from mtserver.testing import Harness

ROOT = Path(__file__).parent.parent


class Readme(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = (ROOT / "README.md").read_text()

    def test_options(self) -> None:
        """The table has every option, with its default, unit and meaning."""
        rows = []
        for field in dataclasses.fields(Settings):
            about = field.metadata
            if field.name == "listen":
                continue  # only a configuration file has it
            name = f"`--{field.name.replace('_', '-')}`"
            name += f", `-{about['short']}`" if about["short"] else ""
            unit = f" {about['unit']}" if about["unit"] else ""
            rows.append(f"| {name} | {about['shown']} |{unit} | {about['meaning']} |")
        table = [line for line in self.text.splitlines() if line.startswith("| `--")]
        self.assertEqual(table[:-1], rows)
        self.assertIn("--config", table[-1])

    def test_code(self) -> None:
        """The handlers in it work as they stand."""
        blocks = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        self.assertEqual(len(blocks), 6)
        till: dict[str, Any] = {}
        exec(blocks[0], till)
        client = Harness(till["Till"]).connect()
        client.send("1", "2")
        self.assertEqual(client.received, ["1", "3"])
        room: dict[str, Any] = {}
        exec(blocks[1], room)
        harness = Harness(room["app"])
        first, second = harness.connect(), harness.connect()
        first.send("hello")
        self.assertEqual(first.received, ["welcome", "HELLO"])
        self.assertEqual(second.received, ["welcome", "hello"])
        station: dict[str, Any] = {"__name__": "station"}
        sys.modules["station"] = types.ModuleType("station")  # where annotations are looked up
        self.addCleanup(sys.modules.pop, "station")
        exec(blocks[2], station)
        client = Harness(station["station"]).connect()
        shown = re.findall(r"^    (?:\$ printf .*)?(\{.*\})$", self.text, re.MULTILINE)
        sent = re.findall(r"'(\{.*?\})'", self.text)
        client.send(*[message.encode() for message in sent])
        self.assertEqual(client.received_raw.decode().splitlines(), shown)
        tracker: dict[str, Any] = {}
        exec(blocks[3], tracker)
        client = Harness(tracker["Tracker"]).connect()
        client.send("IMEI 4711", "position")
        self.assertEqual(client.received, [b"ON 4711"])

    def test_journal(self) -> None:
        """So do those that store, and the session that is shown is a real one."""
        blocks = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        storing: dict[str, Any] = {}
        exec(blocks[4], storing)
        printf, answers = re.findall(r"\$ printf '(RESUME .*?)' .*\n((?:    OK .*\n)+)", self.text)[0]
        for handler in (storing["Meter"], collect):
            folder = Path(self.mktemp())
            folder.mkdir()
            harness = Harness(handler, journal=f"sqlite:{folder / 'j.db'}", message_ids=True)
            client = harness.connect()
            client.send_raw(printf.replace("\\n", "\n").encode())
            self.assertEqual(client.received, [line.strip().encode() for line in answers.splitlines()])
            harness.stop()
        folder = Path(self.mktemp())
        folder.mkdir()
        harness = Harness(storing["Account"], journal=f"sqlite:{folder / 'j.db'}", message_ids=True)
        self.addCleanup(harness.stop)
        client = harness.connect()
        client.send("RESUME bob", "@1 500", "@2 -20", "@1 500")
        self.assertEqual(client.received, ["OK 0", "500", "480", "OK 1 dup"])

    def test_groups(self) -> None:
        """So does the one of groups."""
        blocks = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        table: dict[str, Any] = {}
        exec(blocks[5], table)
        harness = Harness(table["Table"])
        first, second = harness.connect(), harness.connect()
        first.send("hello")
        self.assertEqual((first.received, second.received), ([], ["hello"]))

    def test_codes(self) -> None:
        """The table of refusals has all that the server sends."""
        table = re.findall(r"^\| `([a-z][a-z-]*)` \|", self.text, re.MULTILINE)
        self.assertEqual(set(table), set(CODES))

    def test_commands(self) -> None:
        """The test command is the very one that CI runs, and the version is the package's."""
        command = "sh .ci/setup test && .venv/bin/python -m pytest --cov"
        run = ROOT / ".ci" / "run"
        if not run.exists():
            raise SkipTest("not in a checkout")
        self.assertIn(f"\n    {command}\n", self.text)
        self.assertIn(f"\n{command}\n", run.read_text())
