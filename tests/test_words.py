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

#: Files and rooms of the package whose words are held to the rule.
HELD = ("framing", "codecs", "auth", "transport", "errors.py", "refusals.py", "settings.py")

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
    """The line and text of each docstring and each ``#:`` comment of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text
    follows = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("#:"):
            if token.start[0] != follows:
                yield token.start[0], token.string[2:]
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
        """No docstring and no comment of the held rooms opens with a word that points elsewhere."""
        found: list[str] = []
        for name in HELD:
            place = PACKAGE / name
            for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
                found += pointing(path)
        self.assertEqual(found, [])

    def test_seen(self) -> None:
        """A pronoun is seen in a docstring of any kind and in a comment, in the first word only."""
        source = (
            '"""Of bytes."""\n#: It holds.\n#: it holds\nx = 1\nclass A:\n    """A part."""\n    def f(): "See g."\n'
        )
        self.assertEqual(
            [text.strip() for _, text in sayings(source) if opening(text) in POINTING],
            ["Of bytes.", "See g.", "It holds."],
        )
