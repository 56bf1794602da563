"""Ports: what --port may say, how deep we listen, and how many clients the descriptors have room for."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from mtserver.errors import ConfigurationError
from mtserver.settings import Settings
from mtserver.transport.listeners import ACCEPTS, BACKLOG, RESERVE, ListeningReactor, endpoint, endpoints, room_for
from mtserver.transport.tls import TLSFactory, TLSPolicy
from tests.integration.certificates import write_certificate
from tests.logcase import LogCase

DH = """-----BEGIN DH PARAMETERS-----
MIIBDAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAgICAOE=
-----END DH PARAMETERS-----
"""


class Endpoints(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def listening(self, description: str) -> None:
        self.successResultOf(endpoint(self.reactor, description, TLSPolicy()).listen(Factory()))

    def test_number(self) -> None:
        """A number is that TCP port, on all interfaces, with a backlog for a reconnect storm."""
        self.listening("9999")
        ((port, _, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((port, backlog, interface), (9999, BACKLOG, ""))

    def test_tcp(self) -> None:
        """An endpoint string is Twisted's; a backlog in it is obeyed."""
        self.listening("tcp:9998:interface=127.0.0.1:backlog=7")
        ((port, _, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((port, backlog, interface), (9998, 7, "127.0.0.1"))

    def test_unix(self) -> None:
        """A UNIX socket is listened on as deep, with its own mode."""
        self.listening("unix:/run/mtserver.sock:mode=660:lockfile=0")
        ((path, _, backlog, mode, _lock),) = self.reactor.unixServers
        self.assertEqual((path, backlog, mode), ("/run/mtserver.sock", BACKLOG, 0o660))

    def test_made(self) -> None:
        """Making an endpoint opens nothing."""
        self.assertTrue(IStreamServerEndpoint.providedBy(endpoint(self.reactor, "0", TLSPolicy())))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_too_high(self) -> None:
        """65535 is the last port."""
        endpoint(self.reactor, "65535", TLSPolicy())
        error = self.assertRaises(ConfigurationError, endpoint, self.reactor, "65536", TLSPolicy())
        self.assertEqual(str(error), "--port 65536: a port number is at most 65535")

    def test_mistakes(self) -> None:
        """A string that no endpoint parser takes is one line with the string in it."""
        for description in ("", "-1", "no such thing", "tcp:many", "tcp", "ssl:1:privateKey=/no/such/file", "99 99"):
            error = self.assertRaises(ConfigurationError, endpoint, self.reactor, description, TLSPolicy())
            text = str(error)
            self.assertTrue(text.startswith(f"--port {description}: "), text)
            self.assertNotIn("\n", text)
            self.assertGreater(len(text), len(f"--port {description}: "))

    def test_nameless(self) -> None:
        """A parser's exception without a text is at least named."""

        def parse(*_: Any) -> None:
            raise ZeroDivisionError

        self.patch(sys.modules["mtserver.transport.listeners"], "serverFromString", parse)
        error = self.assertRaises(ConfigurationError, endpoint, self.reactor, "odd:1", TLSPolicy())
        self.assertEqual(str(error), "--port odd:1: ZeroDivisionError")


class Tls(LogCase):
    """``ssl:`` strings, which mean what they mean to Twisted."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        write_certificate(self.folder)
        self.files = f"privateKey={self.folder}/key.pem:certKey={self.folder}/cert.pem"

    def listening(self, description: str) -> tuple[Any, ...]:
        self.reactor.tcpServers.clear()
        self.successResultOf(endpoint(self.reactor, description, TLSPolicy()).listen(Factory()))
        ((port, factory, backlog, interface),) = self.reactor.tcpServers
        return port, type(factory), backlog, interface

    def refused(self, description: str) -> str:
        """Return what is said of a mistake, in one line and after the string."""
        text = str(self.assertRaises(ConfigurationError, endpoint, self.reactor, description, TLSPolicy()))
        self.assertTrue(text.startswith(f"--port {description}: "), text)
        self.assertNotIn("\n", text)
        return text.removeprefix(f"--port {description}: ")

    def test_usual(self) -> None:
        """Port, key and certificate, on all interfaces, with a backlog as for TCP."""
        self.assertEqual(self.listening(f"ssl:9998:{self.files}"), (9998, TLSFactory, BACKLOG, ""))

    def test_by_name(self) -> None:
        """The port may be named, as Twisted has it."""
        self.assertEqual(self.listening(f"ssl:port=9998:{self.files}"), (9998, TLSFactory, BACKLOG, ""))

    def test_interface(self) -> None:
        """Interface and backlog are obeyed; IPv6 is an interface."""
        description = rf"ssl:9998:{self.files}:interface=\:\:1:backlog=7"
        self.assertEqual(self.listening(description), (9998, TLSFactory, 7, "::1"))
        self.assertEqual(self.listening(f"ssl:9998:{self.files}:backlog=50")[2], BACKLOG)

    def test_one_file(self) -> None:
        """The certificate is in the file with the key where there is no certKey."""
        both = self.folder / "both.pem"
        both.write_bytes((self.folder / "key.pem").read_bytes() + (self.folder / "cert.pem").read_bytes())
        self.assertEqual(self.listening(f"ssl:9998:privateKey={both}")[1], TLSFactory)

    def test_server_pem(self) -> None:
        """Key and certificate are in ``server.pem`` where there is no privateKey."""
        self.assertIn("server.pem", self.refused("ssl:9998"))

    def test_openssl(self) -> None:
        """Strings that need pyOpenSSL get it: dhParameters, sslmethod, and files by their places."""
        # RFC 7919's ffdhe2048, which takes no time to make.
        (self.folder / "dh.pem").write_text(DH)
        for more in (f"{self.files}:dhParameters={self.folder}/dh.pem", f"{self.files}:sslmethod=TLSv1_2_METHOD"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of sslmethod
                self.assertEqual(self.listening(f"ssl:9998:{more}"), (9998, TLSMemoryBIOFactory, BACKLOG, ""))
        by_place = f"ssl:9998:{self.folder}/key.pem:{self.folder}/cert.pem"
        self.assertEqual(self.listening(by_place), (9998, TLSMemoryBIOFactory, BACKLOG, ""))

    def test_mistakes(self) -> None:
        """A mistake is one line, with what is wrong in it, and Twisted's own words where it is not of files."""
        none = f"{self.folder}/none.pem"
        self.assertIn(none, self.refused(f"ssl:9998:privateKey={none}"))
        self.assertIn(none, self.refused(f"ssl:9998:{self.files}:extraCertChain={none}"))
        self.assertIn("holds no certificate", self.refused(f"ssl:9998:privateKey={self.folder}/key.pem"))
        self.assertIn("many", self.refused(f"ssl:many:{self.files}"))
        self.assertIn("many", self.refused(f"ssl:9998:{self.files}:backlog=many"))
        self.assertIn("certkey", self.refused(f"ssl:9998:{self.files}:certkey=x"))
        self.assertIn("port", self.refused(f"ssl:{self.files}"))
        self.assertIn("multiple values", self.refused(f"ssl:9998:{self.files}:port=9997"))

    def test_foreign_tls(self) -> None:
        """TLS that would keep no policy is refused (``tls:``), as is what would keep a part of it."""
        self.assertIn("ssl: with --tls-sni", self.refused(f"tls:{self.folder}:port=9998"))
        proxied = f"haproxy:ssl:9998:{self.files}"
        self.listening(proxied)
        policy = TLSPolicy(client_ca=str(self.folder / "cert.pem"))
        for description in (proxied, f"ssl:9998:{self.folder}/key.pem:{self.folder}/cert.pem"):
            error = self.assertRaises(ConfigurationError, endpoint, self.reactor, description, policy)
            self.assertIn(f"--port {description}: --tls-client-ca needs", str(error))

    def test_self_signed(self) -> None:
        """A certificate is made where there are no files and it is wanted, and served with a warning."""
        policy = TLSPolicy(self_signed=True)
        self.successResultOf(endpoint(self.reactor, "ssl:9998", policy).listen(Factory()))
        (line,) = self.logged(LogLevel.warn)
        self.assertRegex(line, r"self-signed.*SHA-256 fingerprint: ([0-9A-F]{2}:){31}[0-9A-F]{2}\Z")
        self.successResultOf(endpoint(self.reactor, f"ssl:9998:{self.files}", policy).listen(Factory()))
        self.assertEqual(len(self.logged(LogLevel.warn)), 1)

    def test_options_without_tls(self) -> None:
        """Options of TLS without a TLS port are a mistake: somebody means to ask clients, and nobody would be asked."""
        settings = Settings(port=("9999",), tls_client_ca=str(self.folder / "cert.pem"))
        error = self.assertRaises(ConfigurationError, endpoints, self.reactor, settings)
        self.assertEqual(str(error), "--tls-client-ca: there is no --port ssl:... to use it")
        endpoints(self.reactor, dataclasses.replace(settings, port=("9999", f"ssl:9998:{self.files}")))

    def test_renewed(self) -> None:
        """A port's new connections have the new certificate after a look."""
        policy, (made,) = endpoints(self.reactor, Settings(port=(f"ssl:9998:{self.files}",)))
        self.successResultOf(made.listen(Factory()))
        ((_, factory, _, _),) = self.reactor.tcpServers
        old = factory.context
        write_certificate(self.folder)
        list(policy.look(0.0))
        self.assertIsNot(factory.context, old)

    def test_too_high(self) -> None:
        """A port that is none is found when it is listened on, as with ``tcp:``."""
        self.assertEqual(self.listening(f"ssl:70000:{self.files}")[0], self.listening("tcp:70000")[0])


class Reactors(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.listening = ListeningReactor(self.reactor, TLSPolicy())

    def test_same(self) -> None:
        """The reactor is the server's, in all but how it listens."""
        self.reactor.advance(5)
        self.assertEqual(self.listening.seconds(), 5)
        self.assertRaises(AttributeError, lambda: self.listening.no_such_thing)

    def test_ssl(self) -> None:
        """TLS is TCP with the protocol wrapped, listened on as deep, and called TLS in the log."""
        factory = Factory()
        port = self.listening.listenSSL(9998, factory, CertificateOptions(), 50, "127.0.0.1")
        ((number, wrapped, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((number, backlog, interface), (9998, BACKLOG, "127.0.0.1"))
        self.assertIsInstance(wrapped, TLSMemoryBIOFactory)
        self.assertIs(wrapped.wrappedFactory, factory)
        self.assertEqual(port._type, "TLS")
        self.assertEqual(self.reactor.sslServers, [])

    def test_accepts_in_turns(self) -> None:
        """However many connections Twisted would accept in one turn, a port takes a few, so that clients get theirs."""
        accepted = []

        class Port:
            numberAccepts = 100  # noqa: N815 - Twisted's name

            def doRead(self) -> None:
                accepted.append(self.numberAccepts)
                self.numberAccepts = 3  # as Twisted guesses from how many came

        made = [Port(), Port()]
        self.patch(self.reactor, "listenTCP", lambda *_: made[0])
        self.patch(self.reactor, "listenUNIX", lambda *_: made[1])
        port = self.listening.listenTCP(1, Factory())
        for _ in range(2):
            port.doRead()
        self.listening.listenUNIX("/run/mtserver.sock", Factory()).doRead()
        self.assertEqual(accepted, [ACCEPTS, 3, ACCEPTS])

    def test_default_backlog(self) -> None:
        """A string without a backlog does not get Twisted's 50."""
        self.listening.listenTCP(1, Factory())
        self.listening.listenSSL(2, Factory(), CertificateOptions())
        self.listening.listenUNIX("/run/mtserver.sock", Factory())
        self.assertEqual([each[2] for each in self.reactor.tcpServers + self.reactor.unixServers], [BACKLOG] * 3)


class Room(SynchronousTestCase):
    """Descriptor limits are the process's own, so the two calls that read and set them are replaced."""

    def limits(self, soft: int, hard: int, taken: int = 10) -> None:
        try:
            import resource
        except ImportError:
            self.skipTest("this system has no such limits")
        self.now = (soft, hard)
        self.infinity = resource.RLIM_INFINITY

        def change(_which: int, limits: tuple[int, int]) -> None:
            self.now = limits

        self.patch(resource, "getrlimit", lambda _which: self.now)
        self.patch(resource, "setrlimit", change)
        self.patch(os.path, "isdir", lambda _path: True)
        self.patch(os, "listdir", lambda _path: [str(number) for number in range(taken)])

    def test_enough(self) -> None:
        """Where there is room already, nothing is changed."""
        self.limits(1000, 2000)
        self.assertEqual(room_for(1000 - 10 - RESERVE), 1000 - 10 - RESERVE)
        self.assertEqual(self.now, (1000, 2000))

    def test_raised(self) -> None:
        """The soft limit is raised as far as is needed."""
        self.limits(1000, 5000)
        self.assertEqual(room_for(2000), 2000)
        self.assertEqual(self.now, (2000 + 10 + RESERVE, 5000))

    def test_hard(self) -> None:
        """The limit cannot be raised over the hard one: then fewer clients fit."""
        self.limits(1000, 1500)
        self.assertEqual(room_for(2000), 1500 - 10 - RESERVE)
        self.assertEqual(room_for(2000, ports=3), 1500 - 10 - RESERVE - 4 * ACCEPTS)
        self.assertEqual(self.now, (1500, 1500))

    def test_taken(self) -> None:
        """Descriptors that are open already are not for clients."""
        self.limits(1000, 1000, taken=500)
        self.assertEqual(room_for(2000), 1000 - 500 - RESERVE)

    def test_unlimited(self) -> None:
        """There is room for all without a limit; an unlimited hard one does not stop the soft one."""
        self.limits(-1, -1)
        self.now = (self.infinity, self.infinity)
        self.assertEqual(room_for(10**6), 10**6)
        self.assertEqual(self.now, (self.infinity, self.infinity))
        self.now = (1000, self.infinity)
        self.assertEqual(room_for(5000), 5000)
        self.assertEqual(self.now, (5000 + 10 + RESERVE, self.infinity))

    def test_nothing_left(self) -> None:
        """One client has room even with next to no descriptors, and can be told why."""
        self.limits(20, 20)
        self.assertEqual(room_for(1000), 1)

    def test_no_descriptor_folder(self) -> None:
        """Where open descriptors cannot be counted, a few are assumed."""
        self.limits(1000, 1000)
        self.patch(os.path, "isdir", lambda _path: False)
        self.patch(os, "listdir", lambda _path: self.fail("there is no such folder"))
        self.assertEqual(room_for(2000), 1000 - 16 - RESERVE)

    def test_no_limits(self) -> None:
        """Where the system has no such limits there is room for all."""
        there = sys.modules.pop("resource", None)
        if there is not None:
            self.addCleanup(sys.modules.__setitem__, "resource", there)
        else:
            self.addCleanup(sys.modules.pop, "resource", None)
        sys.modules["resource"] = None  # type: ignore[assignment]
        self.assertEqual(room_for(10**6), 10**6)
