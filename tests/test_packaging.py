"""What a deployment installs is what pyproject.toml asks for, whatever machine made the pins."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "packaging"
SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]


def pins_of(text: str) -> dict[str, tuple[Requirement, str]]:
    """Each pin, with the lines below it."""
    blocks = re.findall(r"^(\S+==[^\n\\]+?) *\\\n((?: +.+(?:\n|\Z))+)", text, re.MULTILINE)
    return {canonicalize_name(Requirement(pin).name): (Requirement(pin), below) for pin, below in blocks}


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if not line.startswith("#")]


def pinned(constraints: list[Requirement], name: str, python: str) -> str | None:
    """The version that pip would be held to, on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.6",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
    }
    for one in constraints:
        if canonicalize_name(one.name) == canonicalize_name(name) and (
            one.marker is None or one.marker.evaluate(dict(environment))
        ):
            (version,) = one.specifier
            return version.version
    return None


class Pins(SynchronousTestCase):
    def setUp(self) -> None:
        if not FOLDER.exists():
            raise SkipTest("not in a checkout")
        self.texts = {path.name: path.read_text() for path in FOLDER.glob("requirements*.txt")}
        self.constraints = requirements((FOLDER / "constraints.txt").read_text())
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

    def test_checkout(self) -> None:
        """What any extra asks for is pinned in constraints.txt at a version that fits, for each Python that may run."""
        wanted = [each for extra in self.project["optional-dependencies"].values() for each in extra]
        wanted += self.project["dependencies"]
        wanted += tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
        for one in map(Requirement, wanted):
            if one.name == "mtserver":
                continue  # its own extras
            for python in SUPPORTED:
                pin = pinned(self.constraints, one.name, python)
                self.assertIsNotNone(pin, f"{one} has no pin on Python {python}")
                self.assertTrue(one.specifier.contains(pin or ""), f"{one} is pinned as {pin}")

    def test_one_version(self) -> None:
        """A checkout has what a deployment has, at the same versions."""
        for pins in self.pins.values():
            for name, (pin, _) in pins.items():
                (version,) = pin.specifier
                for python in SUPPORTED:
                    self.assertEqual(pinned(self.constraints, name, python), version.version, name)

    def test_supported(self) -> None:
        """The Pythons that pins are looked at for are those that pyproject.toml names."""
        named = [each.rpartition(" ")[2] for each in self.project["classifiers"] if ":: Python :: 3." in each]
        self.assertEqual(named, SUPPORTED)

    def test_constraints(self) -> None:
        """Every line of them is one exact version, perhaps with a marker, and has no hash: pip would want all."""
        for path in FOLDER.glob("constraints*.txt"):
            for line in path.read_text().splitlines():
                if not line.startswith("#"):
                    self.assertRegex(str(Requirement(line).specifier), r"\A==[\w.]+\Z", line)

    def test_authorization_server(self) -> None:
        """What comes from npm is pinned with hashes, and names no registry."""
        lock = json.loads((FOLDER / "oidc" / "package-lock.json").read_text())
        for name, package in lock["packages"].items():
            self.assertNotIn("resolved", package)
            self.assertTrue(not name or package["integrity"].startswith("sha512-"), name)

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
        for path in FOLDER.glob("*.txt"):
            for line in path.read_text().splitlines()[2:]:
                self.assertIsNone(re.search(r"://|^-|file:|@|(^|\s)/", line), line)
