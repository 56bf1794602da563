"""The house: what imports cannot say of it (for those see the contracts in pyproject.toml)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

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


class House(SynchronousTestCase):
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
