"""A server's certificate: files that belong together, those that do not, and what is read out of them."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from unittest import SkipTest

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.transport.tls.certificates import Certificate, Files, load
from mtserver.transport.tls.pem import blocks
from mtserver.transport.tls.profiles import CIPHERS, PROFILES
from tests.integration.certificates import Made

ROOT = Made.authority("root")
MIDDLE = Made.authority("middle", ROOT)
LEAF = Made("leaf", [x509.DNSName("Example.COM"), x509.DNSName("*.example.com")], by=MIDDLE)
WHOLE = LEAF.pem + MIDDLE.pem + LEAF.key_pem


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def write(self, content: bytes, name: str = "all.pem") -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def load(self, content: bytes, chain: bytes = b"") -> Certificate:
        files = Files(self.write(content), chain=self.write(chain, "chain.pem") if chain else None)
        return load(files, PROFILES["intermediate"])

    def refused(self, content: bytes, chain: bytes = b"") -> str:
        with self.assertRaises(ValueError) as caught:
            self.load(content, chain)
        self.assertIn(str(self.folder), str(caught.exception))
        return str(caught.exception)


class Loading(Case):
    def test_what_it_says(self) -> None:
        """Fingerprint, names in lower case, and its end: that of whichever in the chain ends first."""
        certificate = self.load(WHOLE)
        self.assertEqual(certificate.fingerprint, LEAF.fingerprint)
        self.assertEqual(certificate.names, ("example.com", "*.example.com"))
        self.assertEqual(certificate.ends_at, MIDDLE.certificate.not_valid_after_utc.timestamp())
        soon = Made("soon", by=MIDDLE, days=(-1, 3))
        certificate = self.load(soon.pem + MIDDLE.pem + soon.key_pem)
        self.assertEqual(certificate.ends_at, soon.certificate.not_valid_after_utc.timestamp())
        self.assertEqual(certificate.names, ())

    def test_chain(self) -> None:
        """A chain may be in a file of its own or behind the certificate, with the root or without."""
        self.load(WHOLE)
        self.load(LEAF.pem + LEAF.key_pem, MIDDLE.pem + ROOT.pem)

    def test_chain_of_another(self) -> None:
        """A certificate in the chain that has issued none in front of it is refused, be its name the right one."""
        self.assertIn("certificate 2 of the chain has issued none", self.refused(LEAF.pem + LEAF.key_pem, ROOT.pem))
        impostor = Made.authority("middle", ROOT)
        self.assertIn("certificate 2 of the chain", self.refused(LEAF.pem + impostor.pem + LEAF.key_pem))

    def test_half_written(self) -> None:
        """However much of it has been written: there is all of it, or none of it is used."""
        self.load(WHOLE)
        end = len(WHOLE.rstrip())
        # Less of a chain is a chain, too, if it ends with a block; here the key comes last, so all of it is there.
        for size in (*range(0, end, 97), end - 1):
            self.refused(WHOLE[:size])

    def test_half_a_chain(self) -> None:
        """A chain that ends in the middle of a certificate is not taken for a shorter one."""
        chain = MIDDLE.pem + ROOT.pem
        text = self.refused(LEAF.pem + LEAF.key_pem, chain[: len(MIDDLE.pem) + 100])
        self.assertIn("without its end", text)

    def test_unreadable(self) -> None:
        """A key that may not be read is named."""
        path = self.write(WHOLE)
        os.chmod(path, 0)  # noqa: PTH101 - as an operator does
        if os.access(path, os.R_OK):
            raise SkipTest("root reads everything")
        with self.assertRaises(OSError) as caught:
            load(Files(path), PROFILES["intermediate"])
        self.assertIn(path, str(caught.exception))

    def test_paths(self) -> None:
        """Each file is looked at once."""
        self.assertEqual(Files("a", "a").paths, ("a",))
        self.assertEqual(Files("a", "b", "c").paths, ("a", "b", "c"))

    @given(st.binary(max_size=200) | st.text("-BEGIND CRTFAKVL\n", max_size=200).map(str.encode))
    def test_anything(self, content: bytes) -> None:
        """A block has its two ends and no third, whatever is in a file, or the error is one line."""
        begin, end = b"-----BEGIN X-----", b"-----END X-----"
        for text in (content, begin + content, begin + content + end, begin + end + content):
            path = self.write(text)
            try:
                found = blocks(path, "X", "thing")
            except ValueError as error:
                self.assertNotIn("\n", str(error))
            else:
                self.assertEqual(text.count(begin), len(found))
                for block in found:
                    self.assertTrue(block.startswith(begin))
                    self.assertTrue(block.endswith(end))


class Profiles(SynchronousTestCase):
    def test_modern(self) -> None:
        """Modern is TLS 1.3."""
        self.assertEqual(PROFILES["modern"].context().minimum_version, ssl.TLSVersion.TLSv1_3)
        self.assertEqual(PROFILES["intermediate"].context().minimum_version, ssl.TLSVersion.TLSv1_2)

    def test_ciphers(self) -> None:
        """The ciphers are, to this OpenSSL, a part of Mozilla's intermediate list, version 5.7."""
        mozilla = {
            *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
            *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            *("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
        }
        for profile in PROFILES.values():
            self.assertEqual({cipher["name"] for cipher in profile.context().get_ciphers()}, mozilla, CIPHERS)
