"""
Options of the server: name, default, unit and meaning of each, in one table.

``--help``, the configuration file and the documentation's table follow it. The option of a setting is its name with
hyphens (``max_clients``: ``--max-clients``).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from mtserver.acks import LEVELS
from mtserver.errors import ConfigurationError
from mtserver.framing import framing_named
from mtserver.telemetry.levels import Levels


def default_threads() -> int:
    """Count the threads that ``concurrent.futures.ThreadPoolExecutor`` would choose: processors and 4, at most 32."""
    return min(32, (os.cpu_count() or 1) + 4)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        # The values of a table or list are not shown: one may be a secret.
        shown = f"a {type(value).__name__}" if isinstance(value, (list, tuple, dict)) else repr(value)
        raise ConfigurationError(f"{shown} is not a text")
    return value


def _some_texts(value: Any) -> tuple[str, ...]:
    if value in ([], ()):
        raise ConfigurationError("there is none")
    return _texts(value)


def _text_or_none(value: Any) -> str:
    # An empty text on the command line takes back the value of the configuration file.
    return "" if value == "" else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    # A port number may stand without quotes in a configuration file.
    return tuple(str(item) if type(item) is int else _text(item) for item in values)


def _count(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if type(number) is not int or number < least:
            raise ConfigurationError(f"{value!r} is not a whole number of {least} or more")
        return number

    return read


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # the latter from an int with more digits than a float has
        number = math.nan
    if not (0 <= number < math.inf):
        raise ConfigurationError(f"{value!r} is not a number of 0 or more")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{value!r} is not true or false")
    return value


def _log_levels(value: Any) -> tuple[str, ...]:
    words = _some_texts(value)
    Levels(words)
    return words


def _framing(value: Any) -> str:
    framing_named(_text(value))
    return str(value)


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ConfigurationError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _setting(
    default: Any, read: Callable[[Any], Any], meaning: str, *, unit: str = "", short: str | None = None, shown: str = ""
) -> Any:
    metadata = {"read": read, "meaning": meaning, "unit": unit, "short": short, "shown": shown or str(default)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Listen:
    """One port, with the app and the framing for its clients."""

    port: str
    app: str
    framing: str

    def __str__(self) -> str:
        return self.port


def _listen_tables(value: Any) -> tuple[dict[str, str], ...]:
    """Read the ``[[listen]]`` tables of a configuration file, each with a port, and perhaps an app and a framing."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(table, dict) for table in value):
        raise ConfigurationError("each is a table of its own: [[listen]]")
    return tuple(_listen_table(table) for table in value)


def _listen_table(table: dict[str, Any]) -> dict[str, str]:
    known = [field.name for field in dataclasses.fields(Listen)]
    for name in table:
        if name not in known:
            raise ConfigurationError(f"{name!r} is not one of {', '.join(known)}")
    if "port" not in table:
        raise ConfigurationError("a table without a port")
    read = {"port": lambda port: _texts(port)[0], "app": _text, "framing": _framing}
    return {name: read[name](value) for name, value in table.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The options of one server. Make one with :meth:`read` from text, or directly with values of the right type."""

    port: tuple[str, ...] = _setting(
        ("9999",),
        _some_texts,
        "a port number or a Twisted server endpoint string; may be repeated",
        short="p",
        shown="9999",
    )
    listen: tuple[dict[str, str], ...] = _setting(
        (),
        _listen_tables,
        "in a configuration file, [[listen]]: a port with an app and a framing of its own",
        shown="none",
    )
    app: str = _setting("collect", _text, "collect, echo, log, chat or module:attribute", short="a")
    framing: str = _setting("line", _framing, "line, netstring, int8, int16 or int32", short="f")
    encoding: str = _setting(
        "json", _choice("json", "msgpack"), "json or msgpack, for messages of a type that is neither bytes nor str"
    )
    max_clients: int = _setting(
        10000, _count(1), "clients at once in this process; more are told ERR busy and closed", unit="clients"
    )
    max_clients_per_host: int = _setting(0, _count(0), "clients at once from one address; 0: no limit", unit="clients")
    max_message: int = _setting(
        65536, _count(1), "of one message; a longer one is answered ERR too-long, and its client closed", unit="bytes"
    )
    max_bad_messages: int = _setting(
        100, _count(0), "that do not fit, in a row, before a client is closed; 0: no limit", unit="messages"
    )
    message_rate: float = _setting(
        0,
        _number,
        "of one client; over it the server pauses reading, and loses nothing; 0: no limit",
        unit="messages/second",
    )
    message_timeout: float = _setting(
        30, _number, "from the first byte of a message to its last; 0: no limit", unit="seconds"
    )
    idle_timeout: float = _setting(
        600, _number, "without a byte from a client before it is closed; 0: no limit", unit="seconds"
    )
    send_timeout: float = _setting(
        30, _number, "a client may leave unread what it is sent before it is aborted; 0: no limit", unit="seconds"
    )
    send_buffer: int = _setting(1048576, _count(1), "kept for one client that reads slowly", unit="bytes")
    drain_timeout: float = _setting(30, _number, "a stop may take to answer what was accepted", unit="seconds")
    threads: int = _setting(
        default_threads(),
        _count(1),
        "threads for plain def handlers",
        unit="threads",
        shown="processors + 4, at most 32",
    )
    journal: str = _setting(
        "sqlite:mtserver.db",
        _text,
        "where messages are kept: sqlite:PATH (?durability=fast), or nats://HOST[,HOST...]/STREAM (?sync=always)",
    )
    ack: str = _setting(
        "durable",
        _choice(*LEVELS),
        "what OK is to mean: accepted survives the process, durable a power cut, replicated the loss of a machine",
    )
    message_ids: bool = _setting(
        False,
        _flag,
        "messages begin with @<id>; one that comes again is answered, but not stored again",
        shown="off",
    )
    dedupe_window: float = _setting(
        86400, _number, "for which the id of a message is known (--message-ids)", unit="seconds"
    )
    dedupe_messages: int = _setting(
        10_000_000, _count(1), "whose ids are known at most: the last ones", unit="messages"
    )
    keep: str = _setting(
        "",
        _text_or_none,
        "how much of the journal to keep: 30d, 10GB, or both (30d,10GB); older messages are removed",
        shown="all",
    )
    groups: str = _setting(
        "memory:",
        _text,
        "where groups are kept: memory:, or nats://HOST:4222[,HOST:4222...] (tls://...) for several nodes",
    )
    max_groups: int = _setting(100, _count(1), "that one client may be in at once", unit="groups")
    nats_credentials: str = _setting(
        "", _text_or_none, "a .creds file, to log in at servers of NATS with", shown="none"
    )
    nats_ca: str = _setting(
        "",
        _text_or_none,
        "a PEM file: the authorities that sign the certificates of tls:// servers of NATS",
        shown="the system's",
    )
    malloc: str = _setting(
        "tuned",
        _choice("tuned", "stock"),
        "tuned keeps glibc from asking the kernel for each large block; stock leaves it alone",
    )
    auth: tuple[str, ...] = _setting(
        (), _texts, "a way to log in, METHOD:ARGUMENTS as --help-auth has them; may be repeated", shown="anybody"
    )
    auth_timeout: float = _setting(10, _number, "a client has to say who it is; 0: no limit", unit="seconds")
    auth_insecure: bool = _setting(
        False, _flag, "take passwords and tokens also in clear text from other machines", shown="off"
    )
    log_format: str = _setting("text", _choice("text", "json"), "text (in colours on a terminal) or json")
    log_level: tuple[str, ...] = _setting(
        ("info",),
        _log_levels,
        "debug, info, warn, error, critical, or LOGGER=LEVEL for that logger; may be repeated",
        shown="info",
    )
    audit_log: str = _setting(
        "", _text_or_none, "a file for security events, one JSON line each; none: lines of the log", shown="none"
    )
    tls_profile: str = _setting(
        "intermediate", _choice("intermediate", "modern"), "modern leaves TLS 1.2 out; see Mozilla's profiles"
    )
    tls_client_ca: str = _setting(
        "",
        _text_or_none,
        "a PEM file of authorities: TLS clients need a certificate that one of them has signed",
        shown="none",
    )
    tls_crl: str = _setting(
        "", _text_or_none, "a PEM file: the revocation lists of the authorities in --tls-client-ca", shown="none"
    )
    tls_sni: str = _setting(
        "",
        _text_or_none,
        "a folder of NAME.pem (certificate, chain and key), each shown to clients that ask for that name",
        shown="none",
    )
    tls_self_signed: bool = _setting(
        False, _flag, "an ssl:PORT without files gets a certificate made on the spot; for a first try", shown="off"
    )
    quiet: bool = _setting(False, _flag, "keep mtserver's own words (ERR ...) off the wire", shown="off")

    @property
    def listens(self) -> tuple[Listen, ...]:
        """List the ports: those of ``--port``, then those with a table of their own."""
        tables = [{"port": port} for port in self.port] + list(self.listen)
        return tuple(Listen(**{"app": self.app, "framing": self.framing, **table}) for table in tables)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Settings:
        """
        Read an operator's words: names as on the command line, values as text or of TOML's types.

        Raises :class:`~mtserver.errors.ConfigurationError`, which names the first that is unknown or not possible.
        """
        fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(cls)}
        read: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                near = difflib.get_close_matches(name.replace("_", "-"), fields, 1)
                hint = f"; is {near[0]!r} meant?" if near else ""
                raise ConfigurationError(f"there is no option {name!r}{hint}")
            try:
                read[fields[name].name] = fields[name].metadata["read"](value)
            except ConfigurationError as error:
                raise ConfigurationError(f"--{name}: {error}") from None
        if read.get("listen"):
            read.setdefault("port", ())  # the default port is for a server without any other
        return cls(**read)


#: Settings without a word from the operator.
DEFAULTS = Settings()
