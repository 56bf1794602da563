"""Logging, printing and warning by a handler, in the log of a real server: as text and as JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE
from .server import TCP, Server, run_to_end, script, wait_until

MODULES = {
    "till": """
        import asyncio
        import logging
        import warnings

        logging.basicConfig()  # as many a program does; it is not to make two lines of one
        log = logging.getLogger("till")
        tasks = set()

        async def later():
            await asyncio.sleep(0.01)
            logging.getLogger("till.later").info("later")

        async def sell(client, message: str) -> str:
            log.debug("debug")
            log.info("sold %s", message, extra={"price": 7})
            logging.getLogger("till.receipts").debug("receipt")
            log.warning("few left")
            print("printed")
            try:
                int("five\\x1b[2J")
            except ValueError:
                log.exception("no number")
            warnings.warn("old way")
            task = asyncio.ensure_future(later())
            tasks.add(task)
            return "sold"

        def block(client, message: str) -> str:
            log.info("in a thread")
            print("printed in a thread")
            return "done"

        async def remind(client, message: str) -> None:
            from twisted.internet import reactor
            reactor.callLater(float(message), log.info, "%s of client %s", message, client.id)
    """
}


class TestLogging(SynchronousTestCase):
    def log_of(
        self, *options: str, app: str = "till:sell", until: str = "later", modules: Any = MODULES, **server: Any
    ) -> str:
        """The log of a server that has sold something to one of its two clients."""
        with Server("--app", app, *options, modules=modules, **server) as served:
            with served.connect() as idle, served.connect() as peer:
                peer.exchange(b"tea")
                served.wait_for_log(until)
                idle.finish()
            served.stop()
            self.assertEqual(served.wait(), 0)
            return served.log

    def lines(self, log: str) -> list[tuple[str, str, str]]:
        """Namespace, level and text of each line that is not mtserver's or Twisted's own."""
        found = re.findall(r"^\S+ \[([^\]#]+)#(\w+)\] (.*)$", log, re.MULTILINE)
        return [line for line in found if line[0].split(".")[0] not in ("mtserver", "twisted", "-")]

    def test_text(self) -> None:
        """Text has name, level, and which client's message it was; a traceback behind it; print as what it is."""
        log = self.log_of()
        client = re.search(r"\[client (\d)\] sold tea", log)
        assert client is not None, log
        said = f"[client {client[1]}] "
        found = self.lines(log)
        self.assertEqual(
            [line for line in found if line[0] != "py.warnings"],
            [
                ("till", "info", said + "sold tea"),
                ("till", "warn", said + "few left"),
                ("stdout", "info", said + "printed"),
                ("till", "error", said + "no number"),
                ("till.later", "info", said + "later"),
            ],
        )
        (warning,) = [line for line in found if line[0] == "py.warnings"]
        self.assertEqual(warning[1], "warn")
        self.assertRegex(warning[2], rf"\A{re.escape(said)}\S+till\.py:\d+: UserWarning: old way\Z")
        self.assertIn(
            "no number\n\tTraceback (most recent call last):\n", log.replace(said, ""), "a traceback is indented"
        )
        self.assertIn(r"ValueError: invalid literal for int() with base 10: 'five\\x1b[2J'", log)
        self.assertNotIn("stderr", log)
        self.assertNotIn("\x1b", log)

    def test_json(self) -> None:
        """JSON has one object for each, the client a field as what `extra` has."""
        log = self.log_of("--log-format", "json", until='"later"')
        events = [json.loads(line) for line in log.splitlines()]
        (sold,) = [event for event in events if event["text"] == "sold tea"]
        self.assertEqual((sold["namespace"], sold["level"], sold["price"]), ("till", "info", 7))
        ours = [event for event in events if event["namespace"] in ("till", "till.later", "stdout", "py.warnings")]
        self.assertEqual({event["client"] for event in ours}, {sold["client"]})
        (failed,) = [event for event in ours if event["level"] == "error"]
        self.assertTrue(failed["text"].startswith("no number\nTraceback (most recent call last):\n"))
        self.assertEqual([event["text"] for event in ours if event["namespace"] == "stdout"], ["printed"])
        self.assertEqual(len(ours), 6)
        self.assertFalse([event for event in events if event["namespace"] == "stderr"])

    def test_thread(self) -> None:
        """Threads say it likewise."""
        found = self.lines(self.log_of(app="till:block", until="printed in a thread"))
        texts = {re.sub(r"\[client \d\] ", "", text) for name, _, text in found}
        self.assertEqual(texts, {"in a thread", "printed in a thread"})
        for _, _, text in found:
            self.assertRegex(text, r"\A\[client \d\] ")

    def test_timers(self) -> None:
        """Calls by Twisted's callLater are nobody's: one timer calls for all, and would have one name for all."""
        for reactor in ("uv", "asyncio"):
            command = ("twistd", "-n", "--pidfile=", f"--reactor={reactor}")
            with Server("--app", "till:remind", modules=MODULES, command=command) as served:
                with served.connect() as first, served.connect() as second:
                    for peer, message in ((first, b"0.3"), (second, b"0.1"), (second, b"0.5"), (first, b"0.2")):
                        peer.send(message + b"\n")
                    served.wait_for_log(r"0\.5 of client")
                self.assertEqual(
                    [(text.split()[0], "[client" in text) for _, _, text in self.lines(served.log)],
                    [("0.1", False), ("0.2", False), ("0.3", False), ("0.5", False)],
                )

    def test_levels(self) -> None:
        """--log-level is for Python's loggers and Twisted's namespaces alike."""
        log = self.log_of(
            *("--log-level", "error", "--log-level", "till.receipts=debug", "--log-level", "mtserver=info"),
            until="receipt",
        )
        found = [(name, level) for name, level, _ in self.lines(log)]
        self.assertEqual(found, [("till.receipts", "debug"), ("till", "error")])
        self.assertIn("[mtserver#info]", log)
        self.assertNotIn("[twisted", log)

    def test_debug(self) -> None:
        """The level debug has more of what happens in the server."""
        log = self.log_of("--log-level", "debug")
        for text in ("has come from", "draining: ", "drained in"):
            self.assertRegex(log, text)
        self.assertIn(("till", "debug"), [(name, level) for name, level, _ in self.lines(log)])

    def test_twist(self) -> None:
        """Twist does so, too, and its own --log-level counts where mtserver was told nothing."""
        log = self.log_of(command=("twist", "--log-format=text", "--log-level=debug"))
        self.assertIn(("till.receipts", "debug"), [(name, level) for name, level, _ in self.lines(log)])

    def test_own_logger(self) -> None:
        """An operator who has Twisted hand its log to logging has each line there, once."""
        bridge = """
            import logging, sys
            from twisted.logger import STDLibLogObserver

            def observer():
                logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)
                return STDLibLogObserver()
        """
        log = self.log_of(
            command=("twistd", "-n", "--pidfile=", "--logger=bridge.observer"),
            modules={**MODULES, "bridge": bridge},
            environment={"PYTHONPATH": "."},
        )
        for line in ("INFO:till:sold tea", "INFO:till.later:later"):
            self.assertEqual(log.count(line), 1, log)
        self.assertEqual(log.count("sold tea"), 1, log)

    def test_mistake(self) -> None:
        """A level that there is not is one line, before anything is opened."""
        ended = run_to_end(self.folder(), "--log-level", "till=loud")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertEqual(
            ended.stderr, "mtserver: --log-level: 'loud' is not one of debug, info, warn, error, critical\n"
        )

    def folder(self) -> Path:
        path = Path(self.mktemp())
        path.mkdir()
        return path

    def test_terminal(self) -> None:
        """A terminal gets colours; with NO_COLOR it gets none."""
        for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            written = self.on_terminal(environment)
            self.assertIn("Listening on", written)
            self.assertEqual("\x1b[32m[mtserver#info]\x1b[0m" in written, coloured, written)

    def on_terminal(self, environment: dict[str, str]) -> str:
        """Output of a server in the foreground on a terminal, from its start to its stop."""
        ours, theirs = pty.openpty()
        command = [script("twistd"), "-n", "--pidfile=", "mtserver", "--port", TCP, "--app", "echo"]
        known = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen(
            command,
            cwd=self.folder(),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
            env={**known, "TERM": "xterm", **environment},
        )
        os.close(theirs)
        written = b""

        def read() -> bool:
            nonlocal written
            if select.select([ours], [], [], 0)[0]:
                written += os.read(ours, 65536)
            return b"Listening on" in written

        try:
            wait_until(read, "the server on a terminal")
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return written.decode()
