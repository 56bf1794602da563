"""The house: what imports cannot say of it (for those see the contracts in pyproject.toml)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import mtserver

PACKAGE = Path(mtserver.__file__).parent
#: Where a transport may be touched. That of nats/connection.py is a client's, to a server of NATS.
TRANSPORT = ("session/protocol.py", "server/rejection.py", "transport/", "testing/", "nats/connection.py")
#: Modules that may stand beside the rooms.
LOOSE = 8
#: Lines of a file, at most; and of a function, for nine out of ten.
FILE, FUNCTION = 350, 25


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text()


def touched(source: str) -> list[int]:
    """The lines on which something is asked of a ``transport``, or it is handed on."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr == "transport" and isinstance(node.ctx, ast.Load)
    ]


def way() -> list[tuple[str, str]]:
    """The files and functions of docs/architecture.md through which a message comes and its reply goes."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    return re.findall(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|", text, re.MULTILINE)


def lines_of(name: str, function: str) -> int:
    """The lines of a function, or of a method; an error if it is not there."""
    node: Any = ast.parse((PACKAGE / name).read_text())
    for part in function.split("."):
        (node,) = (each for each in node.body if getattr(each, "name", "") == part)
    return int(node.end_lineno - node.lineno + 1)


class House(SynchronousTestCase):
    def test_way(self) -> None:
        """The way of a message, as it is told, is that of the code, and short."""
        if not (PACKAGE.parent / "docs").is_dir():
            raise SkipTest("not in a checkout")
        steps = way()
        self.assertGreater(len(steps), 5)
        self.assertLessEqual(len({name for name, _ in steps}), 5)
        self.assertLessEqual(sum(lines_of(name, function) for name, function in steps), 150)

    def test_transport(self) -> None:
        """Nobody but those few modules touches a transport."""
        for name, source in modules():
            if not name.startswith(TRANSPORT):
                self.assertEqual(touched(source), [], name)

    def test_touched(self) -> None:
        """The control: a use is seen, and a first assignment is none."""
        self.assertEqual(touched("self.transport = None\nself.transport.write(b'')"), [2])

    def test_loose(self) -> None:
        """Few modules are loose at the top."""
        self.assertLessEqual(len([name for name, _ in modules() if "/" not in name]), LOOSE)

    def test_sizes(self) -> None:
        """Files are short, and so are functions."""
        lengths = []
        for name, source in modules():
            self.assertLessEqual(len(source.splitlines()), FILE, name)
            lengths += [
                (node.end_lineno or 0) - node.lineno + 1
                for node in ast.walk(ast.parse(source))
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            ]
        lengths.sort()
        self.assertLessEqual(lengths[len(lengths) * 9 // 10], FUNCTION)
