"""Words: docstrings and comments that are read on their own open with a noun or a verb, so that each is a sentence."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parent.parent / "mtserver"

#: First words that leave a reader who begins there asking: who, whose, of what, as where?
POINTING = {
    *("it", "its", "itself", "he", "his", "she", "her", "they", "them", "their", "theirs", "ours", "mine"),
    *("this", "that", "these", "those", "such", "same", "likewise", "ditto", "here", "there", "so", "thus", "also"),
    *("who", "whom", "whose", "whoever", "whomever", "which", "whichever", "what", "whatever"),
    *("nobody", "somebody", "anybody", "everybody", "none", "nothing", "something", "anything", "everything", "others"),
    *("of", "as", "see", "than", "with", "without", "from", "by", "to", "at", "in", "on", "for", "like"),
}

_WORD = re.compile(r"[A-Za-z]+\b")


def opening(text: str) -> str:
    """The first word of a text in lower case; empty where it begins with code, a name or a number."""
    found = _WORD.match(text.strip())
    return found[0].lower() if found else ""


def sayings(source: str) -> Iterator[tuple[int, str]]:
    """The line and text of each docstring and of each comment that has lines of its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text
    follows = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            if token.start[0] != follows:
                yield token.start[0], token.string.lstrip("#: ")
            follows = token.start[0] + 1


def pointing(path: Path) -> list[str]:
    """Places in a file where a docstring or a comment opens with a word that points elsewhere."""
    return [
        f"{path.relative_to(PACKAGE)}:{line}: {text.strip().splitlines()[0]}"
        for line, text in sorted(sayings(path.read_text()))
        if opening(text) in POINTING
    ]


class Words(SynchronousTestCase):
    """The rule, and that the check for it sees what it is for."""

    def test_held(self) -> None:
        """No docstring and no comment of the package opens with a word that points elsewhere."""
        files = sorted(PACKAGE.rglob("*.py"))
        self.assertGreater(len(files), 50)
        self.assertEqual([line for path in files for line in pointing(path)], [])

    def test_seen(self) -> None:
        """A pronoun is seen in a docstring of any kind and in a comment, in the first word only."""
        lines = ['"""Of bytes."""', "#: It holds.", "#: it holds", "x = 1  # it", "# They.", "def f():", '    "See g."']
        source = "\n".join([*lines, "    class A:", '        """A letter of it."""'])
        found = sorted(text for _, text in sayings(source) if opening(text) in POINTING)
        self.assertEqual(found, ["It holds.", "Of bytes.", "See g.", "They."])
