"""Certificates by the names that clients ask for, from a folder that changes."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from twisted.internet.protocol import Factory

from mtserver.errors import ConfigurationError
from mtserver.transport.tls import Files, TLSPolicy
from tests.integration.certificates import Made
from tests.logcase import LogCase
from tests.test_tls import TLS12, TLS13, Case, Inside, TlsClient, never, trusting


def made(name: str, *names: str) -> Made:
    return Made(name, [x509.DNSName(each) for each in names])


class Chosen(Case, LogCase):
    def setUp(self) -> None:
        LogCase.setUp(self)
        self.folder = Path(self.mktemp()).absolute()
        self.names = self.folder / "names"
        self.names.mkdir(parents=True)
        self.own = made("own", "own.example")
        self.own.write(self.folder)
        self.made: dict[str, Made] = {}
        self.put("a.example", "a.example", "also-a.example")
        self.put("wild", "*.b.example", "a.example")
        self.put("x.b.example", "x.b.example")
        self.policy = TLSPolicy(sni=str(self.names))
        self.served = self.policy.serve(Files(str(self.folder / "cert.pem"), str(self.folder / "key.pem")))
        self.context = self.served.context

    def put(self, name: str, *names: str) -> None:
        self.made[name] = made(name, *names)
        self.made[name].write_together(self.names / f"{name}.pem")

    def look(self) -> list[str]:
        """The security events of one look."""
        self.events.clear()
        list(self.policy.look(0.0))
        return [event["audit"] for event in self.audited()]

    def shown(self, name: str | None) -> str:
        """Ask for a name; return which certificate was shown, in both versions."""
        found = set()
        for version in (TLS12, TLS13):
            inside = Inside({})
            factory = Factory()
            factory.buildProtocol = lambda _, inside=inside: inside  # type: ignore[method-assign,misc]
            client = self.connect(never, factory)
            context = trusting(version)
            client.tls = context.wrap_bio(client.incoming, client.outgoing, server_hostname=name)
            TlsClient.shake_hands(client)
            der = client.tls.getpeercert(binary_form=True)
            assert der is not None
            found.add(der)
        (der,) = found
        return {self.own.der: "own", **{each.der: name for name, each in self.made.items()}}[der]

    def test_names(self) -> None:
        """Certificates go by the file's name, the names in it, and wildcards, after names; others get the port's."""
        wanted = {
            "a.example": "a.example",
            "A.Example": "a.example",
            "also-a.example": "a.example",
            "y.b.example": "wild",
            "x.b.example": "x.b.example",
            "b.example": "own",
            "y.x.b.example": "own",
            "own.example": "own",
            "other.example": "own",
            None: "own",
        }
        self.assertEqual({name: self.shown(name) for name in wanted}, wanted)

    def test_renewed(self) -> None:
        """A renewed certificate is shown from the next look on; nothing is read that has not changed."""
        self.assertEqual(self.look(), [])
        old = self.made["a.example"]
        self.put("a.example", "a.example")
        with self.assertRaises(KeyError):
            self.shown("a.example")  # it is the old one
        self.assertEqual(self.look(), ["certificate-reloaded"])
        self.assertEqual(self.shown("a.example"), "a.example")
        self.assertNotEqual(old.der, self.made["a.example"].der)
        self.assertEqual(self.shown("also-a.example"), "own")

    def test_new_and_gone(self) -> None:
        """A file that is new is taken up, one that has gone is let go."""
        self.put("c.example", "c.example")
        (self.names / "a.example.pem").unlink()
        self.look()
        self.assertEqual(self.shown("c.example"), "c.example")
        self.assertEqual(self.shown("also-a.example"), "own")
        self.assertEqual(self.shown("a.example"), "wild")

    def test_half_written(self) -> None:
        """A half-written file changes nothing, new or not, and is told once; all others are looked at nevertheless."""
        whole = (self.names / "a.example.pem").read_bytes()
        (self.names / "a.example.pem").write_bytes(whole[:-30])
        (self.names / "0.example.pem").write_bytes(whole[:30])
        self.put("c.example", "c.example")
        self.assertEqual(self.look(), ["certificate-refused"] * 2)
        self.assertEqual(self.look(), [])
        self.assertEqual(self.shown("a.example"), "a.example")
        self.assertEqual(self.shown("c.example"), "c.example")
        (self.names / "0.example.pem").write_bytes(whole)
        self.look()
        self.assertEqual(self.shown("0.example"), "a.example")

    def test_folder_gone(self) -> None:
        """A folder that cannot be listed changes nothing, and is told once."""
        moved = self.names.rename(self.folder / "moved")
        self.assertEqual(self.look(), ["certificate-refused"])
        self.assertEqual(self.look(), [])
        self.assertEqual(self.shown("a.example"), "a.example")
        moved.rename(self.names)
        self.assertEqual(self.look(), [])

    def test_mistakes(self) -> None:
        """A folder that is none, is empty, or holds what cannot be used, is a mistake before the start."""
        empty = self.folder / "empty"
        for content, text in ((None, "No such file"), (b"", "holds no NAME.pem"), (b"x", "holds no certificate")):
            if content is not None:
                empty.mkdir(exist_ok=True)
            if content:
                (empty / "bad.pem").write_bytes(content)
            error = self.assertRaises(ConfigurationError, lambda: TLSPolicy(sni=str(empty)))
            self.assertRegex(str(error), rf"\A--tls-sni: .*{text}")

    def test_odd_name(self) -> None:
        """A name that is none is nobody's, and harms nobody."""
        for name in ("", ".", "*", "\x01", "a" * 300):
            context = self.policy.profile.context()
            tls = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
            assert self.policy._names is not None
            self.policy._names.choose(tls, name, context)
            self.assertIs(tls.context, context)
