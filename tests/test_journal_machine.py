"""
Clients, resends, cuts, restarts, crashes and a journal that is away, in any order: against a model in memory.

Two servers on one file, as two processes would be. The model knows what every message has to be answered, and every
row that has to be in the file; nothing is left to interpretation but whether a RESUME can be answered while the file
is locked, which depends on whether the server has it open.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import apsw
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet import main
from twisted.trial.unittest import SynchronousTestCase

from mtserver import Handler
from mtserver.journal import client_journal
from mtserver.journal.sqlite import file as file_module
from mtserver.journal.sqlite import insertion, writer
from mtserver.testing import Harness, HarnessClient

WINDOW = 100.0
AWAY = b"ERR unavailable retry-after=1 "
NAMELESS = b"ERR bad-message say RESUME <name> first: ids are known by it"

#: The wall clock, by which ids are forgotten. It goes on from one example to the next.
clock = SimpleNamespace(now=1e9)


class Batches(Handler):
    """A handler like `collect`: messages that arrive together are stored together."""

    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return (await self.client.journal_batch(messages)).words()


class OneByOne(Handler):
    async def received(self, message: bytes) -> bytes:
        return bytes(await self.client.journal(message))


class Effects(Handler):
    """Each message has an effect on a table of the handler's own."""

    async def received(self, message: bytes) -> bytes:
        async with self.client.transaction() as db:
            await db.execute("CREATE TABLE IF NOT EXISTS effects (seq, message)")
            await db.execute("INSERT INTO effects VALUES (?, ?)", (db.sequence, message))
        return b"OK %d" % (db.sequence or 0)


async def identify(handler: Handler, message: bytes) -> str:
    return message.decode()


#: Handlers that let anybody in, and those whose clients authenticate.
ANYBODY: list[type[Handler]] = [Batches, OneByOne, Effects]
MEMBERS = [type(f"{handler.__name__}OfMembers", (handler,), {"authenticate": identify}) for handler in ANYBODY]


class Row(NamedTuple):
    """A message as it has to be in the file."""

    seq: int
    identity: str
    name: str
    id: str
    message: bytes


class Connection:
    """One client, and what the server ought to know of it."""

    def __init__(self, client: HarnessClient, identity: str, handler: type[Handler]) -> None:
        self.client = client
        self.identity = identity
        self.has_effects = issubclass(handler, Effects)
        self.name = ""
        #: The id that has to come first; or "RESUME".
        self.behind = ""
        #: Answers that were read.
        self.read = len(client.received)


class Line(NamedTuple):
    """A line of a client: a message with an id, or RESUME and a name."""

    id: str
    resume: str

    def encoded(self, content: bytes) -> bytes:
        return b"RESUME %s\n" % self.resume.encode() if self.resume else b"@%s %s\n" % (self.id.encode(), content)


#: How a client calls itself first; empty: it does not say.
NAMES = ["bob", "bob", "eve", ""]
LINES = st.lists(
    st.one_of(
        # Few, so that many come again.
        st.builds(Line, st.sampled_from("123456789"), st.just("")),
        st.builds(Line, st.sampled_from("123"), st.just("")),
        st.builds(Line, st.just(""), st.sampled_from(NAMES[:3])),
    ),
    min_size=1,
    max_size=6,
)
PLACES = st.floats(0, 1)
CUTS = st.lists(PLACES, max_size=2)
WHICH = st.integers(0, 9)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.path = self.folder / "0.db"
        self.servers: list[Harness] = []
        self.handlers: list[type[Handler]] = []
        self.connections: list[Connection] = []
        self.lock: Any = None
        self.contents = 0
        # The model.
        self.rows: list[Row] = []
        self.effects: list[tuple[int, bytes]] = []
        #: Number and time of reception, by identity, name and id.
        self.known: dict[tuple[str, str, str], tuple[int, float]] = {}
        #: Last number and id, by identity and name.
        self.last: dict[tuple[str, str], tuple[int, str]] = {}

    def teardown(self) -> None:
        self.unlock()
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder)

    # Servers.

    @initialize(first=st.sampled_from(ANYBODY), second=st.sampled_from([*ANYBODY, *MEMBERS]))
    def start(self, first: type[Handler], second: type[Handler]) -> None:
        """Two on one file."""
        self.handlers = [first, second]
        self.servers = [self.server(each) for each in self.handlers]

    def server(self, handler: type[Handler]) -> Harness:
        return Harness(
            handler,
            journal=f"sqlite:{self.path}",
            message_ids=True,
            dedupe_window=WINDOW,
            max_bad_messages=0,
            message_timeout=0,
            idle_timeout=0,
        )

    @rule(event=st.sampled_from(["time", "crash", "restart"]), data=st.data())
    def something_happens(self, event: str, data: st.DataObject) -> None:
        """Do something to the servers; one rule for all of it, so that most steps are messages of clients."""
        if event == "time":
            self.time_passes(data.draw(st.sampled_from([1, 40, 101])))
        elif event == "crash" and self.lock is None:
            self.crash()
        else:
            self.restart(data.draw(st.integers(0, 1)), data.draw(st.sampled_from([*ANYBODY, *MEMBERS])))

    @rule()
    def lock_or_unlock(self) -> None:
        """Another process locks the file, or unlocks it."""
        if self.lock is None:
            self.lock = apsw.Connection(str(self.path))
            self.lock.execute("BEGIN IMMEDIATE")
        else:
            self.unlock()

    def restart(self, place: int, handler: type[Handler]) -> None:
        """One ends and is started again, maybe with another handler; its clients are gone."""
        self.servers[place].stop()
        self.handlers[place] = handler
        self.servers[place] = self.server(handler)
        self.connections = [each for each in self.connections if not each.client.disconnected]

    def crash(self) -> None:
        """Both are killed at once: what goes on is a copy of what is in the files."""
        following = self.folder / f"{int(self.path.stem) + 1}.db"
        for ending in ("", "-wal"):
            if Path(f"{self.path}{ending}").exists():
                shutil.copyfile(f"{self.path}{ending}", f"{following}{ending}")
        for server in self.servers:
            server.stop()
        self.path = following
        self.servers = [self.server(handler) for handler in self.handlers]
        self.connections = []

    def unlock(self) -> None:
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def time_passes(self, seconds: int) -> None:
        """Ids leave the window, and are removed some time."""
        clock.now += seconds
        for server in self.servers:
            server.advance(2)

    # Clients.

    @rule(place=st.integers(0, 1), identity=st.sampled_from(["alice", "mallory"]), name=st.sampled_from(NAMES))
    def connect(self, place: int, identity: str, name: str) -> None:
        """A client comes; most say at once how they call themselves."""
        handler = self.handlers[place]
        client = self.servers[place].connect()
        if handler in MEMBERS:
            client.send(identity.encode())
        connection = Connection(client, identity if handler in MEMBERS else "", handler)
        self.connections = [*self.connections[-4:], connection]
        if name:
            self.say(connection, [Line("", name)], [])

    def some(self, which: int) -> Connection:
        """A client that is there; there may have to come one."""
        if not self.connections:
            self.connect(which % 2, "alice", "bob")
        return self.connections[which % len(self.connections)]

    @rule(which=WHICH, lines=LINES, cuts=CUTS)
    def send(self, which: int, lines: list[Line], cuts: list[float]) -> None:
        """A client sends anything, in one segment or several that end anywhere."""
        self.say(self.some(which), lines, cuts)

    @rule(which=WHICH, count=st.integers(1, 4), cuts=CUTS)
    def send_new(self, which: int, count: int, cuts: list[float]) -> None:
        """A client sends what it has not sent before."""
        self.say(self.some(which), [Line(f"new-{self.contents + place}", "") for place in range(count)], cuts)

    @rule(which=WHICH, back=st.integers(1, 6), cuts=CUTS)
    def send_again(self, which: int, back: int, cuts: list[float]) -> None:
        """A client sends what was stored last under whatever name, all of it or the first of it."""
        self.say(self.some(which), [Line(row.id, "") for row in self.rows[-back:]] or [Line("1", "")], cuts)

    def say(self, connection: Connection, lines: list[Line], cuts: list[float]) -> None:
        contents = [self.content() for _ in lines]
        data = b"".join(line.encoded(content) for line, content in zip(lines, contents, strict=True))
        places = sorted(int(cut * len(data)) for cut in cuts)
        connection.client.send_raw(*(data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)))
        answers = connection.client.received[connection.read :]
        connection.read += len(lines)
        assert len(answers) == len(lines), (lines, answers)
        for line, content, answer in zip(lines, contents, answers, strict=True):
            expected = self.answer(connection, line, content, answer)
            assert answer.startswith(AWAY) if expected == AWAY else answer == expected, (line, answer, expected)

    @rule(which=WHICH, lines=LINES, place=PLACES)
    def cut(self, which: int, lines: list[Line], place: float) -> None:
        """A connection ends within what it sends. What came complete is handled; what was answered, nobody has read."""
        connection = self.some(which)
        self.connections.remove(connection)
        contents = [self.content() for _ in lines]
        data = b"".join(line.encoded(content) for line, content in zip(lines, contents, strict=True))
        data = data[: int(place * len(data))]
        with connection.client._harness._running():
            connection.client.transport.deliver(data)
            connection.client.transport.end(main.CONNECTION_LOST)
        for line, content in zip(lines[: data.count(b"\n")], contents, strict=False):
            self.answer(connection, line, content, AWAY if self.lock is not None else b"")

    def content(self) -> bytes:
        """Return a new text each time, so that one can see which of two messages with one id was kept."""
        self.contents += 1
        return b"content %d" % self.contents

    # The model.

    def answer(self, connection: Connection, line: Line, content: bytes, answer: bytes) -> bytes:
        """
        Return the answer to a line, and keep its effects in the model.

        :param answer: what it was answered, where that is open.
        """
        source = connection.identity, connection.name
        if line.resume:
            if self.lock is not None and answer.startswith(AWAY):
                connection.behind = "RESUME"
                return AWAY
            connection.name, connection.behind = line.resume, ""
            seq, last = self.last.get((connection.identity, line.resume), (0, ""))
            return b"OK %d @%s" % (seq, last.encode()) if seq else b"OK 0"
        if connection.behind == "RESUME":
            return AWAY
        if source == ("", ""):
            return NAMELESS
        if connection.behind not in ("", line.id):
            return AWAY
        if self.lock is not None:
            connection.behind = line.id
            return AWAY
        connection.behind = ""
        key = (*source, line.id)
        seq, received = self.known.get(key, (0, 0.0))
        if seq and received > clock.now - WINDOW:
            return b"OK %d dup" % seq
        seq = len(self.rows) + 1
        self.rows.append(Row(seq, *key, content))
        self.known[key] = seq, clock.now
        self.last[source] = seq, line.id
        if connection.has_effects:
            self.effects.append((seq, content))
        return b"OK %d" % seq

    @invariant()
    def is_stored(self) -> None:
        """All that was answered OK is in the file, once, with what was sent first, and nothing else is."""
        if not self.path.exists():
            return
        connection = apsw.Connection(str(self.path))
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            rows: list[Any] = []
            if "messages" in tables:
                statement = "SELECT seq, identity, name, id, message FROM messages JOIN sources USING (source)"
                rows = connection.execute(f"{statement} ORDER BY seq").fetchall()
            assert rows == self.rows, (rows, self.rows)
            effects: list[Any] = []
            if "effects" in tables:
                effects = connection.execute("SELECT seq, message FROM effects ORDER BY seq").fetchall()
            assert effects == self.effects, (effects, self.effects)
        finally:
            connection.close()


class AgainstAModel(SynchronousTestCase):
    def test_any_history(self) -> None:
        """Answers, rows, effects, duplicates and RESUME are those of the model, whatever happens in whatever order."""
        self.patch(file_module, "BUSY_TIMEOUT", 0)
        wall_clock = SimpleNamespace(time=lambda: clock.now)
        self.patch(client_journal, "time", wall_clock)
        self.patch(writer, "time", wall_clock)
        self.patch(insertion, "time", wall_clock)
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=50,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                # Not to look for a shorter one, which takes minutes; add Phase.shrink where a failure is hard to read.
                phases=[Phase.generate],
            ),
        )
