"""The command line and the configuration file: what they mean together, and one line for each mistake."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

from twisted.application.app import ServerOptions
from twisted.application.twist._options import TwistOptions
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import LogLevel
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

import mtserver
from mtserver.apps import collect, echo
from mtserver.process.command_line import TABLES, Options
from mtserver.settings import Settings


def parsed(*words: str) -> Options:
    options = Options()
    options.parseOptions(list(words))
    return options


def printed(*words: str) -> tuple[str, object]:
    """What parsing prints on standard output before it exits, and the exit status."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            parsed(*words)
        except SystemExit as exit_:
            return output.getvalue(), exit_.code
    raise AssertionError("it did not exit")


class OptionsCase(SynchronousTestCase):
    def file(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)

    def refused(self, *words: str) -> str:
        """The one line that an operator's mistake costs, without the program's name."""
        error = self.assertRaises(SystemExit, parsed, *words)
        text = error.code
        assert isinstance(text, str), text  # a text is printed on standard error, and the status is 1
        self.assertTrue(text.startswith("mtserver: "), text)
        self.assertNotIn("\n", text)
        return text.removeprefix("mtserver: ")


class CommandLine(OptionsCase):
    def test_defaults(self) -> None:
        """Without a word, all is as documented, and the app is collect."""
        options = parsed()
        self.assertEqual(options.settings, Settings())
        self.assertEqual(options.apps, [collect.app])

    def test_every_option(self) -> None:
        """Each option is read to its setting."""
        options = parsed(
            *("--port", "tcp:0", "--port=9998", "--app", "echo", "--framing", "int8", "--max-clients", "5"),
            *("--max-clients-per-host", "2", "--max-message", "100", "--message-rate", "0.5"),
            *("--message-timeout", "1", "--idle-timeout", "2", "--send-timeout", "3", "--send-buffer", "1000"),
            *("--drain-timeout", "4", "--threads", "6", "--journal", "sqlite:own.db", "--log-format", "json"),
            *("--malloc", "stock", "--audit-log", "audit.log", "--quiet"),
            *("--auth", "memory:a:b", "--auth=memory:c:d", "--auth-timeout", "5", "--auth-insecure"),
            *("--encoding", "msgpack", "--max-bad-messages", "7"),
        )
        self.assertEqual(
            options.settings,
            Settings(
                port=("tcp:0", "9998"),
                app="echo",
                framing="int8",
                encoding="msgpack",
                max_bad_messages=7,
                max_clients=5,
                max_clients_per_host=2,
                max_message=100,
                message_rate=0.5,
                message_timeout=1,
                idle_timeout=2,
                send_timeout=3,
                send_buffer=1000,
                drain_timeout=4,
                threads=6,
                journal="sqlite:own.db",
                malloc="stock",
                auth=("memory:a:b", "memory:c:d"),
                auth_timeout=5,
                auth_insecure=True,
                log_format="json",
                audit_log="audit.log",
                quiet=True,
            ),
        )
        self.assertEqual({field.name for field in dataclasses.fields(Settings)}, set(dataclasses.asdict(Settings())))
        self.assertEqual(options.apps, [echo.app] * 2)

    def test_short(self) -> None:
        """The four that are typed most have short names."""
        options = parsed("-p", "1", "-p", "2", "-a", "echo", "-f", "netstring", "-c", self.file("threads = 3"))
        settings = options.settings
        self.assertEqual(
            (settings.port, settings.app, settings.framing, settings.threads), (("1", "2"), "echo", "netstring", 3)
        )

    def test_two_parsings(self) -> None:
        """The ports of one server are not those of the next."""
        parsed("-p", "1")
        self.assertEqual(parsed("-p", "2").settings.port, ("2",))

    def test_zero(self) -> None:
        """A nought on the command line counts: it is not the same as silence."""
        path = self.file("idle-timeout = 5\nmax-clients-per-host = 7")
        settings = parsed("-c", path, "--idle-timeout", "0", "--max-clients-per-host", "0").settings
        self.assertEqual((settings.idle_timeout, settings.max_clients_per_host), (0, 0))

    def test_version(self) -> None:
        """--version says what this is, and exits with success."""
        self.assertEqual(printed("--version"), (f"mtserver {mtserver.__version__}\n", 0))

    def test_describe(self) -> None:
        """--describe prints what the app receives and returns, and exits with success; as all options say."""
        text, status = printed("--describe", "--app", "echo", "--framing", "int16", "--port", "7")
        self.assertEqual(status, 0)
        document = json.loads(text)
        self.assertEqual(document["asyncapi"], "3.0.0")
        self.assertEqual(document["channels"]["connection"]["x-framing"], "int16")
        self.assertEqual(document["info"]["title"], "echo")
        self.assertIn("tcp-7", document["servers"])

    def test_help(self) -> None:
        """--help shows each option with its meaning, its unit and its default."""
        text, status = printed("--help")
        self.assertIn(status, (None, 0))
        words = " ".join(text.split())
        for field in dataclasses.fields(Settings):
            name, about = field.name.replace("_", "-"), field.metadata
            if name in TABLES:
                continue  # only a configuration file has them
            self.assertRegex(text, rf"(?m)^ +(-\w, )?--{name}[ =\n]")
            if about["short"]:
                self.assertIn(f"-{about['short']}, --{name}", text)
            if field.default is False:
                continue  # a flag: off unless it is given
            self.assertIn(about["meaning"].split(";")[0].lower(), words.lower())
            unit = f" [{about['unit']}]" if about["unit"] else ""
            self.assertIn(f"{unit} (default: {about['shown']})", words)
        self.assertIn("--config", text)
        self.assertIn("--describe", text)


class Mistakes(OptionsCase):
    def test_unknown(self) -> None:
        """An option that there is none of, and a word that is none, are named."""
        self.assertIn("--no-such-option", self.refused("--no-such-option=1"))
        self.assertEqual(self.refused("word", "another"), "'word' is not an option")
        self.assertEqual(self.refused("a\nb"), "'a\\\\nb' is not an option")

    def test_no_value(self) -> None:
        """An option without its value is named."""
        self.assertIn("--app", self.refused("--app"))

    def test_values(self) -> None:
        """A value that cannot be is told with its option."""
        for words, text in (
            (("--threads", "many"), "--threads: 'many' is not a whole number of 1 or more"),
            (("--max-clients", "0"), "--max-clients: '0' is not a whole number of 1 or more"),
            (("--idle-timeout", "-1"), "--idle-timeout: '-1' is not a number of 0 or more"),
            (("--app", ""), "--app: '' is not a text"),
            (("--encoding", "xml"), "--encoding: 'xml' is not one of json, msgpack"),
            (("--max-bad-messages", "-1"), "--max-bad-messages: '-1' is not a whole number of 0 or more"),
            (("--log-format", "xml"), "--log-format: 'xml' is not one of text, json"),
        ):
            self.assertEqual(self.refused(*words), text)
        self.assertIn("--framing: no framing is called 'xml'", self.refused("--framing", "xml"))

    def test_ports(self) -> None:
        """A port that cannot be is told before anything is opened; also the second of two."""
        self.assertEqual(self.refused("--port", "70000"), "--port 70000: a port number is at most 65535")
        self.assertTrue(self.refused("-p", "1", "-p", "nothing:1").startswith("--port nothing:1: "))
        self.refused("--port", "")

    def test_app(self) -> None:
        """So is an app that cannot be loaded."""
        self.assertEqual(
            self.refused("--app", "nothing"),
            "--app nothing: neither one of collect, echo, log, chat nor module:attribute",
        )

    def test_typed(self) -> None:
        """So is an app whose messages cannot be read, or not carried; also where it is only to be described."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "shop_t.py").write_text(
            "def price(client, message: int): pass\ndef odd(client, message: complex): pass\n"
        )
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(sys.modules.pop, "shop_t", None)
        for words in ((), ("--describe",)):
            text = self.refused("--app", "shop_t:price", "--encoding", "msgpack", *words)
            self.assertTrue(text.startswith("--app shop_t:price: --encoding msgpack cannot go with --framing line: "))
            text = self.refused("--app", "shop_t:odd", *words)
            self.assertEqual(text, "--app shop_t:odd: messages of type complex are not supported")
        parsed("--app", "shop_t:price", "--encoding", "msgpack", "--framing", "int32")
        parsed("--app", "echo", "--encoding", "msgpack")

    def test_journal(self) -> None:
        """A journal that cannot be is told where it would be used, and only there."""
        self.assertEqual(self.refused("--journal", "file.db"), "--journal file.db: not of the form sqlite:PATH")
        self.assertIn("there is no folder", self.refused("--journal", "sqlite:no/such/folder.db"))
        self.assertIn("not of the form", self.refused("--app", "echo", "--journal", "file.db"))
        Path("mtserver.db").write_bytes(b"no database, but a text" * 1000)
        self.addCleanup(Path("mtserver.db").unlink)
        self.assertIn("mtserver.db", self.refused())
        parsed("--app", "echo")  # which has no use for it


class ConfigurationFile(OptionsCase):
    def test_read(self) -> None:
        """A file has the same names; values are TOML's own types."""
        path = self.file('port = ["tcp:0", 9998]\napp = "echo"\nmax-clients = 5\nidle-timeout = 1.5\nquiet = true\n')
        self.assertEqual(
            parsed("--config", path).settings,
            Settings(port=("tcp:0", "9998"), app="echo", max_clients=5, idle_timeout=1.5, quiet=True),
        )

    def test_every_option(self) -> None:
        """Each option may stand in the file, the same value as on the command line meaning the same."""
        values = {
            "port": "1",
            "app": "echo",
            "framing": "int8",
            "journal": "sqlite:x",
            "ack": "accepted",
            "log-format": "json",
            "log-level": "till=debug",
            "malloc": "stock",
            "auth": "memory:alice:secret",
            "encoding": "msgpack",
            "tls-profile": "modern",
            "groups": "nats://127.0.0.1:4223",
        }
        # What has --groups on NATS is on asyncio.
        installed = sys.modules["twisted.internet.reactor"]
        self.addCleanup(sys.modules.__setitem__, "twisted.internet.reactor", installed)
        sys.modules["twisted.internet.reactor"] = cast("Any", AsyncioSelectorReactor(asyncio.new_event_loop()))
        self.addCleanup(sys.modules["twisted.internet.reactor"]._asyncioEventloop.close)
        for field in dataclasses.fields(Settings):
            name = field.name.replace("_", "-")
            if field.default is False or field.default == "" or name in TABLES:
                continue  # a flag; a file, which would have to be there; a table
            value = values.get(name, "3")
            in_file = parsed("--config", self.file(f'{name} = "{value}"')).settings
            self.assertEqual(in_file, parsed(f"--{name}", value).settings)
            self.assertNotEqual(in_file, Settings())

    def test_command_line_wins(self) -> None:
        """What the command line says wins; what it does not say stands."""
        path = self.file('port = [1, 2]\napp = "log"\nthreads = 3\nquiet = false')
        settings = parsed("--config", path, "--port", "4", "--app", "echo", "--quiet").settings
        self.assertEqual(settings, Settings(port=("4",), app="echo", threads=3, quiet=True))

    def test_quiet(self) -> None:
        """A file's flag is true or false; a text that looks like it is a mistake, and never the opposite."""
        self.assertIs(parsed("-c", self.file("quiet = true")).settings.quiet, True)
        self.assertIs(parsed("-c", self.file("quiet = false")).settings.quiet, False)
        self.assertEqual(self.refused("-c", self.file('quiet = "false"')), "--quiet: 'false' is not true or false")

    def test_unknown(self) -> None:
        """A name that is no option is a mistake, also --config itself and a table."""
        for text, name in (("max-client = 5", "max-client"), ('config = "x"', "config"), ("[tls]\na = 1", "tls")):
            self.assertTrue(self.refused("-c", self.file(text)).startswith(f"there is no option {name!r}"))

    def test_no_ports(self) -> None:
        """A server without a port is a mistake."""
        self.assertEqual(self.refused("-c", self.file("port = []")), "--port: there is none")

    def test_broken(self) -> None:
        """A file that is not there, is no file, is not TOML or not UTF-8 is named with what is wrong."""
        missing = self.mktemp()
        self.assertIn(os.strerror(errno.ENOENT), self.refused("--config", missing))
        folder = Path(self.mktemp())
        folder.mkdir()
        self.refused("--config", str(folder))
        broken = self.file("port = \n")
        self.assertTrue(self.refused("--config", broken).startswith(f"--config {broken}: "))
        self.assertIn("line 1", self.refused("--config", broken))
        Path(broken).write_bytes(b'app = "\xff"')
        self.assertTrue(self.refused("--config", broken).startswith(f"--config {broken}: "))
        self.refused("--config", "")


class Logging(OptionsCase):
    def twist(self, *words: str, log_format: str, level: Any = LogLevel.info, log_level: str = "info") -> str:
        """
        What twist writes of an event after `words` were parsed below it: "text" or "json" for a line of ours, "twist"
        for one of its own, and an empty text for none.
        """
        parent = TwistOptions()
        parent.opt_log_format(log_format)  # as the operator told twist, or as twist chose by itself
        parent.opt_log_level(log_level)
        options = Options()
        options.parent = parent
        options.parseOptions(["--app", "echo", *words])
        written = io.StringIO()
        observer = parent["fileLogObserverFactory"](written)
        if parent["logLevel"] <= level:
            observer({"log_format": "\x1b", "log_level": level, "log_namespace": "till", "log_time": 0.0})
        kinds = {"{": "json", "\x1e": "twist"}
        return kinds.get(written.getvalue()[:1], "text" if r"\x1b" in written.getvalue() else written.getvalue())

    def test_twist(self) -> None:
        """Under twist the format is the one that mtserver was told."""
        for log_format in ("text", "json"):
            for wanted in ("text", "json"):
                self.assertEqual(self.twist("--log-format", wanted, log_format=log_format), wanted)

    def test_twist_untold(self) -> None:
        """Told nothing, text lines are ours, without control characters; JSON, which twist was told, stays twist's."""
        self.assertEqual(self.twist(log_format="text"), "text")
        self.assertEqual(self.twist(log_format="json"), "twist")

    def test_twist_levels(self) -> None:
        """Levels under twist are those that mtserver was told, and twist's where that was told nothing."""
        for log_format, line in (("text", "text"), ("json", "twist")):
            for words, log_level, level, shown in (
                ([], "info", LogLevel.debug, False),
                ([], "debug", LogLevel.debug, True),
                ([], "error", LogLevel.warn, False),
                (["debug"], "info", LogLevel.debug, True),
                (["error", "till=debug"], "info", LogLevel.debug, True),
                (["till=error"], "debug", LogLevel.info, False),
            ):
                options = [f"--log-level={word}" for word in words]
                found = self.twist(*options, log_format=log_format, level=level, log_level=log_level)
                self.assertEqual(found, line if shown else "", (words, log_level, level))

    def test_levels(self) -> None:
        """--log-level may be repeated, on the command line and in the file; a mistake is named."""
        self.assertEqual(parsed("--app", "echo").settings.log_level, ("info",))
        self.assertEqual(
            parsed("--app", "echo", "--log-level", "warn", "--log-level", "till=debug").settings.log_level,
            ("warn", "till=debug"),
        )
        path = Path(self.mktemp())
        path.write_text('app = "echo"\nlog-level = ["warning", "till=DEBUG"]\n')
        self.assertEqual(parsed("--config", str(path)).settings.log_level, ("warning", "till=DEBUG"))
        self.assertEqual(
            self.refused("--log-level", "loud"),
            "--log-level: 'loud' is not one of debug, info, warn, error, critical",
        )
        self.assertEqual(self.refused("--log-level", "=info"), "--log-level: '=info' names no logger before its =")

    def twistd(self, *words: str, log_format: str = "text", **logging: Any) -> Options:
        parent = ServerOptions()
        parent.update(logging)
        options = Options()
        options.parent = parent
        options.parseOptions(["--app", "echo", "--log-format", log_format, *words])
        return options

    def opened(self, options: Options) -> LogFile:
        """The log file that is opened; closed again after the test."""
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        observer = options.log_observer()
        assert observer is not None
        file = observer.observer._outFile
        assert isinstance(file, LogFile)
        self.addCleanup(file.close)
        return file

    def test_alone(self) -> None:
        """Without twistd there is no log to choose."""
        self.assertIsNone(parsed("--app", "echo").log_observer())

    def test_own_logger(self) -> None:
        """Who told twistd of a logger or of syslog gets that."""
        self.assertIsNone(self.twistd(logger="own.logger").log_observer())
        self.assertIsNone(self.twistd(syslog=1).log_observer())

    def test_standard_output(self) -> None:
        """In the foreground the log is on standard output; a daemon has none."""
        for logging in ({"nodaemon": 1}, {"nodaemon": 1, "logfile": "-"}):
            observer = self.twistd(**logging).log_observer()
            assert observer is not None
            self.assertIs(observer.observer._outFile, sys.stdout)
        error = self.assertRaises(SystemExit, self.twistd(logfile="-").log_observer)
        self.assertEqual(error.code, "mtserver: a daemon cannot log to standard output")

    def test_file(self) -> None:
        """Otherwise it is twistd's file, also in the foreground, in the chosen format."""
        path = str(Path(self.mktemp()).absolute())
        for logging in ({}, {"nodaemon": 1}):
            file = self.opened(self.twistd(log_format="json", logfile=path, **logging))
            self.assertEqual(file.path, path)
        options = self.twistd(log_format="json", logfile=path)
        observer = options.log_observer()
        assert observer is not None
        observer({"log_format": "hello", "log_level": LogLevel.debug, "log_time": 0.0})
        observer({"log_format": "hello", "log_level": LogLevel.info, "log_time": 0.0})
        self.addCleanup(observer.observer._outFile.close)
        self.assertEqual(Path(path).read_text().count('"text": "hello"'), 1)

    def test_default_file(self) -> None:
        """A daemon that was told nothing logs to twistd.log, as with every twistd."""
        file = self.opened(self.twistd())
        self.assertEqual(Path(file.path).resolve(), Path("twistd.log").resolve())
        self.addCleanup(Path(file.path).unlink)

    def test_rotation(self) -> None:
        """SIGUSR1 has the log rotated, in the loop's thread."""
        from twisted.internet import reactor

        path = str(Path(self.mktemp()).absolute())
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        file = self.opened(self.twistd(logfile=path))
        file.write("before\n")
        handler = signal.getsignal(signal.SIGUSR1)
        assert callable(handler)
        asked: list[Any] = []
        self.patch(reactor, "callFromThread", asked.append)
        handler(signal.SIGUSR1, None)
        self.assertFalse(Path(path + ".1").exists())
        asked[0]()
        self.assertEqual(Path(path + ".1").read_text(), "before\n")

    def test_own_signal(self) -> None:
        """A handler of SIGUSR1 that was there first stays."""
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.opened(self.twistd(logfile=self.mktemp()))
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
