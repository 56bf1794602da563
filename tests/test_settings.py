"""Settings: each option's default, and how an operator's words become values or one clear sentence."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError
from mtserver.settings import Settings, default_threads

NAMES = [field.name.replace("_", "-") for field in dataclasses.fields(Settings)]
COUNTS = {
    "max-clients": 1,
    "max-clients-per-host": 0,
    "max-message": 1,
    "max-bad-messages": 0,
    "send-buffer": 1,
    "threads": 1,
    "dedupe-messages": 1,
    "max-groups": 1,
}
NUMBERS = ["message-rate", "message-timeout", "idle-timeout", "send-timeout", "drain-timeout", "dedupe-window"]
WORDS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1", "line", "text", "1e400", "nan", "-0", "9" * 5000, 10**400, "tcp:1"]),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.booleans()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.dates(),
)


class Defaults(SynchronousTestCase):
    def test_defaults(self) -> None:
        """The defaults are the documented ones."""
        self.assertEqual(
            dataclasses.asdict(Settings()),
            {
                "port": ("9999",),
                "listen": (),
                "app": "collect",
                "framing": "line",
                "encoding": "json",
                "max_clients": 10000,
                "max_clients_per_host": 0,
                "max_message": 65536,
                "max_bad_messages": 100,
                "message_rate": 0,
                "message_timeout": 30,
                "idle_timeout": 600,
                "send_timeout": 30,
                "send_buffer": 1048576,
                "drain_timeout": 30,
                "threads": default_threads(),
                "journal": "sqlite:mtserver.db",
                "ack": "durable",
                "message_ids": False,
                "dedupe_window": 86400,
                "dedupe_messages": 10_000_000,
                "keep": "",
                "groups": "memory:",
                "max_groups": 100,
                "nats_credentials": "",
                "nats_ca": "",
                "malloc": "tuned",
                "auth": (),
                "auth_timeout": 10,
                "auth_insecure": False,
                "log_format": "text",
                "log_level": ("info",),
                "audit_log": "",
                "tls_profile": "intermediate",
                "tls_client_ca": "",
                "tls_crl": "",
                "tls_sni": "",
                "tls_self_signed": False,
                "quiet": False,
            },
        )

    def test_read_nothing(self) -> None:
        """An operator who says nothing gets the defaults."""
        self.assertEqual(Settings.read({}), Settings())

    def test_defaults_are_readable(self) -> None:
        """Each default is a value that its own option accepts, and stays what it is."""
        for field in dataclasses.fields(Settings):
            read = Settings.read({field.name.replace("_", "-"): field.default})
            self.assertEqual(getattr(read, field.name), field.default)

    def test_frozen(self) -> None:
        """Settings cannot be changed behind the server's back."""
        made: Any = Settings()
        with self.assertRaises(dataclasses.FrozenInstanceError):
            made.max_clients = 5

    def test_meanings(self) -> None:
        """Each option has a meaning, and each amount has a unit."""
        for field in dataclasses.fields(Settings):
            self.assertTrue(field.metadata["meaning"])
            self.assertTrue(field.metadata["shown"])
            if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                self.assertTrue(field.metadata["unit"], field.name)


class Reading(SynchronousTestCase):
    def refused(self, name: str, value: Any) -> str:
        """The text of the one error that is due."""
        error = self.assertRaises(ConfigurationError, Settings.read, {name: value})
        text = str(error)
        self.assertTrue(text.startswith(f"--{name}: "), text)
        return text

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(NAMES), WORDS)
    def test_anything(self, name: str, value: Any) -> None:
        """A value is read to the type of its field, or refused with the name of its option, whatever it is."""
        try:
            read = Settings.read({name: value})
        except ConfigurationError as error:
            self.assertTrue(str(error).startswith(f"--{name}: "))
        else:
            found = getattr(read, name.replace("-", "_"))
            kinds = {bool: bool, int: (int, float), str: str, tuple: tuple}
            self.assertIsInstance(found, kinds[type(getattr(Settings(), name.replace("-", "_")))])

    def test_unknown(self) -> None:
        """A name that is no option is refused, also one with underscores, and the nearest one is named."""
        for name, hint in (("max-client", "max-clients"), ("max_clients", "max-clients"), ("xyz", ""), ("", "")):
            error = self.assertRaises(ConfigurationError, Settings.read, {name: 1})
            suffix = f"; is {hint!r} meant?" if hint else ""
            self.assertEqual(str(error), f"there is no option {name!r}{suffix}")

    def test_counts(self) -> None:
        """Whole numbers come as text or as numbers."""
        for name, least in COUNTS.items():
            for value in (least, str(least), 7, "7", " 7 "):
                read = Settings.read({name: value})
                self.assertEqual(getattr(read, name.replace("-", "_")), int(value))

    def test_not_counts(self) -> None:
        """A number that is not whole, or too small, is refused with the least that would do."""
        for name, least in COUNTS.items():
            values: list[Any] = [least - 1, str(least - 1), "many", "", "1.5", 1.5, True, None, [5], "9" * 5000]
            for value in values:
                self.assertIn(f"is not a whole number of {least} or more", self.refused(name, value))

    def test_numbers(self) -> None:
        """Seconds and rates may have fractions; 0 is allowed everywhere."""
        for name in NUMBERS:
            for value in (0, "0", 1.5, "1.5", "1e3", 30):
                self.assertEqual(getattr(Settings.read({name: value}), name.replace("-", "_")), float(value))

    def test_not_numbers(self) -> None:
        """Infinity, nan, what is below 0 and what no float holds are refused."""
        values: list[Any] = [-1, "-0.1", "nan", "inf", float("inf"), float("nan"), "soon", True, None, [], 10**400]
        for name in NUMBERS:
            for value in values:
                self.assertIn("is not a number of 0 or more", self.refused(name, value))

    def test_ports(self) -> None:
        """A port is a text or a bare number, one or several."""
        for value, ports in (
            (9999, ("9999",)),
            ("tcp:0", ("tcp:0",)),
            (["9999", 9998], ("9999", "9998")),
            (("a",), ("a",)),
        ):
            self.assertEqual(Settings.read({"port": value}).port, ports)

    def test_not_ports(self) -> None:
        """A server without a port, or with one that is no text, is refused."""
        self.assertEqual(self.refused("port", []), "--port: there is none")
        values: list[Any] = ["", [True], [""], None, 1.5, {"a": 1}]
        for value in values:
            self.assertIn("is not a text", self.refused("port", value))

    def test_texts(self) -> None:
        """An app and a journal are texts, and not empty ones."""
        for name in ("app", "journal"):
            self.assertEqual(getattr(Settings.read({name: "x:y"}), name), "x:y")
            for value in ("", 5, None):
                self.assertEqual(self.refused(name, value), f"--{name}: {value!r} is not a text")
            for secret in (["secret"], {"a": "secret"}):
                self.assertEqual(self.refused(name, secret), f"--{name}: a {type(secret).__name__} is not a text")

    def test_framing(self) -> None:
        """The framing is one there is."""
        self.assertEqual(Settings.read({"framing": "int16"}).framing, "int16")
        self.assertIn("no framing is called 'xml'", self.refused("framing", "xml"))
        self.refused("framing", ["line"])

    def test_log_level(self) -> None:
        """--log-level takes levels, and levels of loggers, one or several."""
        self.assertEqual(Settings.read({"log-level": "debug"}).log_level, ("debug",))
        self.assertEqual(Settings.read({"log-level": ["info", "till=WARNING"]}).log_level, ("info", "till=WARNING"))
        for value in ("", [], 7, ["info", "till="], "verbose", "=debug", "till:debug"):
            self.assertTrue(self.refused("log-level", value).startswith("--log-level: "), value)

    def test_log_format(self) -> None:
        """The log format is one of two."""
        self.assertEqual(Settings.read({"log-format": "json"}).log_format, "json")
        values: list[Any] = ["xml", "", None, ["text"], {}]
        for value in values:
            self.assertEqual(self.refused("log-format", value), f"--log-format: {value!r} is not one of text, json")

    def test_encoding(self) -> None:
        """The encoding of typed messages is one of two."""
        self.assertEqual(Settings.read({"encoding": "msgpack"}).encoding, "msgpack")
        values: list[Any] = ["xml", "", None, ["json"]]
        for value in values:
            self.assertEqual(self.refused("encoding", value), f"--encoding: {value!r} is not one of json, msgpack")

    def test_quiet(self) -> None:
        """A flag is true or false, not a text or a number that looks like it."""
        self.assertIs(Settings.read({"quiet": True}).quiet, True)
        self.assertIs(Settings.read({"quiet": False}).quiet, False)
        for value in ("true", "no", 1, 0, None):
            self.assertEqual(self.refused("quiet", value), f"--quiet: {value!r} is not true or false")

    def test_first_error(self) -> None:
        """The first of several mistakes is told."""
        error = self.assertRaises(ConfigurationError, Settings.read, {"threads": "x", "app": ""})
        self.assertTrue(str(error).startswith("--threads: "))
