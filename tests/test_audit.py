"""Security events: a contract of names and fields, lines that nobody can forge, and a file that survives its disk."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mtserver import BadMessage, Client, Handler
from mtserver.errors import ConfigurationError, Refusal
from mtserver.telemetry import audit
from mtserver.telemetry.audit.file import TEXT_SIZE, AuditFile, check_audit_log
from mtserver.telemetry.audit.log import MOST, WINDOW, AuditLog
from mtserver.telemetry.events import CLIENT_CLOSED, CLIENT_REFUSED, ROOT, START, STOP
from mtserver.telemetry.rate_limit import Rate
from mtserver.testing import Harness
from tests.controls import ControlCase
from tests.logcase import LogCase
from tests.test_session import shout

law = settings(max_examples=100, deadline=None)
ANYTHING = st.text(st.characters(codec=None), max_size=30)


class Recording(LogCase):
    def test_ordinary_log(self) -> None:
        """Without a file an event is a line of the log, and its fields are the event's."""
        CLIENT_CLOSED(client=7, peer="192.0.2.2:4711", reason='no " more=less')
        (line,) = self.logged(LogLevel.info, namespace=audit.NAMESPACE)
        self.assertEqual(line, r'closed client=7 peer=192.0.2.2:4711 reason="no \" more=less"')
        (event,) = self.events
        self.assertEqual((event["audit"], event["client"]), ("closed", 7))

    def test_newcomers(self) -> None:
        """Whoever is refused for want of room is recorded, each one, with its address and why."""
        harness = Harness(shout, max_clients=2, max_clients_per_host=1)
        for host in ("192.0.2.2", "192.0.2.2", "192.0.2.3", "192.0.2.4"):
            harness.connect(host)
        self.assertEqual(
            self.logged(LogLevel.info, namespace=audit.NAMESPACE),
            [
                'refused peer=192.0.2.2:50001 code=busy reason="too many clients from your address"',
                'refused peer=192.0.2.4:50003 code=busy reason="too many clients"',
            ],
        )

    def closed(self, harness: Harness) -> list[tuple[Any, ...]]:
        fields = ("client", "peer", "code")
        return [tuple(event[name] for name in fields) for event in self.events if event.get("audit") == "closed"]

    def test_limits(self) -> None:
        """Whoever is closed for a limit is recorded once: too-long, bad-message, timeout, idle."""
        for code, framing, data, seconds in (
            ("too-long", "line", b"x" * 101, 0),
            ("bad-message", "netstring", b"x", 0),
            ("timeout", "line", b"x", 4),
            ("idle", "line", b"", 12),
        ):
            self.events.clear()
            harness = Harness(shout, framing=framing, max_message=100, message_timeout=2, idle_timeout=10)
            client = harness.connect()
            harness.advance(1)
            client.send_raw(data)
            harness.advance(seconds)
            self.assertEqual(self.closed(harness), [(1, "192.0.2.2:50000", code)])

    def test_slow(self) -> None:
        """So is whoever does not read."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * 1_000_000

        harness = Harness(large, send_timeout=5)
        client = harness.connect()
        client.read(0)
        client.send(b"a")
        harness.advance(8)
        self.assertEqual(self.closed(harness), [(1, "192.0.2.2:50000", "slow")])

    def test_nothing(self) -> None:
        """A refusal that closes nobody is no event, nor is a stop that does."""

        async def refusing(client: Client, message: bytes) -> None:
            raise BadMessage("no")

        harness = Harness(refusing)
        harness.connect().send(b"a", b"b")
        harness.stop()
        self.assertEqual(self.closed(harness), [])

    def test_at_the_gate(self) -> None:
        """Whoever is not let in is recorded once, and so is whoever tries to come in twice."""

        class Trusting(Handler):
            async def authenticate(self, message: bytes) -> str | None:
                return message.decode() if message == b"operator" else None

            async def received(self, message: bytes) -> None:
                raise Refusal("auth", "once is enough", closes=True)

        for message, event in ((b"stranger", "authentication-failed"), (b"operator", "authenticated")):
            self.events.clear()
            harness = Harness(Trusting)
            client = harness.connect()
            client.send(message)
            self.assertEqual([event["audit"] for event in self.events if "audit" in event], [event])
        client.send(b"operator")
        self.assertEqual(self.closed(harness), [(1, "192.0.2.2:50000", "auth")])

    def test_of_the_handler(self) -> None:
        """A handler's refusal that closes is one, and what it quotes of the peer is escaped."""

        async def refusing(client: Client, message: bytes) -> None:
            raise Refusal("unknown-device", message.decode(), closes=True)

        harness = Harness(refusing, framing="int16")
        harness.connect().send(b"\x1b[2J\nforged")
        (event,) = [event for event in self.events if event.get("audit")]
        self.assertEqual((event["code"], event["reason"]), ("unknown-device", r"\x1b[2J\nforged"))


class Rates(LogCase):
    def test_flood(self) -> None:
        """Of a flood the first are recorded, the rest is counted in a later line; other kinds are not touched."""
        clock = Clock()
        log = AuditLog("", clock, most=2)
        self.addCleanup(log.close)
        log.open()
        for number in range(10):
            CLIENT_REFUSED(peer=number)
        STOP()
        clock.advance(WINDOW)
        CLIENT_REFUSED(peer=10)
        clock.advance(WINDOW)
        self.assertEqual(
            self.logged(LogLevel.info, namespace=audit.NAMESPACE),
            ["refused peer=0", "refused peer=1", "stop", "suppressed kind=refused count=8", "refused peer=10"],
        )

    @law
    @given(st.lists(st.sampled_from("ab."), max_size=60), st.integers(1, 5))
    def test_nothing_uncounted(self, events: list[str], most: int) -> None:
        """However they come, no window has more of a kind than it may, and each is admitted or counted."""
        rate, admitted, counted, window = Rate(most), 0, 0, {"a": 0, "b": 0}
        for event in [*events, "."]:
            if event == ".":
                counted += sum(rate.turn().values())
                window = {"a": 0, "b": 0}
            elif rate.admits(event):
                admitted += 1
                window[event] += 1
                self.assertLessEqual(window[event], most)
        self.assertEqual(admitted + counted, len(events) - events.count("."))


class FileCase(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(audit.direct)
        self.path = Path(self.mktemp())

    def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path or self.path).read_text().splitlines()]

    def file(self) -> AuditFile:
        file = AuditFile(str(self.path))
        self.addCleanup(file.close)
        audit.direct(file)
        return file


class Files(FileCase):
    def test_line(self) -> None:
        """A line has time and event, then the fields; the ordinary log has nothing of it."""
        self.file()
        CLIENT_CLOSED(client=7, peer="192.0.2.2:4711", code="idle")
        (line,) = self.lines()
        self.assertEqual(list(line), ["time", "event", "client", "peer", "code"])
        self.assertRegex(line["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
        self.assertEqual((line["event"], line["client"], line["code"]), ("closed", 7, "idle"))
        self.assertEqual(self.events, [])

    @law
    @example("\x7f\n\x1b\x9b\u2028")
    @given(ANYTHING | st.floats() | st.integers() | st.binary(max_size=20) | st.none())
    def test_forged(self, value: Any) -> None:
        """Whatever is recorded is one line of printable ASCII, and JSON; text and numbers come back as they were."""
        path = Path(self.mktemp())
        file = AuditFile(str(path))
        file(CLIENT_CLOSED, {"reason": value})
        file.close()
        written = path.read_bytes()
        self.assertEqual((written.count(b"\n"), written[-1:]), (1, b"\n"))
        self.assertTrue(all(0x20 <= byte < 0x7F for byte in written[:-1]), written)

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        back = json.loads(written, parse_constant=refuse)["reason"]
        self.assertEqual(back, value if isinstance(value, (str, int)) or value is None else back)

    def test_bounded(self) -> None:
        """A line is bounded, however long a text is."""
        self.file()
        CLIENT_CLOSED(reason="\n" * 100_000)
        self.assertEqual(self.lines()[0]["reason"], "\n" * TEXT_SIZE)

    def test_mode(self) -> None:
        """It is made for its owner alone, whatever the umask; one that is there keeps its mode."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.file()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.path.chmod(0o640)
        self.file()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_appended(self) -> None:
        """What is there stays."""
        self.path.write_text("{}\n")
        self.file()
        STOP()
        self.assertEqual(len(self.lines()), 2)

    def test_rotated(self) -> None:
        """A file that was moved or removed is made anew with the next event."""
        self.file()
        START()
        moved = self.path.with_suffix(".1")
        self.path.rename(moved)
        ROOT()
        self.assertEqual([line["event"] for line in self.lines(moved)], ["start"])
        self.path.unlink()
        STOP()
        self.assertEqual([line["event"] for line in self.lines()], ["stop"])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_full_disk(self) -> None:
        """What cannot be written is a line of the ordinary log, raises nowhere, and is counted when it can be again."""
        self.file()
        stock, room = os.write, [0]

        def write(file: int, data: bytes) -> int:
            """A disk with so much room."""
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = stock(file, data[: room[0]])
            room[0] -= written
            return written

        self.patch(os, "write", write)
        CLIENT_CLOSED(client=1)
        room[0] = 20
        CLIENT_CLOSED(client=2)
        (error,) = self.logged(LogLevel.error)
        self.assertRegex(error, "the audit log cannot be written, its events come here: .*No space left")
        lines = ["audit: closed client=1", "audit: closed client=2"]
        self.assertEqual(self.logged(LogLevel.warn), lines)
        room[0] = 1000
        CLIENT_CLOSED(client=3)
        cut, *whole = self.path.read_text().splitlines()
        self.assertEqual(len(cut), 20, "a part of the line that met the end of the disk")
        events = [{name: value for name, value in json.loads(line).items() if name != "time"} for line in whole]
        self.assertEqual(events, [{"event": "lost", "count": 2}, {"event": "closed", "client": 3}])
        self.assertEqual(len(self.logged(LogLevel.warn)), 3)

    def test_folder_gone(self) -> None:
        """A file that can be opened no more stops nobody either."""
        folder = Path(self.mktemp())
        folder.mkdir()
        file = AuditFile(str(folder / "audit.log"))
        self.addCleanup(file.close)
        audit.direct(file)
        (folder / "audit.log").unlink()
        folder.rmdir()
        STOP()
        self.assertEqual(self.logged(LogLevel.warn), ["audit: stop"])

    def test_links(self) -> None:
        """A link is followed neither at the start nor when it takes the file's place."""
        precious = self.path.with_name("precious")
        precious.write_text("precious\n")
        self.file()
        self.path.unlink()
        self.path.symlink_to(precious.absolute())
        STOP()
        self.assertEqual(precious.read_text(), "precious\n")
        self.assertEqual(self.logged(LogLevel.warn), ["audit: stop"])
        self.assertRaisesRegex(ConfigurationError, "that is a symbolic link", check_audit_log, str(self.path))
        self.assertRaises(OSError, AuditFile, str(self.path))

    def test_of_others(self) -> None:
        """Nor is a file written to that others may write to, and that has taken its place."""
        self.file()
        self.path.unlink()
        self.path.touch()
        self.path.chmod(0o666)
        STOP()
        self.assertEqual((self.path.read_text(), self.logged(LogLevel.warn)), ("", ["audit: stop"]))

    def test_mistakes(self) -> None:
        """A folder, a folder that is not there, and a file that others may write to are named in one line."""
        self.assertRaisesRegex(ConfigurationError, r"\A--audit-log \.: that is a folder\Z", check_audit_log, ".")
        self.assertRaisesRegex(ConfigurationError, "there is no folder no/such", check_audit_log, "no/such/file")
        self.path.touch()
        self.path.chmod(0o622)
        self.assertRaisesRegex(ConfigurationError, r"others may write to it \(chmod", check_audit_log, str(self.path))
        self.path.chmod(0o640)
        check_audit_log(str(self.path))
        check_audit_log("not-there-yet")
        self.assertFalse(Path("not-there-yet").exists())


class Lives(FileCase):
    def test_life(self) -> None:
        """From open to close events go to the file, bounded, and each minute tells what was suppressed."""
        clock = Clock()
        log = AuditLog(str(self.path), clock)
        log.open()
        for _ in range(2):
            for _ in range(MOST + 5):
                CLIENT_REFUSED(code="busy")
            clock.advance(WINDOW)
        for _ in range(MOST + 1):
            CLIENT_REFUSED(code="busy")
        log.close()
        lines = self.lines()
        self.assertEqual([line["count"] for line in lines if line["event"] == "suppressed"], [5, 5, 1])
        self.assertEqual(len(lines), 3 * MOST + 3)
        self.assertEqual(clock.getDelayedCalls(), [])
        STOP()
        self.assertEqual(self.logged(LogLevel.info, namespace=audit.NAMESPACE), ["stop"])

    def test_without_a_file(self) -> None:
        """Without a file the ordinary log is bounded just so; one that was never opened closes as well."""
        clock = Clock()
        log = AuditLog("", clock)
        log.close()
        log.open()
        for _ in range(MOST + 5):
            CLIENT_REFUSED()
        log.close()
        lines = self.logged(LogLevel.info, namespace=audit.NAMESPACE)
        self.assertEqual((len(lines), lines[-1]), (MOST + 1, "suppressed kind=refused count=5"))


class Controls(ControlCase):
    def test_read_by_everyone(self) -> None:
        """The audit log may be read by whoever is on the machine."""
        right = os.open
        with self.noticed_by(Files, "test_mode"):
            self.patch(os, "open", lambda path, flags, mode=0o777, **more: right(path, flags, mode | 0o044, **more))

    def test_filled_by_a_flood(self) -> None:
        """P8: whoever is refused again and again fills the disk."""
        with self.noticed_by(Rates, "test_flood"):
            self.patch(Rate, "admits", lambda *_: True)
