"""Where NATS is, as an operator says it; what of it is refused before anything is opened. Nothing is connected."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError
from mtserver.nats import Address, check_nats, check_reactor, parse_address
from mtserver.nats.checks import read_credentials
from mtserver.nats.link import FIRST_DELAY, LAST_DELAY, _check_version, _delays
from mtserver.nats.link_log import words
from mtserver.settings import Settings
from tests.integration.certificates import Made

CREDENTIALS = """-----BEGIN NATS USER JWT-----
eyJ0.eyJq.c2ln
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4
------END USER NKEY SEED------
"""


class Addresses(SynchronousTestCase):
    def test_addresses(self) -> None:
        """One server or several, with the usual port or another, TLS, IPv6, and a name."""
        for text, address in (
            ("nats://a", Address((("a", 4222),))),
            ("nats://a:1,b,a:1/rooms-1", Address((("a", 1), ("b", 4222)), name="rooms-1")),
            ("tls://[::1]:4223,10.0.0.1:5", Address((("::1", 4223), ("10.0.0.1", 5)), tls=True)),
        ):
            self.assertEqual(parse_address(text), address)
        self.assertEqual([address.url(each) for each in address.servers], ["tls://[::1]:4223", "tls://10.0.0.1:5"])

    def test_wrong(self) -> None:
        """Each mistake is named."""
        for text, why in (
            ("nats:a", "not of the form"),
            ("http://a", "not of the form"),
            ("nats://", "'' is not a server"),
            ("nats://a,,b", "'' is not a server"),
            ("nats://a:0", "'a:0' is not a server"),
            ("nats://a:65536", "'a:65536' is not a server"),
            ("nats://a b", "'a b' is not a server"),
            ("nats://a/", "the name ''"),
            ("nats://a/x/y", "the name 'x/y'"),
        ):
            with self.assertRaisesRegex(ConfigurationError, why):
                parse_address(text)

    def test_password(self) -> None:
        """A password does not belong there, and is not repeated."""
        with self.assertRaisesRegex(ConfigurationError, "see --nats-credentials") as caught:
            check_nats("--groups nats://me:secret@a", Settings())
        self.assertNotIn("secret", str(caught.exception))

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=20).map(lambda text: f"nats://{text}"))
    def test_anything(self, text: str) -> None:
        """Any text is an address, or a mistake in one line."""
        try:
            address = parse_address(text)
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(
                parse_address(",".join(map(address.url, address.servers)).replace(",nats://", ",")).servers,
                address.servers,
            )


class Checks(SynchronousTestCase):
    def refused(self, pattern: str, **options: Any) -> None:
        with self.assertRaisesRegex(ConfigurationError, pattern):
            check_nats("--groups tls://a", Settings(**options))

    def file(self, content: str | bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def test_files(self) -> None:
        """Credentials and authorities are there, and are what they should be; the address knows them."""
        credentials, authorities = self.file(CREDENTIALS), self.file(Made.authority("ca").pem)
        address = check_nats("--groups tls://a", Settings(nats_credentials=credentials, nats_ca=authorities))
        self.assertEqual((address.credentials, address.authorities), (credentials, authorities))
        dos = self.file(CREDENTIALS.replace("\n", "\r\n"))
        self.assertEqual(read_credentials(dos).decode(), CREDENTIALS)
        an_account = CREDENTIALS.replace("SUAI", "SAAI")
        self.refused("there is no NATS user's token and seed in it", nats_credentials=self.file(an_account))
        self.refused("--nats-credentials /none: No such file", nats_credentials="/none")
        self.refused("there is no NATS user's token and seed in it", nats_credentials=self.file("secret"))
        self.refused("--nats-ca /none: No such file", nats_ca="/none")
        self.refused("there is no certificate in it", nats_ca=self.file("secret"))

    def test_ca_in_clear_text(self) -> None:
        """Authorities without TLS are a mistake: somebody thinks that it is safe."""
        with self.assertRaisesRegex(ConfigurationError, "--nats-ca x: --groups nats://a is not tls://"):
            check_nats("--groups nats://a", Settings(nats_ca="x"))

    def test_without_asyncio(self) -> None:
        """A reactor that is not on asyncio is named."""
        installed = sys.modules.pop("twisted.internet.reactor", None)

        def put_back() -> None:
            del sys.modules["twisted.internet.reactor"]
            if installed is not None:
                sys.modules["twisted.internet.reactor"] = installed

        self.addCleanup(put_back)
        check_reactor("--groups nats://a")
        sys.modules["twisted.internet.reactor"] = cast("Any", MemoryReactorClock())
        with self.assertRaisesRegex(ConfigurationError, "on asyncio, and MemoryReactorClock is not; leave --reactor"):
            check_reactor("--groups nats://a")

    def test_without_nats_py(self) -> None:
        """A missing library is named, with what brings it."""
        self.patch(importlib.util, "find_spec", lambda name: None)
        self.refused(r"needs nats-py: pip install 'mtserver\[nats\]'")


class Versions(SynchronousTestCase):
    def test_versions(self) -> None:
        """A server that is too old is told from one that will do."""
        for version in ("2.10.0", "2.15.1", "3.0.0-beta.1", "2.11.0-RC.2"):
            _check_version({"version": version})
        with self.assertRaisesRegex(ConfigurationError, "it is nats-server 2.9.10, and 2.10 is the oldest"):
            _check_version({"version": "2.9.10"})
        for info in ({}, {"version": "x"}, {"version": "x.y"}):
            with self.assertRaisesRegex(ConfigurationError, "which is no version"):
                _check_version(info)


class Trying(SynchronousTestCase):
    def test_delays(self) -> None:
        """Attempts come at longer and longer, but never long, intervals, and no two links' at the same time."""
        delays = [next(each) for each in [_delays()] for _ in range(20)]
        for attempt, delay in enumerate(delays):
            most = min(LAST_DELAY, FIRST_DELAY * 2**attempt)
            self.assertTrue(most / 2 <= delay <= most)
        random.seed()
        self.assertEqual(len({next(_delays()) for _ in range(20)}), 20)

    def test_words(self) -> None:
        """An error is one line."""
        self.assertEqual(words(Exception("nats: 'Authorization\nViolation'")), "'Authorization Violation'")
        self.assertEqual(words(TimeoutError()), "it does not answer")
        self.assertEqual(words(EOFError()), "EOFError")
