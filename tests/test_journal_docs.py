"""``docs/journal.md`` is an interface: what it says of the file is what stands in the file."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import mtserver
from mtserver.journal.sqlite import file, reading, retention, schema
from tests.journalfile import batch, write, write_version_1

DOCUMENT = Path(mtserver.__file__).parent.parent / "docs" / "journal.md"


class Documented(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not DOCUMENT.exists():
            raise SkipTest("needs a checkout: docs/ is not installed")
        self.text = DOCUMENT.read_text()
        self.path = Path(self.mktemp()).absolute()

    def columns(self, table: str) -> list[tuple[str, str, int]]:
        """Parse the documented columns: name, type, and since which version."""
        section = self.text.split(f"### {table}\n")[1].split("\n#")[0]
        return [
            (name, kind, int(since))
            for name, kind, since in re.findall(r"^\| `(\w+)` \| (\w+) \| (\d) ", section, re.MULTILINE)
        ]

    def actual(self, table: str) -> list[tuple[str, str]]:
        connection = reading.open_existing(self.path)
        rows = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
        connection.close()
        return [(str(name), str(kind)) for name, kind in rows]

    def test_tables(self) -> None:
        """Each table has the documented columns, in this version and the first; there are no others."""
        write(self.path, batch(1))
        for table in ("messages", "sources", "ids"):
            self.assertEqual([column[:2] for column in self.columns(table)], self.actual(table))
        connection = apsw.Connection(str(self.path))
        self.addCleanup(connection.close)
        names = connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        self.assertEqual({name for (name,) in names}, {"messages", "sources", "ids", "ids_by_seq", "journal"})
        self.path = self.path.with_name("first")
        write_version_1(self.path).close()
        first = [(name, kind) for name, kind, since in self.columns("messages") if since == 1]
        self.assertEqual(first, self.actual("messages"))

    def test_header(self) -> None:
        """The numbers in the header, and the limits that are named, are those of the code."""
        self.assertIn(f"the schema, {schema.VERSION} now", " ".join(self.text.split()))
        self.assertIn(f"is {schema.APPLICATION} (`{schema.APPLICATION.to_bytes(4, 'big').decode()}`)", self.text)
        self.assertIn(f"steps of {retention.ROWS:,} messages or {retention.BYTES >> 20} MiB", self.text)
        self.assertIn(f"no larger than {file.QUICK >> 20} MiB", self.text)
        self.assertIn(f"{reading.ROWS:,} messages, {reading.BYTES >> 20} MiB", self.text)
