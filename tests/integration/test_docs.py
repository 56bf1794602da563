"""Each session that the documentation shows is a real one: its servers, its clients, and what they print."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.pages import ROOT, Block, blocks, commands, is_server, options, pages, write_files

from .peer import DEADLINE
from .server import Server, needs


def sessions(page: Path) -> Iterator[tuple[list[str], Block]]:
    """Each session of a page, with the options of the server that was started last before it."""
    server: list[str] = []
    for block in blocks(page):
        if block.language == "sh" and not block.not_run:
            started = [options(words) for words in commands(block.text) if is_server(words)]
            server = started[-1] if started else server
        elif block.language == "console":
            yield server, block


def split_ports(words: list[str]) -> tuple[list[str], list[str]]:
    """The ports of a server's options, and what else there is among them."""
    ports: list[str] = []
    rest = list(words)
    while "--port" in rest:
        place = rest.index("--port")
        ports.append(rest[place + 1])
        del rest[place : place + 2]
    return ports, rest


def on_loopback(port: str) -> str:
    """The same port string with a free port of this machine only."""
    return re.sub(r"^(?:(ssl):)?\d+", lambda found: f"{found[1] or 'tcp'}:0:interface=127.0.0.1", port)


def typed_and_printed(text: str) -> list[tuple[str, str]]:
    """What was typed behind each ``$``, and what came of it."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert not parts[0], "a session begins with what is typed"
    return list(zip(parts[1::2], parts[2::2], strict=True))


class Sessions(SynchronousTestCase):
    def play(self, page: Path) -> int:
        """Do all that a page shows, in one folder; how many commands that were."""
        needs("nc", "netcat-openbsd")
        needs("socat", "socat")
        folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, folder)
        write_files(page, folder)
        played = 0
        for server, block in sessions(page):
            # Without a server there are those who only write a file.
            talks = re.search(r"\b(?:nc|socat) ", block.text)
            with contextlib.ExitStack() as stack:
                numbers: dict[str, int] = {}
                if talks:
                    ports, rest = split_ports(server)
                    running = Server(*rest, ports=[on_loopback(port) for port in ports], folder=folder)
                    stack.enter_context(running)
                    shown = [found for port in ports for found in re.findall(r"^(?:ssl:)?(\d+)", port)]
                    numbers = dict(zip(shown, running.numbers, strict=True))
                for typed, printed in typed_and_printed(block.text):
                    self.assertEqual(
                        self.matching(printed, self.run_line(typed, numbers, folder)), printed, block.place
                    )
                    played += 1
        return played

    @staticmethod
    def run_line(typed: str, numbers: dict[str, int], folder: Path) -> str:
        """Have a shell do it, with the ports that the server has here."""
        line = typed.replace(".venv/bin/", "")
        for shown, number in numbers.items():
            line = re.sub(rf"\b(localhost|127\.0\.0\.1)([ :]){shown}\b", rf"\g<1>\g<2>{number}", line)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            ["sh", "-c", line],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return ended.stdout

    @staticmethod
    def matching(shown: str, printed: str) -> str:
        """`shown`, if that is what was printed; three dots in it stand for the rest of what is there."""
        pattern = re.escape(shown).replace(r"\.\.\.", "[^\n]*")
        return shown if re.fullmatch(pattern, printed) else printed

    def test_readme(self) -> None:
        """The first thing that anybody tries works as it is shown."""
        self.assertEqual(self.play(ROOT / "README.md"), 2)

    def test_pages(self) -> None:
        """So does each session of each page."""
        self.assertGreater(sum(self.play(page) for page in pages()[1:]), 15)
