"""Addresses as text."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from mtserver.transport.addresses import format_address, host_of


class Addresses(SynchronousTestCase):
    def test_format(self) -> None:
        """Each kind of address has its form; a v6 host stands in brackets, so that its port can be told from it."""
        for address, text in (
            (IPv4Address("TCP", "192.0.2.1", 9999), "192.0.2.1:9999"),
            (IPv6Address("TCP", "2001:db8::1", 80), "[2001:db8::1]:80"),
            (UNIXAddress("/run/mtserver.sock"), "unix:/run/mtserver.sock"),
            (UNIXAddress(None), "unix"),
            (UNIXAddress(""), "unix"),
            ("something", "something"),
        ):
            self.assertEqual(format_address(address), text)

    def test_forged(self) -> None:
        """A peer's path, and whatever else an address is, cannot forge a line."""
        self.assertEqual(format_address(UNIXAddress("/tmp/\n\x1b[2J")), "unix:/tmp/\\n\\x1b[2J")
        self.assertEqual(format_address("a\nb"), "a\\nb")

    def test_host(self) -> None:
        """Network addresses have a host; peers of other kinds all look the same."""
        self.assertEqual(host_of(IPv4Address("TCP", "192.0.2.1", 9999)), "192.0.2.1")
        self.assertEqual(host_of(IPv6Address("TCP", "2001:db8::1", 80)), "2001:db8::1")
        self.assertEqual(host_of(UNIXAddress("/run/mtserver.sock")), "")
        self.assertEqual(host_of(None), "")
