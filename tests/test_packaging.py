"""What a deployment installs is what pyproject.toml asks for, whatever machine made the pins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
PINS = ROOT / "packaging" / "requirements.txt"


class Pins(SynchronousTestCase):
    def setUp(self) -> None:
        if not PINS.exists():
            raise SkipTest("not in a checkout")
        self.text = PINS.read_text()
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        self.wanted = {canonicalize_name(one.name): one for one in map(Requirement, wanted)}
        #: Each pin, with the lines below it.
        blocks = re.findall(r"^(\S+==[^\n\\]+?) *\\\n((?: +.+\n)+)", self.text, re.MULTILINE)
        self.pins = {canonicalize_name(Requirement(pin).name): (Requirement(pin), below) for pin, below in blocks}

    def test_complete(self) -> None:
        """What is asked for is what is pinned for its own sake, at a version that fits (.ci/pin makes it anew)."""
        own = {name for name, (_, below) in self.pins.items() if "mtserver (pyproject.toml)" in below}
        self.assertEqual(own, set(self.wanted))
        for name, asked in self.wanted.items():
            pin, _ = self.pins[name]
            (version,) = pin.specifier
            self.assertTrue(asked.specifier.contains(version.version), f"{asked} is pinned as {pin}")
            self.assertEqual(str(pin.marker), str(asked.marker))

    def test_hashes(self) -> None:
        """Every pin is one version, with hashes, and nothing else stands in the file."""
        for name, (pin, below) in self.pins.items():
            self.assertRegex(str(pin.specifier), r"\A==[\w.]+\Z", name)
            self.assertIn(" --hash=sha256:", below)
        lines = [line for line in self.text.splitlines() if not line.startswith((" ", "#"))]
        self.assertEqual(len(lines), len(self.pins))

    def test_anywhere(self) -> None:
        """It names no registry, and no path of the machine that made it."""
        for line in self.text.splitlines()[2:]:
            self.assertIsNone(re.search(r"://|^-|file:|@|(^|\s)/", line), line)
