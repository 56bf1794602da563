"""What a deployment installs is what pyproject.toml asks for, whatever machine made the pins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "packaging"


def pins_of(text: str) -> dict[str, tuple[Requirement, str]]:
    """Each pin, with the lines below it."""
    blocks = re.findall(r"^(\S+==[^\n\\]+?) *\\\n((?: +.+(?:\n|\Z))+)", text, re.MULTILINE)
    return {canonicalize_name(Requirement(pin).name): (Requirement(pin), below) for pin, below in blocks}


class Pins(SynchronousTestCase):
    def setUp(self) -> None:
        if not FOLDER.exists():
            raise SkipTest("not in a checkout")
        self.texts = {path.name: path.read_text() for path in FOLDER.glob("requirements*.txt")}
        self.pins = {name: pins_of(text) for name, text in self.texts.items()}
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def fit(self, file: str, wanted: list[str]) -> set[str]:
        """The names of what is asked for, each of which is pinned at a version that fits."""
        asked = {canonicalize_name(one.name): one for one in map(Requirement, wanted)}
        for name, one in asked.items():
            pin, _ = self.pins[file][name]
            (version,) = pin.specifier
            self.assertTrue(one.specifier.contains(version.version), f"{one} is pinned as {pin}")
            self.assertEqual(str(pin.marker), str(one.marker))
        return set(asked)

    def test_complete(self) -> None:
        """What is asked for is what is pinned for its own sake, at a version that fits (.ci/pin makes it anew)."""
        asked = self.fit("requirements.txt", self.project["dependencies"])
        pins = self.pins["requirements.txt"]
        self.assertEqual(asked, {name for name, (_, below) in pins.items() if "mtserver (pyproject.toml)" in below})

    def test_nats(self) -> None:
        """With what mtserver[nats] needs besides, all else is pinned as it is without."""
        self.fit("requirements-nats.txt", self.project["optional-dependencies"]["nats"])
        for name, (pin, _) in self.pins["requirements.txt"].items():
            self.assertEqual(str(self.pins["requirements-nats.txt"][name][0]), str(pin))

    def test_hashes(self) -> None:
        """Every pin is one version, with hashes, and nothing else stands in the file."""
        for file, text in self.texts.items():
            for name, (pin, below) in self.pins[file].items():
                self.assertRegex(str(pin.specifier), r"\A==[\w.]+\Z", name)
                self.assertIn(" --hash=sha256:", below)
            lines = [line for line in text.splitlines() if not line.startswith((" ", "#"))]
            self.assertEqual(len(lines), len(self.pins[file]))

    def test_anywhere(self) -> None:
        """It names no registry, and no path of the machine that made it."""
        for text in self.texts.values():
            for line in text.splitlines()[2:]:
                self.assertIsNone(re.search(r"://|^-|file:|@|(^|\s)/", line), line)
