"""The documentation as tests read it: pages, and the fenced blocks of each with what stands before them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple
from unittest import SkipTest

import mtserver

ROOT = Path(mtserver.__file__).parent.parent
#: What opens and closes a block; both stand at the beginning of a line.
_FENCE = re.compile(r"```(\S*)\n?")
#: The reason why a block is not run; it stands in the line before it, where no reader of the page sees it.
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


class Block(NamedTuple):
    """One fenced block."""

    #: Where it stands, for messages: the page, and the line of its text's beginning.
    place: str
    #: What is written behind the opening fence.
    language: str
    text: str
    #: The reason why it is not run; empty where it is.
    not_run: str

    @property
    def file(self) -> str:
        """The file's name that a first line ``# name.py`` gives it; empty otherwise."""
        found = re.match(r"# ([\w-]+\.(?:py|toml))\b", self.text)
        return found[1] if found else ""


def pages() -> list[Path]:
    """The README, and each page in ``docs/``."""
    if not (ROOT / "docs").exists():
        raise SkipTest("needs a checkout: docs/ is not installed")
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text().splitlines(keepends=True)
    begun, language, reason = 0, "", ""
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            continue
        if not begun:
            said = _NOT_RUN.fullmatch(lines[number - 1].rstrip("\n"))
            begun, language, reason = number + 1, fence[1], said[1] if said else ""
        else:
            place = f"{page.relative_to(ROOT)}:{begun + 1}"
            found.append(Block(place, language, "".join(lines[begun:number]), reason))
            begun = 0
    assert not begun, f"{page}:{begun}: a block without an end"
    return found


def prose(page: Path) -> str:
    """What stands outside all blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, each as its words; a path's ``.venv/bin/`` is left out."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            place = words.index("&&")
            found.append(words[:place])
            words = words[place + 1 :]
        found.append(words)
    return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in found if words]


def is_server(words: list[str]) -> bool:
    return words[0] in ("twistd", "twist") and "mtserver" in words


def options(words: list[str]) -> list[str]:
    """What a command that starts the server gives the plugin."""
    return words[words.index("mtserver") + 1 :]


def write_files(page: Path, folder: Path) -> None:
    """Save the files that the page tells its reader to save."""
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
