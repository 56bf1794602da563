"""
The command line of ``twistd mtserver``, and the configuration file that may stand behind it.

Whatever can be wrong is found here, before anything is opened: one line on standard error, and exit status 1. (Twisted
itself would print the whole usage on standard output, and a traceback for what fails after parsing.)
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn, cast

from twisted.cred import strcred
from twisted.logger import LogLevel
from twisted.python import usage
from twisted.python.logfile import LogFile

import mtserver
from mtserver.app import App
from mtserver.auth import SUPPORTED, checkers
from mtserver.errors import ConfigurationError
from mtserver.groups import check_groups
from mtserver.process.privileges import as_user
from mtserver.settings import Settings
from mtserver.telemetry.audit.file import check_audit_log
from mtserver.telemetry.escape import escape
from mtserver.telemetry.levels import Levels
from mtserver.telemetry.logs import OBSERVERS, Filtered
from mtserver.transport import reactor

#: Options that may stand more than once; each has a method of its own below.
REPEATED = {"port", "auth", "log-level"}
#: Options that only a configuration file can have.
TABLES = {"listen"}


def _parameters() -> list[list[Any]]:
    parameters = []
    for field in dataclasses.fields(Settings):
        name, about = field.name.replace("_", "-"), field.metadata
        if name in REPEATED or name in TABLES or field.default is False:
            continue
        unit = f" [{about['unit']}]" if about["unit"] else ""
        # The default shown is not the option's default: None tells that the command line was silent.
        parameters.append([name, about["short"], None, f"{about['meaning']}{unit} (default: {about['shown']})"])
    parameters.append(["config", "c", None, "a TOML file with these options, same names; the command line wins"])
    return parameters


def _flags() -> list[list[Any]]:
    return [
        [field.name.replace("_", "-"), None, field.metadata["meaning"]]
        for field in dataclasses.fields(Settings)
        if field.default is False
    ]


class Options(usage.Options, strcred.AuthOptionMixin):
    """Parses, checks and completes the options; then `settings` and `apps` are ready to be served."""

    synopsis = "[options]"
    longdesc = "Serves a Python handler to thousands of TCP clients at once. Without --app, stores each line durably."
    optParameters = _parameters()  # noqa: N815 - Twisted's name
    optFlags = _flags()  # noqa: N815 - likewise
    supportedInterfaces = SUPPORTED  # noqa: N815 - likewise

    settings: Settings
    #: App of each of the settings' `listens`.
    apps: list[App]
    #: Checkers that `--auth` names.
    checkers: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._describes = False
        self._repeated: dict[str, list[str]] = {}

    def opt_port(self, value: str) -> None:
        """A port number or a Twisted server endpoint string; may be repeated (default: 9999)"""
        self._repeated.setdefault("port", []).append(value)

    opt_p = opt_port

    def opt_auth(self, description: str) -> None:
        """A way to log in, METHOD:ARGUMENTS as --help-auth has them; may be repeated (default: anybody)"""
        self._repeated.setdefault("auth", []).append(description)

    def opt_log_level(self, word: str) -> None:
        """Debug, info, warn, error, critical, or LOGGER=LEVEL for that logger; may be repeated (default: info)"""
        self._repeated.setdefault("log-level", []).append(word)

    def opt_version(self) -> NoReturn:
        """Print the version of mtserver and exit"""
        print(f"mtserver {mtserver.__version__}")  # noqa: T201 - that is where it belongs
        raise SystemExit(0)

    def opt_describe(self) -> None:
        """Print what the app receives and returns, as an AsyncAPI 3 document, and exit"""
        self._describes = True

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)
        except (usage.UsageError, ConfigurationError) as error:
            raise SystemExit(f"mtserver: {' '.join(str(error).split())}") from None

    def parseArgs(self, *rest: str) -> None:
        if rest:
            raise ConfigurationError(f"{escape(rest[0])!r} is not an option")

    def postOptions(self) -> None:
        values = self._from_file(self["config"]) if self["config"] is not None else {}
        values |= {name: value for name, value in self.items() if isinstance(value, str) and name != "config"}
        values |= {name: True for name, _, _ in self.optFlags if self[name]}
        values |= self._repeated
        parent = self.parent
        if "log-level" not in values and parent is not None and "logLevel" in parent:
            values["log-level"] = parent["logLevel"].name  # twist has a --log-level, too
        self.settings = Settings.read(values)
        self._install_reactor()
        self._check_ports()
        from mtserver.process.app_loader import load_apps

        self.apps = load_apps(self.settings)
        self._check_authentication()
        if any(app.uses_journal for app in self.apps) or self.settings.message_ids or "journal" in values:
            from mtserver.journal import check_journal

            check_journal(self.settings)
        check_groups(self.settings)
        if self.settings.audit_log:
            check_audit_log(self.settings.audit_log)
        if self._describes:
            self._describe()
        self._choose_log_format(told="log-format" in values)

    def _describe(self) -> NoReturn:
        from mtserver.process.describe import describe

        ports: dict[tuple[str, str], list[str]] = {}
        for listen in self.settings.listens:
            ports.setdefault((listen.app, listen.framing), []).append(listen.port)
        apps = {listen.app: app for listen, app in zip(self.settings.listens, self.apps, strict=True)}
        for (app, framing), served in ports.items():
            settings = dataclasses.replace(self.settings, port=tuple(served), app=app, framing=framing)
            print(json.dumps(describe(apps[app], settings), indent=2))  # noqa: T201 - what was asked for
        raise SystemExit(0)

    @staticmethod
    def _from_file(path: str) -> dict[str, Any]:
        try:
            with Path(path).open("rb") as file:
                return tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--config {path}: {error}") from None

    @staticmethod
    def _install_reactor() -> None:
        # Our reactor is installed as soon as it is known that it will run, before anything imports the default. Does
        # nothing where --reactor has chosen.
        reactor.install()

    def _check_ports(self) -> None:
        from twisted.internet import reactor as installed

        from mtserver.transport import listeners

        listeners.endpoints(installed, self.settings)

    def _check_authentication(self) -> None:
        from mtserver.dispatch.plan import plan

        self.checkers = checkers(self.settings.auth)
        for listen, app in zip(self.settings.listens, self.apps, strict=True):
            settings = dataclasses.replace(self.settings, framing=listen.framing)
            if self.checkers and plan(app.handler, settings).login is not None:
                raise ConfigurationError(f"--auth, and authenticate in --app {listen.app}: which one is meant?")

    def _choose_log_format(self, told: bool) -> None:
        """
        Have twist log in the chosen format, at the chosen levels. For twistd see below.

        Told nothing of the format, we leave twist its JSON, which may be its own choice (not a terminal) or its
        operator's.
        """
        parent = self.parent
        if parent is None or "fileLogObserverFactory" not in parent:
            return
        make = parent["fileLogObserverFactory"]
        if told or parent["logFormat"] == "text":
            make = OBSERVERS[self.settings.log_format]
        parent["fileLogObserverFactory"] = lambda file: Filtered(make(file), Levels(self.settings.log_level))
        parent["logLevel"] = LogLevel.debug  # what is dropped, the line above decides

    def log_observer(self) -> Filtered | None:
        """
        The observer for twistd, on the file that twistd's own options name; None where the operator chose a logger.

        Opens the file, so not before twistd would, and with the rights that twistd will leave us: it is rotated with
        those.
        """
        parent = self.parent
        if parent is None or "logfile" not in parent or parent.get("logger") or parent.get("syslog"):
            return None
        name, in_foreground = parent["logfile"], parent.get("nodaemon")
        make, levels = OBSERVERS[self.settings.log_format], Levels(self.settings.log_level)
        if name == "-" and not in_foreground:
            raise SystemExit("mtserver: a daemon cannot log to standard output")
        if name == "-" or (in_foreground and not name):
            return Filtered(make(sys.stdout), levels)
        name = name or "twistd.log"
        try:
            with as_user(parent.get("uid"), parent.get("gid")):
                file = LogFile.fromFullPath(name)
        except OSError as error:
            raise SystemExit(f"mtserver: --logfile {name}: {error.strerror}") from None
        _rotate_on_signal(file)
        return Filtered(make(file), levels)


def _rotate_on_signal(file: LogFile) -> None:
    """SIGUSR1 rotates the log, as with every twistd."""
    if not hasattr(signal, "SIGUSR1") or signal.getsignal(signal.SIGUSR1):
        return

    def rotate(_number: int, _frame: Any) -> None:
        from twisted.internet import reactor as installed

        cast("Any", installed).callFromThread(file.rotate)

    signal.signal(signal.SIGUSR1, rotate)
