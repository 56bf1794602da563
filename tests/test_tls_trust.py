"""Clients' certificates: who is let in, as whom, and what is recorded of those who are not."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet import main
from twisted.logger import LogLevel

from mtserver import Client, Handler
from mtserver.errors import ConfigurationError
from mtserver.session import opening
from mtserver.transport.tls import Files, TLSFactory, TLSPolicy
from mtserver.transport.tls.policy import Served
from mtserver.transport.tls.protocol import TLSProtocol
from mtserver.transport.tls.trust import Trust
from tests.controls import ControlCase
from tests.integration.certificates import CLIENT, SERVER, Made
from tests.logcase import LogCase
from tests.test_tls import TLS12, TLS13, Case, TlsClient, trusting

ROOT = Made.authority("root")
LOCAL = Made("localhost", [x509.DNSName("localhost")], by=ROOT, usage=[SERVER])
NAMES = [x509.DNSName("device-7.example.com")]
DEVICE = Made("device", NAMES, by=ROOT, usage=[CLIENT])


async def who(client: Client, message: bytes) -> bytes:
    return (client.identity or "nobody").encode()


class Asked(Case, LogCase):
    """A server that asks its clients for certificates."""

    def setUp(self) -> None:
        LogCase.setUp(self)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        LOCAL.write(self.folder)
        (self.folder / "ca.pem").write_bytes(ROOT.pem)
        self.serve()

    def serve(self, revoked: bytes = b"", **options: Any) -> None:
        crl = self.folder / "crl.pem"
        crl.write_bytes(revoked)
        self.policy = TLSPolicy(client_ca=str(self.folder / "ca.pem"), crl=str(crl) if revoked else None, **options)
        self.served = self.policy.serve(Files(str(self.folder / "cert.pem"), str(self.folder / "key.pem")))
        self.context = self.served.context

    def tls_factory(self, wrapped: Any) -> TLSFactory:
        return TLSFactory(self.served.context, wrapped)

    def context_of(self, made: Made | None, version: ssl.TLSVersion = TLS13, chain: Sequence[Made] = ()) -> Any:
        context = trusting(version)
        if made is not None:
            made.write_together(self.folder / "client.pem", *chain)
            context.load_cert_chain(self.folder / "client.pem")
        return context

    def asked_by(self, made: Made | None, version: ssl.TLSVersion = TLS13, chain: Sequence[Made] = ()) -> TlsClient:
        return self.connect(who, context=self.context_of(made, version, chain))

    def let_in(self, made: Made, chain: Sequence[Made] = ()) -> bytes:
        """Say the identity of a client, in both versions."""
        seen = set()
        for version in (TLS12, TLS13):
            client = self.asked_by(made, version, chain)
            client.shake_hands()
            client.send(b"who\n")
            seen.add(client.received)
        self.assertEqual({event["audit"] for event in self.audited()}, {"authenticated"})
        (identity,) = seen
        return identity.strip()

    def refused(self, made: Made | None) -> str:
        """The reason recorded: once, with the address of the peer, in both versions."""
        reasons = set()
        for version in (TLS12, TLS13):
            self.events.clear()
            client = self.asked_by(made, version)
            # Its words are OpenSSL's: tests look at them where they say something of ours.
            with self.assertRaises(ssl.SSLError):
                client.shake_hands()
                client.tls.read()
            self.assertFalse(self.transport.connected)
            (event,) = self.audited()
            self.assertEqual((event.pop("audit"), event.pop("peer")), ("handshake-failed", "192.0.2.2:50000"))
            reasons.add(event.pop("reason"))
            self.assertEqual(event, {})
        (reason,) = reasons
        return str(reason)


class Identity(Asked):
    def test_good(self) -> None:
        """A good certificate, and its alternative name is the client's identity."""
        self.assertEqual(self.let_in(DEVICE), b"device-7.example.com")
        self.assertEqual(self.let_in(Made("any usage", NAMES, by=ROOT)), b"device-7.example.com")

    def test_chain(self) -> None:
        """Certificates between it and the authority come from the client."""
        middle = Made.authority("middle", ROOT)
        self.assertEqual(self.let_in(Made("device", NAMES, by=middle), [middle]), b"device-7.example.com")

    def test_before_the_handler(self) -> None:
        """The handler finds the identity there when it first sees the client."""
        seen = []

        class Curious(Handler):
            async def connected(self) -> None:
                seen.append(self.client.identity)

            async def received(self, message: bytes) -> None: ...

        client = self.connect(Curious, context=self.context_of(DEVICE))
        client.shake_hands()
        self.assertEqual(seen, ["device-7.example.com"])

    def test_garbage(self) -> None:
        """A client with garbage behind its handshake, in one segment, has its identity, and its messages count."""
        seen = []

        async def note(client: Client, message: bytes) -> None:
            seen.append((client.identity, message))

        client = self.connect(note, context=self.context_of(DEVICE))
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        client.carry()
        client.tls.do_handshake()
        client.send(b"who\n", at_once=False)
        client.deliver(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"x" * 32)
        self.assertEqual(seen, [("device-7.example.com", b"who")])
        self.assertFalse(self.transport.connected)

    def test_none(self) -> None:
        """A common name is no identity: the client is told, the handler never sees it, and the reason is recorded."""

        class Never(Handler):
            async def connected(self) -> None:
                raise AssertionError

            async def received(self, message: bytes) -> None:
                raise AssertionError

        client = self.connect(Never, context=self.context_of(Made("device-7.example.com", by=ROOT)))
        client.shake_hands()
        client.send(b"a\n")
        self.assertEqual(client.received, b"ERR auth authentication missing or refused\n")
        self.assertTrue(client.told)
        client.finish()
        self.assertFalse(self.transport.connected)
        event, _closed = self.audited()
        self.assertEqual((event["audit"], event["peer"]), ("authentication-failed", "192.0.2.2:50000"))
        self.assertIn("no name", event["reason"])

    def test_resumed(self) -> None:
        """A client that resumes a session has the same identity; not so if the certificate has expired meanwhile."""
        context = self.context_of(DEVICE, TLS12)
        client = self.connect(who, context=context)
        client.shake_hands()
        session = client.tls.session
        for now, reasons in ((0.0, []), (1e11, ["the certificate of the session has expired"])):
            self.patch(time, "time", lambda now=now: now)
            again = self.connect(who, context=context)
            again.tls = context.wrap_bio(again.incoming, again.outgoing, session=session)
            again.shake_hands()
            self.assertTrue(again.tls.session_reused)
            again.send(b"who\n")
            self.assertEqual(again.received, b"" if reasons else b"device-7.example.com\n")
            self.assertEqual(self.transport.connected, not reasons)
            self.assertEqual([event["reason"] for event in self.audited() if "reason" in event], reasons)


class Refused(Asked):
    def test_without(self) -> None:
        """A client without a certificate."""
        self.assertNotIn("certificate: ", self.refused(None))  # there is none to be wrong

    def test_expired(self) -> None:
        """One that has expired, and one that is not valid yet."""
        expired = self.refused(Made("device", NAMES, by=ROOT, days=(-9, -1)))
        early = self.refused(Made("device", NAMES, by=ROOT, days=(1, 9)))
        for reason in (expired, early):
            self.assertRegex(reason, "^certificate: .")
        self.assertNotEqual(expired, early)

    def test_another_authority(self) -> None:
        """One that somebody else has signed, be it under the same name; and one that has signed itself."""
        for made in (Made("device", NAMES, by=Made.authority("other")), Made("device", NAMES)):
            self.assertRegex(self.refused(made), "^certificate: .")
        self.assertRegex(self.refused(Made("device", NAMES, by=Made.authority("root"))), "^certificate: .")

    def test_usage(self) -> None:
        """One that is for servers."""
        self.assertRegex(self.refused(Made("device", NAMES, by=ROOT, usage=[SERVER])), "^certificate: .")

    def test_signed_by_a_client(self) -> None:
        """One that a client has signed with its own."""
        forged = Made("device", NAMES, by=DEVICE)
        self.assertIn("certificate: ", self.refused(forged))

    def test_revoked(self) -> None:
        """One that has been taken back; others are let in."""
        self.serve(ROOT.revoke(DEVICE))
        self.assertRegex(self.refused(DEVICE), "^certificate: .")
        self.events.clear()
        self.assertEqual(self.let_in(Made("device", NAMES, by=ROOT)), b"device-7.example.com")

    def test_stale_list(self) -> None:
        """A revocation list that has expired says nothing, so nobody is let in; so does that of another authority."""
        self.serve(ROOT.revoke(days=(-9, -1)))
        self.assertRegex(self.refused(DEVICE), "^certificate: .")
        for _ in range(2):
            self.policy.look_at_expiry(time.time())
        (line,) = self.logged(LogLevel.error)
        self.assertRegex(line, r"^the revocation list in .*/crl\.pem has expired, at ")
        self.serve(Made.authority("other").revoke())
        self.assertRegex(self.refused(DEVICE), "^certificate: .")


class Reloaded(Asked):
    def look(self) -> None:
        list(self.policy.look(0.0))

    def test_authority(self) -> None:
        """A client that is no longer trusted is refused from the next look on; one that was let in stays."""
        client = self.asked_by(DEVICE)
        client.shake_hands()
        transport = self.transport
        other = Made.authority("other")
        (self.folder / "ca.pem").write_bytes(other.pem)
        self.look()
        self.events.clear()
        self.assertRegex(self.refused(DEVICE), "^certificate: .")
        self.events.clear()
        self.assertEqual(self.let_in(Made("device", NAMES, by=other)), b"device-7.example.com")
        self.assertTrue(transport.connected)

    def test_revoked(self) -> None:
        """A client that is revoked from now on is refused from the next look on."""
        self.serve(ROOT.revoke())
        self.assertEqual(self.let_in(DEVICE), b"device-7.example.com")
        (self.folder / "crl.pem").write_bytes(ROOT.revoke(DEVICE))
        self.look()
        self.assertIn("revoked", self.refused(DEVICE))

    def test_half_written(self) -> None:
        """A list or an authority that is not all there changes nothing, and is told once."""
        self.serve(ROOT.revoke(DEVICE))
        for name in ("crl.pem", "ca.pem"):
            path = self.folder / name
            whole = path.read_bytes()
            path.write_bytes(whole[:-30])
            self.events.clear()
            self.look()
            self.look()
            (event,) = self.audited()
            self.assertEqual(event["audit"], "certificate-refused")
            self.assertIn(name, event["reason"])
            self.assertIn("revoked", self.refused(DEVICE))
            path.write_bytes(whole)
            self.look()


class Mistakes(Asked):
    def mistake(self, **options: Any) -> str:
        return str(self.assertRaises(ConfigurationError, lambda: TLSPolicy(**options)))

    def test_files(self) -> None:
        """A mistake in a file is one line, with the option's name and the file's."""
        path, good = str(self.folder / "bad.pem"), str(self.folder / "ca.pem")
        self.assertRegex(self.mistake(client_ca=path), rf"\A--tls-client-ca: .*{path}")
        self.assertRegex(self.mistake(client_ca=good, crl=path), rf"\A--tls-crl: .*{path}")
        Path(path).write_bytes(DEVICE.key_pem)
        self.assertEqual(self.mistake(client_ca=path), f"--tls-client-ca: {path} holds no certificate in PEM format")
        self.assertIn("holds no revocation list", self.mistake(client_ca=good, crl=path))
        for label in ("CERTIFICATE", "X509 CRL"):
            Path(path).write_bytes(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n".encode())
            options = {"client_ca": path} if label == "CERTIFICATE" else {"client_ca": good, "crl": path}
            self.assertIn(f"{path}: a ", self.mistake(**options))

    def test_list_alone(self) -> None:
        """A revocation list without an authority revokes nothing."""
        self.assertIn("--tls-crl: only with --tls-client-ca", self.mistake(crl=str(self.folder / "ca.pem")))


class Failures(Asked):
    def test_not_tls(self) -> None:
        """What is no TLS at all."""
        self.asked_by(None).deliver(b"GET / HTTP/1.1\r\n\r\n")
        (event,) = self.audited()
        self.assertTrue(event["reason"])

    def test_in_its_middle(self) -> None:
        """A client that leaves after its first word is recorded; one that only looks if the port is open is not."""
        client = self.asked_by(DEVICE)
        client.end()
        self.assertEqual(self.audited(), [])
        client = self.asked_by(DEVICE)
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        client.deliver(client.outgoing.read())
        with self.harness._running():
            self.transport.end(main.CONNECTION_LOST)
        self.assertEqual([event["reason"] for event in self.audited()], ["the client left in its middle"])

    def test_not_in_time(self) -> None:
        """Nor is one that stays silent forgotten."""
        self.asked_by(DEVICE)
        self.harness.advance(13)
        self.assertIn("not done by the time", self.audited()[0]["reason"])


class Controls(ControlCase):
    def test_without_a_certificate(self) -> None:
        """A client without a certificate is let in."""
        right = Trust.require

        def wrong(trust: Trust, context: ssl.SSLContext) -> None:
            right(trust, context)
            context.verify_mode = ssl.CERT_OPTIONAL

        with self.noticed_by(Refused, "test_without"):
            self.patch(Trust, "require", wrong)

    def test_revoked(self) -> None:
        """A certificate that was taken back is good."""
        right = Trust.require

        def wrong(trust: Trust, context: ssl.SSLContext) -> None:
            right(trust, context)
            context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF

        with self.noticed_by(Refused, "test_revoked"):
            self.patch(Trust, "require", wrong)

    def test_without_an_identity(self) -> None:
        """A certificate without a name is somebody's."""
        with self.noticed_by(Identity, "test_none"):
            self.patch(opening, "identity_of", lambda _certificate: "somebody")

    def test_expired_since(self) -> None:
        """A session outlives the certificate that it was begun with."""
        with self.noticed_by(Identity, "test_resumed"):
            self.patch(TLSProtocol, "_has_expired", lambda _: False)

    def test_trusted_for_ever(self) -> None:
        """Who was trusted at the start is trusted until the end."""
        right = Served.look
        with self.noticed_by(Reloaded, "test_authority"):
            self.patch(Served, "look", lambda served, **_: right(served, force=False))
