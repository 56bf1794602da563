"""The identity of a client in its certificate."""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.transport.tls.identity import LONGEST, identity_of
from tests.integration.certificates import Made

URI = x509.UniformResourceIdentifier("spiffe://example.com/device/7")
EMAIL = x509.RFC822Name("Device.7@Example.COM")
DNS = x509.DNSName("Device-7.Example.com")
ADDRESS = x509.IPAddress(ipaddress.ip_address("192.0.2.7"))


def identity(*names: x509.GeneralName, common_name: str = "root") -> str | None:
    return identity_of(Made(common_name, names).der)


class Identities(SynchronousTestCase):
    def test_order(self) -> None:
        """A URI comes before an e-mail address, and that before a DNS name, in whatever order they stand."""
        self.assertEqual(identity(DNS, EMAIL, URI), "spiffe://example.com/device/7")
        self.assertEqual(identity(DNS, EMAIL), "Device.7@example.com")
        self.assertEqual(identity(ADDRESS, DNS), "device-7.example.com")

    def test_first(self) -> None:
        """The first of several names of a kind is the identity."""
        self.assertEqual(identity(x509.DNSName("b.example"), x509.DNSName("a.example")), "b.example")

    def test_none(self) -> None:
        """A common name is none, nor is an address, nor what is no certificate."""
        self.assertIsNone(identity(common_name="device-7.example.com"))
        self.assertIsNone(identity(ADDRESS))
        for nonsense in (b"", b"nonsense", Made("a", [DNS]).der[:-9]):
            self.assertIsNone(identity_of(nonsense))

    def test_no_disguise(self) -> None:
        """A name that could be taken for another kind, for many, or for a line of a log, is passed over."""
        odd: list[x509.GeneralName] = [
            x509.DNSName("*.example.com"),
            x509.DNSName("a@example.com"),
            x509.DNSName("urn:x"),
            x509.DNSName("a\x00.example.com"),
            x509.DNSName("a\nb"),
            x509.DNSName(""),
            x509.DNSName("a" * (LONGEST + 1)),
            x509.RFC822Name("example.com"),
            x509.UniformResourceIdentifier("//example.com/a"),
            x509.UniformResourceIdentifier("urn:a b"),
        ]
        for name in odd:
            self.assertIsNone(identity(name), name)
            self.assertEqual(identity(name, DNS), "device-7.example.com")

    @given(st.lists(st.sampled_from([x509.DNSName, x509.UniformResourceIdentifier]), max_size=3), st.data())
    def test_any_name(self, kinds: list[type[x509.DNSName]], data: st.DataObject) -> None:
        """The identity is one printable word of ASCII, or there is none, whatever a signer has put there."""
        ascii_text = st.text(st.characters(max_codepoint=127), max_size=30)
        found = identity(*(kind(data.draw(ascii_text)) for kind in kinds))
        if found is not None:
            self.assertRegex(found, re.compile(r"\A[\x21-\x7e]+\Z"))

    def test_other_version(self) -> None:
        """Nor does one of a version that there is none of."""
        whole = Made("a", [DNS]).der
        other = whole.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)
        self.assertNotEqual(other, whole)
        self.assertIsNone(identity_of(other))

    @given(st.binary(max_size=100), st.integers(0, 400))
    def test_damaged(self, noise: bytes, place: int) -> None:
        """A certificate with noise in it raises nothing."""
        whole = Made("a", [DNS]).der
        identity_of(whole[:place] + noise + whole[place + len(noise) :])
