"""Certificates change while the server runs, and expire."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from cryptography import x509
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mtserver.testing import Harness
from mtserver.transport.tls import Files, Reload, TLSFactory, TLSPolicy
from mtserver.transport.tls.certificates import Certificate
from mtserver.transport.tls.expiry import DAY, Expiry
from mtserver.transport.tls.reload import INTERVAL
from tests.integration.certificates import Made
from tests.logcase import LogCase
from tests.test_tls import Case, shout, trusting


def made(*, days: float = 90) -> Made:
    return Made("localhost", [x509.DNSName("localhost")], days=(-99, days))


class FilesCase(LogCase):
    """A port's certificate, whose files a test changes."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.now = 1e9
        self.clock = Clock()
        self.first = made()
        self.first.write(self.folder)
        self.policy = TLSPolicy()
        self.served = self.policy.serve(Files(str(self.folder / "cert.pem"), str(self.folder / "key.pem")))
        self.factory = TLSFactory(self.served.context, Factory())
        self.served.used_by(self.factory)
        self.reload = Reload(self.policy, self.clock, lambda: self.now)
        self.reload.start()

    @property
    def shown(self) -> str:
        """The fingerprint that new handshakes show."""
        self.assertIs(self.factory.context, self.served.context)
        return self.served.certificate.fingerprint

    def pass_time(self, seconds: float = INTERVAL) -> list[str]:
        """Let it pass. Returns what has been recorded meanwhile."""
        self.events.clear()
        self.clock.pump([seconds, 0, 0, 0, 0])
        return [event["audit"] for event in self.audited()]


class Changes(FilesCase):
    def test_unchanged(self) -> None:
        """Files that have not changed are not read, and cost a look at their times."""
        context = self.factory.context
        self.assertEqual(self.pass_time(100 * INTERVAL), [])
        self.assertIs(self.factory.context, context)

    def test_renewed(self) -> None:
        """A new pair is shown from the next look on, recorded and logged."""
        second = made()
        second.write(self.folder)
        self.assertEqual(self.pass_time(INTERVAL - 1), [])
        self.assertEqual(self.pass_time(1), ["certificate-reloaded"])
        self.assertEqual(self.shown, second.fingerprint)
        files = f"{self.folder}/cert.pem, {self.folder}/key.pem"
        self.assertEqual(self.logged(LogLevel.info), [f"certificate reloaded: {files}"])

    def test_half_a_pair(self) -> None:
        """The certificate of another key changes nothing and is told once; with its key, it is taken up."""
        second = made()
        (self.folder / "cert.pem").write_bytes(second.pem)
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        (line,) = self.logged(LogLevel.error)
        self.assertIn("key.pem is not the private key of", line)
        self.assertEqual(self.pass_time(), [])
        self.assertEqual(self.shown, self.first.fingerprint)
        (self.folder / "key.pem").write_bytes(second.key_pem)
        self.assertEqual(self.pass_time(), ["certificate-reloaded"])
        self.assertEqual(self.shown, second.fingerprint)

    def test_expired_already(self) -> None:
        """One that has expired does not take the place of one that has not."""
        made(days=-1).write(self.folder)
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        self.assertEqual(self.shown, self.first.fingerprint)
        (line,) = self.logged(LogLevel.error)
        self.assertIn("it has expired already", line)

    def test_half_written(self) -> None:
        """A file that is not all there, that has gone, or that cannot be read changes nothing either."""
        path = self.folder / "key.pem"
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        path.unlink()
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        path.mkdir()
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        self.assertEqual(self.pass_time(), [])
        self.assertEqual(self.shown, self.first.fingerprint)
        path.rmdir()
        path.write_bytes(whole)
        self.assertEqual(self.pass_time(), ["certificate-reloaded"])

    def test_same_size_and_second(self) -> None:
        """Another file in the place of the first is seen, be it as old and as large."""
        second = made()
        for name, content in (("cert.pem", second.pem), ("key.pem", second.key_pem)):
            state = (self.folder / name).stat()
            (self.folder / "new").write_bytes(content)
            os.utime(self.folder / "new", ns=(state.st_atime_ns, state.st_mtime_ns))
            (self.folder / "new").rename(self.folder / name)
        self.assertEqual(self.pass_time(), ["certificate-reloaded"])
        self.assertEqual(self.shown, second.fingerprint)

    def test_asked(self) -> None:
        """Asked to, all is read at once, changed or not; and looked at in its time after that."""
        self.reload.now()
        self.assertEqual(self.pass_time(0), ["certificate-reloaded"])
        self.assertEqual(self.pass_time(), [])
        (self.folder / "cert.pem").unlink()
        self.assertEqual(self.pass_time(), ["certificate-refused"])
        self.reload.now()
        self.assertEqual(self.pass_time(0), ["certificate-refused"])

    def test_stopped(self) -> None:
        """After the stop there is no timer left; asked then, it does nothing."""
        self.reload.stop()
        self.reload.stop()
        self.reload.now()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_tls(self) -> None:
        """A server without a TLS port has nothing to look at, and no timer."""
        clock = Clock()
        reload = Reload(TLSPolicy(), clock)
        reload.start()
        reload.now()
        reload.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class Running(Case):
    def test_connections_go_on(self) -> None:
        """A connection of before the change goes on, one of after it is shown the new certificate."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        first, second = made(), made()
        first.write(folder)
        policy = TLSPolicy()
        served = policy.serve(Files(str(folder / "cert.pem"), str(folder / "key.pem")))
        self.context = served.context
        factory = self.tls_factory(None)
        served.used_by(factory)
        old = self.shaken(shout)
        second.write(folder)
        list(policy.look(0.0))
        self.context = factory.context
        old.send(b"a\n")
        self.assertEqual(old.received, b"A\n")
        new = self.shaken(shout)
        self.assertEqual(old.tls.getpeercert(binary_form=True), first.der)
        self.assertEqual(new.tls.getpeercert(binary_form=True), second.der)


class SelfSigned(LogCase):
    def test_made(self) -> None:
        """A certificate made on the spot serves, for a year and this machine, and stays what it is when all is read."""
        policy = TLSPolicy(self_signed=True)
        served = policy.serve_self_signed()
        certificate = served.certificate
        self.assertTrue(served.is_self_signed)
        self.assertIn("localhost", certificate.names)
        list(policy.look(certificate.ends_at - 31 * DAY, force=True))
        self.assertEqual(served.certificate.fingerprint, certificate.fingerprint)
        self.assertEqual(self.logged(LogLevel.warn, LogLevel.info), [])
        self.assertNotEqual(policy.serve_self_signed().certificate.fingerprint, certificate.fingerprint)


class Expiring(LogCase):
    def certificate(self, name: str = "AB") -> Certificate:
        return Certificate(trusting(), name, (), 1e9)

    def warned(self, expiry: Expiry, days: float, name: str = "AB") -> list[str]:
        self.events.clear()
        expiry.look("cert.pem", self.certificate(name), 1e9 - days * DAY)
        return self.logged(LogLevel.warn, LogLevel.error)

    def test_thresholds(self) -> None:
        """Warnings come at 30, 7 and 1 days and at the end, each once, and never twice at one time."""
        expiry = Expiry()
        warnings = {days: self.warned(expiry, days) for days in (31, 30, 29, 8, 7, 6.5, 1.5, 1, 0.5, 0, -1)}
        self.assertEqual([days for days, lines in warnings.items() if lines], [30, 7, 1, 0])
        end = "at 2001-09-09 01:46 UTC"
        self.assertEqual(warnings[7], [f"the certificate in cert.pem expires in 7.0 days, {end}"])
        self.assertEqual(warnings[0], [f"the certificate in cert.pem has expired, {end}"])

    def test_each(self) -> None:
        """Certificates are warned of one by one; one that is late already, or has expired, gets one warning."""
        expiry = Expiry()
        self.assertEqual(len(self.warned(expiry, 0.5)), 1)
        self.assertEqual(self.warned(expiry, 0.5), [])
        self.assertEqual(len(self.warned(expiry, 20, "CD")), 1)
        self.assertEqual(len(self.warned(expiry, -5, "EF")), 1)


class AtStart(FilesCase):
    def test_expired(self) -> None:
        """One that has expired is told at the start, one that expires while the server runs in time."""
        self.now = self.served.certificate.ends_at - 31 * DAY
        self.assertEqual(self.pass_time() or self.logged(LogLevel.warn), [])
        self.now += 2 * DAY
        self.pass_time()
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("cert.pem expires in 29.0 days", line)
        made(days=-9).write(self.folder)
        policy = TLSPolicy()
        policy.serve(Files(str(self.folder / "cert.pem"), str(self.folder / "key.pem")))
        self.events.clear()
        Reload(policy, Clock()).start()
        self.assertIn("has expired", self.logged(LogLevel.error)[0])


class Signals(LogCase):
    def test_hangup(self) -> None:
        """A reload is no end, for a server without a TLS port either."""
        harness = Harness(shout)
        harness.service._hung_up(signal.SIGHUP, None)
        harness.advance(1)
        self.assertIn("reloading: certificates are read again", self.logged(LogLevel.info))
        self.assertTrue(harness.service.running)
