"""The journal on real nats-servers: what it keeps, and what becomes of it when they die, hang, or are changed."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .nats import STOPPED, Nats
from .peer import Crowd, Peer
from .server import TCP, Server, needs, run_to_end, wait_until
from .streams import api, contents, done
from .test_collect import numbers

UNAVAILABLE = rb"\AERR unavailable retry-after=[1-9]\d* "
SECOND = 1_000_000_000
#: Ioctl of Linux: the file system stops where it is.
EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = 2

READER = """
    from mtserver import App, Handler

    class Reader(Handler):
        async def received(self, message: str) -> str:
            journal = self.client.app.journal
            word, *numbers = message.split()
            if word == "read":
                return repr([tuple(each) for each in await journal.read(*map(int, numbers))])
            if word == "count":
                return str(len(await journal.read(*map(int, numbers))))
            if word == "position":
                return str(await journal.position())
            if word == "last":
                return repr(await journal.last("", numbers[0]))
            if word == "id":
                return bytes(await self.client.journal(b"x", id=numbers[0])).decode()
            if word == "store":
                return bytes(await self.client.journal(b"x" * int(numbers[0]))).decode()
            async with self.client.transaction(message.encode()):
                return "never"

    app = App(Reader, uses_journal=True)
"""


@contextlib.contextmanager
def disk_that_loses_power(folder: Path) -> Iterator[Callable[[Callable[[], None]], None]]:
    """
    A file system in `folder`, and what cuts its power: what is not on disk then never will be.

    That is called with what ends those who have files open there.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise SkipTest("needs root: mounts an image")
    mount, umount, make = needs("mount", "mount"), needs("umount", "mount"), needs("mkfs.ext4", "e2fsprogs")
    with tempfile.NamedTemporaryFile(prefix="mtserver-disk-") as image:
        image.truncate(300_000_000)
        subprocess.run([make, "-q", image.name], check=True)
        command = [mount, "-o", "loop", image.name, str(folder)]
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            raise SkipTest(f"needs root that may mount an image: {made.stderr.decode().strip()}")

        def cut(end: Callable[[], None]) -> None:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
            finally:
                os.close(descriptor)
            end()
            subprocess.run([umount, folder], check=True)
            subprocess.run(command, check=True)

        try:
            yield cut
        finally:
            subprocess.run([umount, "-l", folder], check=True)


class JetStreamCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def nats(self, count: int = 1, **more: str) -> Nats:
        return self.stack.enter_context(Nats(count, **more))

    def node(self, nats: Nats, *options: str, query: str = "?sync=always", modules: Mapping[str, str] = {}) -> Server:
        return self.stack.enter_context(Server("--journal", f"{nats.url}/J{query}", *options, modules=modules))

    def peer(self, server: Server) -> Peer:
        return self.stack.enter_context(server.connect())

    def recovers(self, peer: Peer, message: bytes = b"again") -> bytes:
        """The first answer that is not ``ERR unavailable``; each attempt is a message."""

        def answer() -> bytes:
            (line,) = peer.exchange(message)
            if line.startswith(b"ERR "):
                self.assertRegex(line, UNAVAILABLE)
                return b""
            return line

        line: bytes = wait_until(answer, "recovery")
        return line


def load(
    server: Server, clients: int, burst: int, over: Callable[[int], bool]
) -> tuple[dict[int, bytes], list[list[bytes]]]:
    """
    Many clients who send a burst as soon as the one before is answered, until it is `over`.

    :param over: asked with the number of answers so far.
    :returns: what was acknowledged, and what was refused of each.
    """
    acknowledged: dict[int, bytes] = {}
    refused: list[list[bytes]] = [[] for _ in range(clients)]
    with Crowd(server.port, clients) as crowd:
        sent = [0] * clients

        def send(index: int) -> None:
            crowd.send(
                index, b"".join(b"%d:%d\n" % (index, count) for count in range(sent[index], sent[index] + burst))
            )
            sent[index] += burst

        def answers() -> int:
            return sum(received.count(b"\n") for received in crowd.received)

        for index in range(clients):
            send(index)
        while not over(answers()):
            for index in crowd.read_once(0.1):
                if crowd.received[index].count(b"\n") == sent[index]:
                    send(index)
        crowd.read_until(lambda: answers() == sum(sent))
        assert crowd.ended == {}
        for index in range(clients):
            lines = crowd.lines(index)
            for count, line in enumerate(lines):
                message = b"%d:%d" % (index, count)
                if line.startswith(b"OK "):
                    number = int(line.split()[1])
                    assert number not in acknowledged, (number, message, acknowledged[number])
                    acknowledged[number] = message
                else:
                    assert re.match(UNAVAILABLE, line), line
                    refused[index].append(message)
    return acknowledged, refused


class Collecting(JetStreamCase):
    def test_many_clients(self) -> None:
        """1,000 messages of 50 clients: as many numbers, each for its message, in each client's order."""
        nats = self.nats()
        server = self.node(nats)
        with Crowd(server.port, 50) as crowd:
            for index in range(50):
                crowd.send(index, b"".join(b"%d:%d\n" % (index, count) for count in range(20)))
            crowd.read_until(lambda: sum(received.count(b"\n") for received in crowd.received) >= 1000)
            answers = [numbers(crowd.lines(index)) for index in range(50)]
        stored = contents(nats, "J")
        self.assertEqual([found.sequence for found in stored], list(range(1, 1001)))
        messages = {found.sequence: found.message for found in stored}
        for index, answer in enumerate(answers):
            self.assertEqual(answer, sorted(answer))
            self.assertEqual([messages[number] for number in answer], [b"%d:%d" % (index, n) for n in range(20)])
        self.assertEqual({found.subject for found in stored}, {"J.plain"})

    def test_larger_than_a_go(self) -> None:
        """More messages at once than a server takes in one go, and the largest that may be, among small ones."""
        server = self.node(self.nats(), "--max-message", "1000000")
        peer = self.peer(server)
        self.assertEqual(numbers(peer.exchange(*[b"x"] * 5000)), list(range(1, 5001)))
        answers = peer.exchange(b"one", b"y" * 1_000_000, b"two", b"y" * 1_000_000)
        self.assertEqual(numbers(answers), [5001, 5002, 5003, 5004])

    def test_larger_than_the_server_takes(self) -> None:
        """A server that takes less than --max-message is not used; what a handler stores is looked at as well."""
        nats = self.nats()
        server = self.node(nats, "--max-message", "1040000")
        self.assertRegex(self.peer(server).exchange(b"small")[0], UNAVAILABLE)
        server.wait_for_log(
            r"cannot store: a message may have 1048576 bytes there \(max_payload, max_msg_size\), and --max-message is "
            r"1040000, with up to 16384 around it"
        )
        peer = self.peer(self.node(nats, "--app", "reader:app", modules={"reader": READER}))
        answer, after = peer.exchange(b"store 1048577", b"store 9")
        self.assertRegex(answer, rb"\AERR bad-message a message, with what is known of it, may have 1048576 bytes here")
        self.assertEqual(after, b"OK 1")

    def test_reading(self) -> None:
        """Messages and position are read as they were stored, in pages of any size; there is no transaction."""
        nats = self.nats()
        server = self.node(nats)
        peer = self.peer(server)
        peer.exchange(b"one\xff", b"two", b"three")
        large = [b"x" * 60_000] * 40
        peer.exchange(*large)
        reader = self.peer(self.node(nats, "--app", "reader:app", modules={"reader": READER}))
        (answer,) = reader.exchange(b"read 0 2")
        self.assertRegex(
            answer, rb"\A\[\(1, 1\d+\.\d+, 1, '127\.0\.0\.1:\d+', '', '', '', b'one\\xff'\), \(2, .*b'two'\)\]\Z"
        )
        self.assertEqual(reader.exchange(b"position", b"read 43", b"count 0 1000"), [b"43", b"[]", b"43"])
        self.assertEqual(reader.exchange(b"read 99", b"count 40", b"last dev"), [b"[]", b"3", b"None"])
        self.assertRegex(reader.exchange(b"transaction")[0], rb"\AERR internal")

    def test_names(self) -> None:
        """Names and ids that mean something to NATS are just names and ids."""
        nats = self.nats()
        server = self.node(nats, "--message-ids")
        names = [b"*", b">", b"a.b", b"a", b"a.*", b"$JS", b"%2E", b"=", b"#"]
        for name in names:
            peer = self.peer(server)
            self.assertEqual(peer.exchange(b"RESUME " + name), [b"OK 0"])
            self.assertRegex(peer.exchange(b"@%s x" % name)[0], rb"\AOK \d+\Z")
        for number, name in enumerate(names, 1):
            self.assertEqual(self.peer(server).exchange(b"RESUME " + name), [b"OK %d @%s" % (number, name)])
        self.assertEqual(len(contents(nats, "J")), len(names))


class Once(JetStreamCase):
    def test_two_nodes(self) -> None:
        """The same id through two nodes is one copy in the stream, and RESUME through either goes on from there."""
        nats = self.nats()
        one, two = self.node(nats, "--message-ids"), self.node(nats, "--message-ids")
        first, second = self.peer(one), self.peer(two)
        self.assertEqual(first.exchange(b"RESUME dev", b"@1 a", b"@2 b"), [b"OK 0", b"OK 1", b"OK 2"])
        self.assertEqual(second.exchange(b"RESUME dev"), [b"OK 2 @2"])
        # One batch: the first part is known, the rest is new.
        self.assertEqual(
            second.exchange(b"@1 a", b"@2 b", b"@3 c", b"@4 d"), [b"OK 1 dup", b"OK 2 dup", b"OK 3", b"OK 4"]
        )
        self.assertEqual(
            first.exchange(b"@5 e", b"@3 c", b"@5 e", b"@6 f"), [b"OK 5", b"OK 3 dup", b"OK 5 dup", b"OK 6"]
        )
        self.assertEqual(second.exchange(b"RESUME other", b"@1 a"), [b"OK 0", b"OK 7"])
        self.assertEqual([found.message for found in contents(nats, "J")], [b"a", b"b", b"c", b"d", b"e", b"f", b"a"])

    def test_at_the_same_time(self) -> None:
        """40 clients of the same name on two nodes send the same 200 ids at the same time: each is stored once."""
        nats = self.nats()
        nodes = [self.node(nats, "--message-ids"), self.node(nats, "--message-ids")]
        crowds = [self.stack.enter_context(Crowd(node.port, 20)) for node in nodes]
        text = b"RESUME dev\n" + b"".join(b"@%d m%d\n" % (number, number) for number in range(200))
        for crowd in crowds:
            for index in range(20):
                crowd.send(index, text)
        for crowd in crowds:
            crowd.read_until(lambda: all(received.count(b"\n") == 201 for received in crowd.received))  # noqa: B023
        stored = {found.message: found.sequence for found in contents(nats, "J")}
        self.assertEqual(sorted(stored.values()), list(range(1, 201)))
        new = 0
        for crowd in crowds:
            for index in range(20):
                lines = crowd.lines(index)[1:]
                self.assertEqual([int(line.split()[1]) for line in lines], [stored[b"m%d" % n] for n in range(200)])
                new += sum(not line.endswith(b" dup") for line in lines)
        self.assertEqual(new, 200)

    def test_stream_that_takes_one_at_a_time(self) -> None:
        """A stream that is there, made otherwise: used as it is, and each thing that it cannot do is said in a line."""
        nats = self.nats()
        config = {"name": "J", "subjects": ["J.>"], "duplicate_window": 120 * SECOND, "max_bytes": 10_000_000}
        done(api(nats, "STREAM.CREATE.J", **config))
        server = self.node(nats, "--message-ids", "--dedupe-window", "120", "--keep", "30d,1GB")
        for line in (
            r"it keeps messages for 0 s \(0: for ever\), and --keep says 2592000 s",
            r"it keeps 10000000 bytes \(0: no limit\), and --keep says 1000000000",
            r"it cannot store several messages all or none",
        ):
            server.wait_for_log(f"the stream J: {line}")
        peer = self.peer(server)
        ids = [b"@%d m" % number for number in range(300)]
        self.assertEqual(numbers(peer.exchange(b"RESUME dev", *ids)[1:]), list(range(1, 301)))
        self.assertEqual(peer.exchange(b"@299 m", b"@300 m"), [b"OK 300 dup", b"OK 301"])
        plain = self.peer(self.node(nats))
        self.assertEqual(numbers(plain.exchange(*[b"x"] * 600)), list(range(302, 902)))
        reader = self.peer(self.node(nats, "--app", "reader:app", modules={"reader": READER}))
        self.assertEqual(reader.exchange(b"count 0 950", b"last dev"), [b"901", b"Last(sequence=301, id='300')"])
        info = done(api(nats, "STREAM.INFO.J"))
        self.assertEqual(info["config"]["duplicate_window"], 120 * SECOND)

    def test_ids_known_for_less(self) -> None:
        """A stream that forgets ids too early stores no message with one, until it is changed; without ids it does."""
        nats = self.nats()
        config = {"name": "J", "subjects": ["J.>"]}
        done(api(nats, "STREAM.CREATE.J", **config, duplicate_window=120 * SECOND))
        server = self.node(nats, "--message-ids", "--dedupe-window", "600")
        peer = self.peer(server)
        self.assertRegex(peer.exchange(b"RESUME dev")[0], UNAVAILABLE)
        server.wait_for_log(r"cannot store: it knows ids for 120 s \(duplicate_window\), and --dedupe-window is 600")
        self.assertEqual(self.peer(self.node(nats)).exchange(b"x"), [b"OK 1"])
        done(api(nats, "STREAM.UPDATE.J", **config, duplicate_window=600 * SECOND))
        self.recovers(peer, b"RESUME dev")
        self.assertEqual(peer.exchange(b"@1 m", b"@1 m"), [b"OK 2", b"OK 2 dup"])

    def test_a_handlers_ids_known_for_less(self) -> None:
        """The same of ids that only a handler gives: what has one is refused, all else stored, and the log says so."""
        nats = self.nats()
        config = {"name": "J", "subjects": ["J.>"]}
        done(api(nats, "STREAM.CREATE.J", **config, duplicate_window=SECOND))
        server = self.node(nats, "--dedupe-window", "600", "--app", "reader:app", modules={"reader": READER})
        peer = self.peer(server)
        self.assertEqual(peer.exchange(b"store 1"), [b"OK 1"])
        self.assertRegex(peer.exchange(b"id one")[0], UNAVAILABLE)
        server.wait_for_log(
            r"the stream J: it knows ids for 1 s .*--dedupe-window is 600: what a handler gives an id is"
        )
        done(api(nats, "STREAM.UPDATE.J", **config, duplicate_window=600 * SECOND))
        self.assertEqual(self.recovers(peer, b"id one"), b"OK 2")
        self.assertEqual(peer.exchange(b"id one", b"store 1"), [b"OK 2 dup", b"OK 3"])

    def test_how_a_stream_is_made(self) -> None:
        """The window and what is kept are as the options say, where there was no stream."""
        nats = self.nats()
        self.node(nats, "--dedupe-window", "7200", "--keep", "3h,1GB").wait_for_log("the stream J is new")
        config = done(api(nats, "STREAM.INFO.J"))["config"]
        self.assertEqual(config["duplicate_window"], 7200 * SECOND)
        self.assertEqual((config["max_age"], config["max_bytes"]), (3 * 3600 * SECOND, 10**9))
        self.assertEqual((config["discard"], config["storage"], config["num_replicas"]), ("old", "file", 1))


class Faults(JetStreamCase):
    def killed(self, jetstream: str) -> None:
        nats = self.nats(jetstream=jetstream)
        server = self.node(nats)
        state = {"killed": False}

        def over(answers: int) -> bool:
            if not state["killed"] and answers > 2000:
                nats.kill()
                state["killed"] = True
            return state["killed"] and "cannot store" in server.log

        acknowledged, refused = load(server, 20, 50, over)
        self.assertGreater(sum(map(len, refused)), 0)
        nats.start()
        self.assertRegex(self.recovers(self.peer(server)), rb"\AOK \d+\Z")
        stored = {found.sequence: found.message for found in contents(nats, "J")}
        self.assertEqual({number: stored.get(number) for number in acknowledged}, acknowledged)
        server.wait_for_log("the stream J is back")

    def test_killed(self) -> None:
        """nats-server is killed (-9) in mid-load, and back: refused meanwhile, and all acknowledged is there."""
        self.killed("sync_interval: always")

    def test_killed_without_syncs(self) -> None:
        """The same with a server that syncs every two minutes: what it has written, the kernel has."""
        self.killed('sync_interval: "2m"')

    def test_stopped(self) -> None:
        """Stopped (SIGSTOP) under load: no false OK, memory bounded, everybody answered, and well after SIGCONT."""
        nats = self.nats()
        server = self.node(nats)
        self.assertEqual(self.peer(server).exchange(b"before"), [b"OK 1"])
        before = server.memory("VmRSS")
        nats.stop()
        began = time.monotonic()
        acknowledged, refused = load(server, 50, 200, lambda _: time.monotonic() > began + STOPPED)
        self.assertEqual(acknowledged, {})
        self.assertTrue(all(refused))
        more = server.memory("VmHWM") - before
        self.assertLess(more, 100 * 1024 * 1024)
        nats.go_on()
        went_on = time.monotonic()
        self.recovers(self.peer(server))
        print(  # noqa: T201 - measured, and not asserted
            f"NATS stopped for {STOPPED:g} s: {sum(map(len, refused))} messages refused, none acknowledged, "
            f"{more / 1e6:.1f} MB more, well after {time.monotonic() - went_on:.1f} s"
        )
        self.assertIn(b"again", {found.message for found in contents(nats, "J")})

    def test_away_at_the_start(self) -> None:
        """Not there when the server starts: refused, and well as soon as it is."""
        nats = self.nats()
        nats.kill()
        server = self.node(nats)
        peer = self.peer(server)
        self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
        reader = self.peer(self.node(nats, "--app", "reader:app", modules={"reader": READER}))
        self.assertRegex(reader.exchange(b"read 0")[0], UNAVAILABLE + rb"the journal cannot be read now: it is away\Z")
        nats.start()
        self.assertEqual(self.recovers(peer), b"OK 1")

    def test_full(self) -> None:
        """A stream that is full and keeps what it has: refused, nothing of it is stored, and on when there is room."""
        nats = self.nats()
        full = {"name": "J", "subjects": ["J.>"], "discard": "new", "max_msgs": 20, "allow_atomic": True}
        done(api(nats, "STREAM.CREATE.J", **full, duplicate_window=120 * SECOND))
        server = self.node(nats)
        peer = self.peer(server)
        self.assertEqual(numbers(peer.exchange(*[b"x"] * 15)), list(range(1, 16)))
        for answer in peer.exchange(*[b"too many"] * 15):
            self.assertRegex(answer, UNAVAILABLE)
        server.wait_for_log("the stream J has refused to store: maximum messages exceeded")
        self.assertEqual(done(api(nats, "STREAM.INFO.J"))["state"]["messages"], 15)
        done(api(nats, "STREAM.PURGE.J"))
        self.assertRegex(self.recovers(peer), rb"\AOK \d+\Z")

    def test_one_is_full(self) -> None:
        """A stream that takes so many of each source: who has sent them is refused, nobody else, and in one line."""
        nats = self.nats()
        few = {"discard": "new", "discard_new_per_subject": True, "max_msgs_per_subject": 3, "allow_atomic": True}
        done(api(nats, "STREAM.CREATE.J", name="J", subjects=["J.>"], duplicate_window=600 * SECOND, **few))
        server = self.node(nats, "--message-ids", "--dedupe-window", "600")
        full = self.peer(server)
        self.assertEqual(numbers(full.exchange(b"RESUME full", b"@1 x", b"@2 x", b"@3 x")[1:]), [1, 2, 3])
        with Crowd(server.port, 12) as crowd:
            for place in range(20):
                for index in range(12):
                    crowd.send(index, b"RESUME %d-%d\n" % (index, place))
                crowd.read_until(lambda: all(text.count(b"\n") == 4 * place + 1 for text in crowd.received))  # noqa: B023
                for index in range(12):
                    crowd.send(index, b"@1 x\n@2 x\n@3 x\n")
                    if index == 5:
                        full.send(b"@%d x\n" % (4 + place))
                crowd.read_until(lambda: all(text.count(b"\n") == 4 * (place + 1) for text in crowd.received))  # noqa: B023
            self.assertEqual({line[:3] for index in range(12) for line in crowd.lines(index)}, {b"OK "})
        for line in full.lines(20):
            self.assertRegex(line, UNAVAILABLE)
        self.assertEqual(server.log.count("has refused to store: "), 1)
        self.assertNotIn("cannot store", server.log)
        self.assertNotIn("is back", server.log)

    def test_dropping(self) -> None:
        """A stream that drops what it has acknowledged is not used, until it does not."""
        nats = self.nats()
        config = {"name": "J", "subjects": ["J.>"], "duplicate_window": 120 * SECOND}
        done(api(nats, "STREAM.CREATE.J", **config, max_msgs_per_subject=1))
        server = self.node(nats)
        peer = self.peer(server)
        self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
        server.wait_for_log(r"cannot store: it drops what it has acknowledged \(max_msgs_per_subject 1, without ")
        done(api(nats, "STREAM.UPDATE.J", **config, max_age=3600 * SECOND))
        self.assertEqual(self.recovers(peer), b"OK 1")
        server.wait_for_log(r"the stream J: it keeps messages for 3600 s .*, and --keep says nothing of that")

    def test_deleted(self) -> None:
        """The stream is deleted under the server: it says so, and goes on with a new one."""
        nats = self.nats()
        server = self.node(nats)
        peer = self.peer(server)
        self.assertEqual(peer.exchange(b"a", b"b"), [b"OK 1", b"OK 2"])
        done(api(nats, "STREAM.DELETE.J"))
        self.assertEqual(self.recovers(peer), b"OK 1")
        gone = "the stream J is gone with all that was in it; going on with a new one"
        server.wait_for_log(gone)
        config = done(api(nats, "STREAM.INFO.J"))["config"]
        done(api(nats, "STREAM.DELETE.J"))
        done(api(nats, "STREAM.CREATE.J", **config))
        wait_until(lambda: server.log.count(gone) == 2, "another one, whoever made it")

    def test_somebody_elses(self) -> None:
        """A stream that does not take our subjects, or says nothing, is not used, and the log says why."""
        nats = self.nats()
        done(api(nats, "STREAM.CREATE.J", name="J", subjects=["other.>"]))
        server = self.node(nats)
        peer = self.peer(server)
        self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
        server.wait_for_log(r"cannot store: it does not take the subjects J\.>")
        done(api(nats, "STREAM.UPDATE.J", name="J", subjects=["J.>"], no_ack=True))
        server.wait_for_log(r"cannot store: it acknowledges nothing")
        done(api(nats, "STREAM.UPDATE.J", name="J", subjects=["J.>"]))
        self.assertEqual(self.recovers(peer), b"OK 1")


class PowerCut(JetStreamCase):
    def lost(self, jetstream: str) -> tuple[int, int]:
        """How many messages were acknowledged as durable, and how many of them a power cut took."""
        nats = Nats(jetstream=jetstream)
        self.addCleanup(nats.close)
        disk = nats.folder / "0"
        disk.mkdir()
        with disk_that_loses_power(disk) as cut, nats:
            server = self.node(nats)
            acknowledged, _ = load(server, 20, 10, lambda answers: answers >= 1000)
            cut(nats.kill)
            nats.start()
            self.recovers(self.peer(server))
            stored = {found.sequence: found.message for found in contents(nats, "J")}
        return len(acknowledged), sum(stored.get(number) != message for number, message in acknowledged.items())

    def test_what_sync_always_is_worth(self) -> None:
        """A power cut takes nothing of what a server that syncs always has acknowledged, and else what it finds."""
        acknowledged, lost = self.lost("sync_interval: always")
        self.assertGreaterEqual(acknowledged, 1000)
        self.assertEqual(lost, 0)
        acknowledged, lost = self.lost('sync_interval: "2m"')
        self.assertGreater(lost, 0, "the default does no harm any more: say so in docs/journal-jetstream.md")


class Levels(JetStreamCase):
    def test_without_a_word(self) -> None:
        """Messages are ``accepted``, in each answer, if the operator does not say that the servers sync."""
        server = self.node(self.nats(jetstream=""" sync_interval: "2m" """), "--ack", "accepted", query="")
        self.assertEqual(self.peer(server).exchange(b"a", b"b"), [b"OK 1 accepted", b"OK 2 accepted"])

    def test_refused_at_the_start(self) -> None:
        """Options that no such stream can meet, or that cannot be read, are one line before any port is open."""
        with tempfile.TemporaryDirectory() as folder:
            for options, reason in (
                (("nats://127.0.0.1/J",), "is accepted at most; say --ack accepted, or ?sync=always if its servers do"),
                (
                    ("nats://127.0.0.1/J?sync=always&replicas=1", "--ack", "replicated"),
                    "durable at most; say ?replicas=3",
                ),
                (("nats://127.0.0.1",), "not of the form nats://HOST"),
                (("nats://127.0.0.1/J?sync=never",), "behind the ? may stand"),
            ):
                ended = run_to_end(Path(folder), "--port", TCP, "--journal", *options)
                self.assertEqual((ended.returncode, ended.stderr.count("\n")), (1, 1), ended.stderr)
                self.assertIn(reason, ended.stderr)
            asked = ("--port", TCP, "--journal", "nats://127.0.0.1/J?sync=always")
            ended = run_to_end(Path(folder), *asked, twistd=("--reactor=epoll",))
            self.assertIn("needs a reactor on asyncio, and EPollReactor is not", ended.stderr)

    def test_memory(self) -> None:
        """A stream in memory is accepted at most, whatever is said of the disks: durable is refused until it is not."""
        nats = self.nats()
        done(api(nats, "STREAM.CREATE.J", name="J", subjects=["J.>"], storage="memory"))
        server = self.node(nats)
        peer = self.peer(server)
        self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
        server.wait_for_log(r"it is accepted at most \(memory storage, 1 replica\), and --ack is durable")
        done(api(nats, "STREAM.DELETE.J"))
        self.assertEqual(self.recovers(peer), b"OK 1")


class Cluster(JetStreamCase):
    def test_at_the_same_time(self) -> None:
        """The same ids through two nodes at once, among others': each is stored once, and nobody is refused for it."""
        nats = self.nats(3)
        nodes = [self.node(nats, "--message-ids", query="?sync=always&replicas=3") for _ in range(2)]
        for node in nodes:
            self.recovers(self.peer(node), b"RESUME nobody")
        crowds = [self.stack.enter_context(Crowd(node.port, 12)) for node in nodes]
        for crowd in crowds:
            for index in range(12):
                crowd.send(index, b"RESUME %s\n" % (b"same" if index == 0 else b"%d-%d" % (id(crowd), index)))
        for count in range(1, 16):
            for crowd in crowds:
                for index in range(12):
                    crowd.send(index, b"@%da %d\n@%db %d\n" % (count, count, count, count))
            for crowd in crowds:
                crowd.read_until(lambda: all(text.count(b"\n") == 2 * count + 1 for text in crowd.received))  # noqa: B023
        for crowd in crowds:
            for index in range(12):
                self.assertEqual({line[:3] for line in crowd.lines(index)}, {b"OK "})
        stored = [found.headers["Nats-Msg-Id"] for found in contents(nats, "J")]
        self.assertEqual(sorted(stored), sorted(set(stored)))
        self.assertEqual(len(stored), 23 * 30)
        ours = [each.rpartition(".")[2] for each in stored if each.startswith("=.same.")]
        self.assertEqual(ours, [f"{count}{letter}" for count in range(1, 16) for letter in "ab"])

    def test_replicas(self) -> None:
        """
        Three replicas, their leader killed in mid-load: nothing acknowledged is lost. The level is what the stream
        is: with fewer replicas ``replicated`` is refused, and never lowered.
        """
        nats = self.nats(3)
        server = self.node(nats, "--ack", "replicated")
        peer = self.peer(server)
        self.assertEqual(self.recovers(peer), b"OK 1 replicated")
        leader = done(api(nats, "STREAM.INFO.J"))["cluster"]["leader"]
        state = {"killed": 0, "enough": 0}

        def over(answers: int) -> bool:
            if not state["killed"] and answers > 2000:
                nats.kill(int(leader[1:]))
                state["killed"] = answers
            if state["killed"] and not state["enough"] and server.log.count("is back") and answers > state["killed"]:
                state["enough"] = answers + 2000
            return bool(state["enough"]) and answers > state["enough"]

        acknowledged, refused = load(server, 20, 20, over)
        nats.start(int(leader[1:]))
        stored = {found.sequence: found.message for found in contents(nats, "J")}
        self.assertEqual({number: stored.get(number) for number in acknowledged}, acknowledged)
        self.assertGreater(sum(map(len, refused)), 0)
        self.assertGreater(len(acknowledged), 2000)
        config = done(api(nats, "STREAM.INFO.J"))["config"]
        done(api(nats, "STREAM.UPDATE.J", **{**config, "num_replicas": 1}))
        server.wait_for_log(r"it is durable at most \(file storage, 1 replica\), and --ack is replicated")
        self.assertRegex(peer.exchange(b"lost")[0], UNAVAILABLE)
        done(api(nats, "STREAM.UPDATE.J", **config))
        self.assertRegex(self.recovers(peer), rb"\AOK \d+ replicated\Z")
