"""The senders among the examples: whatever happens to connections and servers, each line is stored once, in order."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE
from .proxy import Cut, Proxy
from .server import Server, wait_until

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SENDERS = ("sender", "sender_twisted")


class Sender:
    """An example as a process, in a folder that has its file; the time that it waits for an answer is shorter."""

    def __init__(self, example: str, folder: Path, port: int) -> None:
        text = (EXAMPLES / f"{example}.py").read_text()
        assert text.count("PATIENCE = 30.0") == 1
        self.name = example
        self._script = folder / f"{example}.py"
        self._script.write_text(text.replace("PATIENCE = 30.0", "PATIENCE = 2.0"))
        self._log = folder / f"{example}.log"
        self._log.touch()
        self._words = [sys.executable, str(self._script), "127.0.0.1", str(port), example, str(folder / example)]
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        with self._process:
            self._process.kill()

    def wait(self) -> tuple[int, bytes]:
        """Return the exit status of a sender, and what it printed of its success."""
        said, _ = self._process.communicate(timeout=2 * DEADLINE)
        return self._process.returncode, said

    @property
    def log(self) -> str:
        return self._log.read_text()


class SenderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.journal = self.folder / "mtserver.db"

    def sender(self, example: str, port: int) -> Sender:
        sender = Sender(example, self.folder, port)
        self.addCleanup(sender.kill)
        return sender

    def stored(self, name: str) -> list[tuple[str, bytes]]:
        """Ids and messages of a client, in the journal's order."""
        with contextlib.closing(apsw.Connection(str(self.journal), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            statement = "SELECT id, message FROM messages JOIN sources USING (source) WHERE name = ? ORDER BY seq"
            stored: Any = connection.execute(statement, (name,)).fetchall()
        return list(stored)


class TestTrouble(SenderCase):
    def test_cuts_and_restarts(self) -> None:
        """Connections cut after any byte, or left hanging, the server killed, a sender killed, the journal locked."""
        chance = random.Random(5)
        lines = [b"%d " % number + b"x" * chance.choice((0, 1, 50, 2000)) for number in range(3000)]
        lines[7] = lines[8] = b""
        for example in SENDERS:
            (self.folder / example).write_bytes(b"".join(line + b"\n" for line in lines))
        # The first of them within RESUME and its answer; those that follow in some line, or in some answer. Together
        # they are less than a file, so that no sender is done before they are.
        cuts = [Cut(up=0), Cut(up=5), Cut(down=0), Cut(down=3), Cut(up=30), Cut(down=10, resets=False)]
        for _ in range(7):
            cuts.append(Cut(up=chance.randrange(100_000), resets=chance.random() < 0.5))
            cuts.append(Cut(down=chance.randrange(1500), resets=chance.random() < 0.5))
        cuts += [Cut(up=50_000, hangs=True), Cut(down=400, hangs=True)]
        with Proxy(cuts) as proxy:
            with self.server(proxy):
                senders = [self.sender(example, proxy.port) for example in SENDERS]
                wait_until(lambda: proxy.connections > 8, "cuts")
            with self.server(proxy) as server:
                wait_until(lambda: proxy.connections > 14, "more cuts")
                senders[0].kill()
                with contextlib.closing(apsw.Connection(str(server.journal))) as other:
                    other.set_busy_timeout(int(DEADLINE * 1000))
                    other.execute("BEGIN EXCLUSIVE")
                    senders[0].start()
                    wait_until(lambda: "ERR unavailable retry-after=1" in senders[0].log, "an answer without a journal")
                    other.execute("ROLLBACK")
                wait_until(lambda: proxy.connections > 18, "still more cuts")
                senders[1].kill()
                senders[1].start()
            with self.server(proxy):
                for sender in senders:
                    self.assertEqual(sender.wait(), (0, b"3000 lines are stored\n"), sender.log)
                self.assertGreater(proxy.connections, len(cuts))
        expected = [(str(number), line) for number, line in enumerate(lines, 1)]
        for sender in senders:
            self.assertEqual(self.stored(sender.name), expected)

    @contextlib.contextmanager
    def server(self, proxy: Proxy) -> Iterator[Server]:
        """One on the same journal, which is killed in the end."""
        with Server("--message-ids", folder=self.folder) as server:
            proxy.target = server.port
            yield server
            server.stop(signal.SIGKILL)
            self.assertEqual(server.wait(), -signal.SIGKILL)


PICKY = """
from mtserver import BadMessage

async def pick(client, message: bytes):
    if message == b"bad":
        raise BadMessage("no")
    return await client.journal(message)
"""


class TestRefused(SenderCase):
    def test_line_that_is_too_long(self) -> None:
        """A line that will never be taken is named, with what the server says of it; those before it are stored."""
        lines = [b"one", b"two", b"x" * 70_000, *[b"more" * 10_000] * 50]
        with Server("--message-ids", folder=self.folder) as server:
            for example in SENDERS:
                (self.folder / example).write_bytes(b"\n".join(lines))
                sender = self.sender(example, server.port)
                self.assertEqual(sender.wait(), (1, b""), sender.log)
                refusal = "message 3: ERR too-long a message may have at most 65536 bytes"
                self.assertEqual(sender.log.splitlines()[-1], refusal)
                self.assertEqual(self.stored(example), [("1", b"one"), ("2", b"two")])

    def test_server_without_ids(self) -> None:
        """A server that takes RESUME for a message is not taken for one that has stored so many lines."""
        with Server(folder=self.folder) as server:
            for example in SENDERS:
                (self.folder / example).write_bytes(b"one\ntwo\n")
                sender = self.sender(example, server.port)
                self.assertEqual(sender.wait(), (1, b""), sender.log)
                self.assertRegex(sender.log, r"\Athe last message of \S+ is \d, which is no line's number\n\Z")

    def test_ids_of_somebody_else(self) -> None:
        """A name whose ids are no lines' numbers is somebody else's."""
        with Server("--message-ids", folder=self.folder) as server:
            for example in SENDERS:
                (self.folder / example).write_bytes(b"one\n")
                with server.connect() as peer:
                    peer.exchange(f"RESUME {example}".encode(), b"@odd x")
                sender = self.sender(example, server.port)
                self.assertEqual(sender.wait(), (1, b""), sender.log)
                self.assertEqual(sender.log, f"the last message of {example} is @odd, which is no line's number\n")

    def test_line_that_is_refused(self) -> None:
        """A line that the handler refuses is named, each time; nothing behind it is stored, and an empty one is."""
        module = {"picky": PICKY}
        with Server("--message-ids", "--app", "picky:pick", folder=self.folder, modules=module) as server:
            for example in SENDERS:
                (self.folder / example).write_bytes(b"one\n\nbad\nfour\nfive\n")
                for _ in range(2):
                    sender = self.sender(example, server.port)
                    self.assertEqual(sender.wait(), (1, b""), sender.log)
                    self.assertEqual(sender.log.splitlines()[-1], "message 3: ERR bad-message no")
                self.assertEqual(self.stored(example), [("1", b"one"), ("2", b"")])
