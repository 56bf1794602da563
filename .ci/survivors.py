"""Mutants that no test has noticed, but for those that survivors.toml names, each with the reason."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

MUTMUT = str(Path(sys.executable).with_name("mutmut"))
SURVIVORS = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text())["survivor"]
NAMED = {(each["in"], each["becomes"]) for each in SURVIVORS}


def said(*words: str) -> list[str]:
    return subprocess.run([MUTMUT, *words], capture_output=True, text=True, check=True).stdout.splitlines()


def place(name: str) -> str:
    """``framing.line.xǁLineFramingǁtake__mutmut_39`` is in ``line.LineFraming.take``."""
    *_, module, function = name.rpartition("__mutmut_")[0].split(".")
    return ".".join([module, *function.removeprefix("x_").removeprefix("xǁ").split("ǁ")])


def becomes(name: str) -> str:
    """The first line that the mutant has in place of another."""
    lines = [line[1:].strip() for line in said("show", name) if line.startswith("+") and not line.startswith("+++")]
    return lines[0] if lines else ""


found: set[tuple[str, str]] = set()
for line in said("results"):
    mutant, colon, outcome = line.strip().partition(": ")
    if colon and "__mutmut_" in mutant and outcome != "caught by type check":
        survivor = place(mutant), becomes(mutant)
        found.add(survivor)
        if survivor not in NAMED:
            print(f"{outcome}: {mutant}\n    {survivor[1]}")
print(f"{len(found)} survivors, {len(found - NAMED)} of them without a reason")
sys.exit(bool(found - NAMED))
