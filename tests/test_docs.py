"""The documentation tells the truth: its code runs, its commands are commands, its tables are the code's."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import mtserver
import mtserver.testing
from docs import hooks
from mtserver.auth.__main__ import write as write_passwords
from mtserver.auth.passwords import HASHER
from mtserver.journal.command import arguments
from mtserver.journal.sqlite import reading
from mtserver.process.command_line import Options
from mtserver.refusals import CODES
from mtserver.settings import Settings
from mtserver.telemetry.events import EVENTS
from mtserver.testing import Harness
from tests.integration.certificates import Made
from tests.journalfile import batch, write
from tests.pages import ROOT, Block, blocks, commands, is_server, options, pages, prose, write_files

#: Each block that is not run, by page, with the reason that stands before it. A new one has to be written here as well.
NOT_RUN = [
    ("README.md", ".ci/run builds the site"),
    ("docs/benchmarks.md", "takes two minutes and more; tests/integration/test_benchmarks.py runs the program"),
    ("docs/deployment.md", "installs into /opt; CI installs the same pins and the wheel elsewhere, and starts it"),
    ("docs/deployment.md", "changes this machine's services"),
    ("docs/deployment.md", "needs root, a user called mtserver and a port below 1024"),
    ("docs/journal-jetstream.md", "needs a server of NATS with a monitoring port"),
    ("docs/tutorial.md", "installs packages; CI installs the wheel in a new environment and starts it"),
    ("docs/tutorial.md", "runs pytest, and pytest runs this page; the tests above are called one by one"),
]


class Pages(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path.cwd()
        self.addCleanup(os.chdir, self.home)

    def each(self, *languages: str) -> list[tuple[Path, Block]]:
        """The blocks in these languages that are to be run."""
        return [
            (page, block)
            for page in pages()
            for block in blocks(page)
            if block.language in languages and not block.not_run
        ]

    def folder(self, page: Path) -> None:
        """Make a folder with all files of a page and what its commands name, and go there."""
        os.chdir(self.home)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        write_files(page, folder)
        os.chdir(folder)
        self.patch(sys, "path", [str(folder), *sys.path])
        self.forget(page)  # each page may have a till.py of its own
        self.addCleanup(self.forget, page)
        importlib.invalidate_caches()

    @staticmethod
    def forget(page: Path) -> None:
        for block in blocks(page):
            sys.modules.pop(block.file.removesuffix(".py"), None)

    def props(self) -> None:
        """Put files into the working directory that commands name and readers have made."""
        authority = Made.authority("CA")
        Made("localhost").write(Path())
        Path("ca.pem").write_bytes(authority.pem)
        Path("revoked.pem").write_bytes(authority.revoke())
        write_passwords(Path("users"), {"alice": HASHER.hash("secret")})
        write(Path("mtserver.db"), batch(3, identity="alice", name="a"))

    def test_every_block_is_of_a_kind(self) -> None:
        """All code stands in fenced blocks whose language says how they are tested; `text` is what is no code."""
        known = {"python", "toml", "sh", "console", "json", "text"}
        for page in pages():
            for block in blocks(page):
                self.assertIn(block.language, known, block.place)
            self.assertNotRegex(prose(page), r"\n\n    \S", f"{page}: an indented block")

    def test_not_run(self) -> None:
        """Whatever is not run is listed here, with its reason."""
        marked = [(block.place.split(":")[0], block.not_run) for page in pages() for block in blocks(page)]
        self.assertEqual([each for each in marked if each[1]], NOT_RUN)
        said = sum(page.read_text().count("not run: ") for page in pages())
        self.assertEqual(said, len(NOT_RUN), "a reason that does not stand right before a block")

    def test_python(self) -> None:
        """Each block of Python is a module that can be imported, and what it tests is so."""
        tested = 0
        for page in pages():
            self.folder(page)
            for block in blocks(page):
                if block.language != "python" or block.not_run:
                    continue
                self.assertTrue(block.file.endswith(".py"), f"{block.place}: no file's name in its first line")
                with noting(block):
                    tested += self.run_module(importlib.import_module(block.file.removesuffix(".py")))
        self.assertGreater(tested, 15)
        self.flushLoggedErrors(ValueError)  # a handler that is shown to raise one

    def run_module(self, module: Any) -> int:
        """Call the tests in a module, as pytest would; how many there were."""
        functions = [value for name, value in vars(module).items() if name.startswith("test_") and callable(value)]
        for function in functions:
            made: list[Harness] = []
            if "harness" in inspect.signature(function).parameters:
                function(partial(self.make, made))
            else:
                function()
            for harness in made:
                harness.stop()
        return len(functions)

    @staticmethod
    def make(made: list[Harness], *args: Any, **settings: Any) -> Harness:
        made.append(Harness(*args, **settings))
        return made[-1]

    def test_toml(self) -> None:
        """Each configuration file has options of the server, with values that they can have."""
        found = self.each("toml")
        self.assertGreater(len(found), 2)
        for _, block in found:
            with noting(block):
                Settings.read(tomllib.loads(block.text))

    def test_json(self) -> None:
        """Each block of JSON is some."""
        for _, block in self.each("json"):
            with noting(block):
                json.loads(block.text)

    def test_shell(self) -> None:
        """Each command is one: what starts the server passes all its checks, up to where a port would be opened."""
        before: Path | None = None
        counted = 0
        for page, block in self.each("sh"):
            if page != before:
                self.folder(page)
                self.props()
                before = page
            for words in commands(block.text):
                with noting(block):
                    self.check_command(words)
                    counted += 1
        self.assertGreater(counted, 40)

    def check_command(self, words: list[str]) -> None:
        if is_server(words):
            check_server(options(words))
        elif words[:3] == ["python", "-m", "mtserver.journal"]:
            arguments.parse(words[3:])
        elif words[0] == "sqlite3":
            _, readonly, path, statement = words
            self.assertEqual(readonly, "-readonly")
            connection = reading.open_existing(Path(path))
            self.addCleanup(connection.close)
            connection.execute(statement).fetchall()
        elif words[0] == "sh":
            self.assertTrue((ROOT / words[1]).exists(), words)
        else:
            known = ["python", "-m", "pytest", "--cov", "-n", "auto", "--dist", "worksteal"]
            self.assertEqual(words, known, "a command that nobody knows how to check")

    def test_backup(self) -> None:
        """The copy that the page on the journal makes is a journal."""
        self.folder(ROOT / "docs" / "journal.md")
        self.props()
        (words,) = [
            words
            for block in blocks(ROOT / "docs" / "journal.md")
            for words in commands(block.text if block.language == "sh" else "")
            if "VACUUM" in words[-1]
        ]
        self.check_command(words)
        connection = apsw.Connection("backup.db", flags=apsw.SQLITE_OPEN_READONLY)
        self.addCleanup(connection.close)
        self.assertEqual([record.identity for record in reading.read(connection, 0, 9)], ["alice"] * 3)


@contextlib.contextmanager
def noting(block: Block) -> Iterator[None]:
    """Whatever fails inside is told with the place of its block."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {block.place}:\n{block.text}")
        raise


def check_server(words: list[str]) -> None:
    """Have the plugin parse and check its options."""
    if any("nats://" in word for word in words):
        # Only on the reactor that it chooses itself, and tests have another.
        from tests.integration.server import run_to_end

        ended = run_to_end(Path(), *words, "--describe")
        assert ended.returncode == 0, ended.stderr
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            Options().parseOptions(words)
    except SystemExit as end:
        if end.code:
            raise AssertionError(str(end)) from None


class Readme(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = pages()[0].read_text()

    def test_short(self) -> None:
        """It has 150 lines at most."""
        self.assertLessEqual(len(self.text.splitlines()), 150)

    def test_commands(self) -> None:
        """Its two commands stand there as they are typed, and CI runs the second as it stands."""
        start = "sh .ci/setup && .venv/bin/twistd -n mtserver --port 9999"
        test = "sh .ci/setup test && .venv/bin/python -m pytest --cov -n auto --dist worksteal"
        for command in (start, test):
            self.assertIn(f"```sh\n{command}\n```", self.text)
        run = ROOT / ".ci" / "run"
        if not run.exists():
            raise SkipTest("not in a checkout")
        self.assertIn(f"\n{test}\n", run.read_text())

    def test_links(self) -> None:
        """It leads to every page but the one that is the site's own front."""
        for page in pages()[1:]:
            self.assertIn(f"(docs/{page.relative_to(ROOT / 'docs')})", self.text)


class Reference(SynchronousTestCase):
    def table(self, name: str) -> list[list[str]]:
        """A table as it is put into its page, without the names of its columns."""
        (page,) = [page for page in pages() if f"<!-- table: {name} -->" in page.read_text()]
        text = hooks.on_page_markdown(page.read_text())
        self.assertNotIn("<!-- table:", text)
        lines = hooks.TABLES[name]().splitlines()
        self.assertIn("\n".join(lines), text)
        return [line.strip("| ").split(" | ") for line in lines[2:]]

    def test_options(self) -> None:
        """Every option has a row."""
        names = [f"--{name.replace('_', '-')}" for name in Settings.__dataclass_fields__ if name != "listen"]
        self.assertEqual([row[0].split("`")[1] for row in self.table("options")], [*names, "--config"])

    def test_codes(self) -> None:
        """Every code of the wire has a row, which also says what becomes of the connection."""
        self.assertEqual([row[0].strip("`") for row in self.table("codes")], list(CODES))
        self.assertEqual(set(hooks.THEN), set(CODES))

    def test_audit_events(self) -> None:
        """Every security event has a row."""
        self.assertEqual(
            [row[0].strip("`") for row in self.table("audit-events")],
            [event.name for event in EVENTS.values() if event.audit],
        )

    def test_api(self) -> None:
        """Every public name is in the page on the API."""
        text = (ROOT / "docs" / "api.md").read_text() if pages() else ""
        for module in (mtserver, mtserver.testing):
            for name in module.__all__:
                self.assertIn(f"\n::: {module.__name__}.{name}\n", text)

    def test_unknown_table(self) -> None:
        """A table that there is not fails the build."""
        self.assertRaises(KeyError, hooks.on_page_markdown, "<!-- table: nothing -->")

    def test_roles(self) -> None:
        """Roles of reStructuredText in docstrings become the names they stand for."""
        make: Callable[[str], str] = hooks.on_page_content
        self.assertEqual(make(":class:<code>~a.b.C</code>"), "<code>C</code>")
        self.assertEqual(make(":func:<code>f</code>"), "<code>f</code>")
        self.assertEqual(make("<p>Like this::</p>"), "<p>Like this:</p>")

    def test_nothing_from_elsewhere(self) -> None:
        """A page that has its reader's browser fetch something from another host fails the build; a link does not."""
        link = '<a href="https://example.org">'
        self.assertEqual(hooks.on_post_page(link), link)
        for fetched in (
            '<script src="https://example.org/a.js">',
            '<link rel="stylesheet" href="https://example.org/a">',
        ):
            self.assertRaises(ValueError, hooks.on_post_page, fetched)
