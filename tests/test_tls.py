"""TLS on fake transports: deadlines, ends on either side, what peers may do and must not; and its files."""

from __future__ import annotations

import contextlib
import functools
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mtserver import App, Client
from mtserver.session import opening
from mtserver.session.opening import HANDSHAKE
from mtserver.session.protocol import GOODBYE, LINGER
from mtserver.session.receiving import LINGER_SIZE
from mtserver.session.session import Session
from mtserver.testing import Harness
from mtserver.testing.transport import FakeTransport
from mtserver.transport.tls import ANSWERS, TLSFactory, certificates
from mtserver.transport.tls.profiles import PROFILES, Profile
from tests.controls import ControlCase
from tests.integration.certificates import write_certificate

TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3
#: The protocol that some tests put in place of ours calls these when something happens.
Act = Callable[[Any], object]


async def shout(client: Client, message: bytes) -> bytes:
    return message.upper()


async def never(client: Client, message: bytes) -> bytes:
    raise AssertionError(message)


def trusting(version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    # Not another one first, for which it would be asked to try again.
    context.set_ecdh_curve("prime256v1")
    return context


def server_context(*files: str | None) -> ssl.SSLContext:
    """Make a context with a certificate, by the default profile, and nothing else."""
    return certificates.load(certificates.Files(*files), PROFILES["intermediate"]).context  # type: ignore[arg-type] # the first is a path


@functools.cache
def common_context() -> ssl.SSLContext:
    """One for all tests: to make a certificate takes longer than most of them."""
    with tempfile.TemporaryDirectory() as folder:
        write_certificate(Path(folder))
        return server_context(f"{folder}/cert.pem", f"{folder}/key.pem")


class TlsClient:
    """A client whose bytes are carried by hand."""

    def __init__(self, harness: Harness, transport: FakeTransport, context: ssl.SSLContext) -> None:
        self._harness = harness
        self.transport = transport
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self._carried = 0
        self.received = b""
        #: The server has said close_notify.
        self.told = False
        #: How many bytes there are in each segment that it sends; 0 for all there is.
        self.segment = 0

    def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if not self.carry():
                    raise AssertionError("the server does not answer") from None
        self.carry()

    def send(self, data: bytes, *, at_once: bool = True) -> None:
        self.tls.write(data)
        if at_once:
            self.carry()

    def finish(self) -> None:
        """close_notify, after all that was sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.carry()

    def deliver(self, data: bytes) -> None:
        """Bytes, as they are."""
        size = self.segment or len(data)
        with self._harness._running():
            for start in range(0, len(data), size or 1):
                self.transport.deliver(data[start : start + size])

    def end(self) -> None:
        """FIN."""
        with self._harness._running():
            self.transport.end(main.CONNECTION_DONE)
        self.read()

    def carry(self) -> int:
        """Send what there is, and read what has come. Returns how many bytes that was."""
        if self.outgoing.pending:
            self.deliver(self.outgoing.read())
        return self.read()

    def read(self) -> int:
        with self._harness._running():
            pass
        new = bytes(self.transport.output[self._carried :])
        self._carried += len(new)
        self.incoming.write(new)
        if self.tls.version() and self.tls.cipher():
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    while data := self.tls.read(65536):
                        self.received += data
                except ssl.SSLZeroReturnError:
                    pass  # it has said so itself, too
                self.told = True
        return len(new)


class Inside(Protocol):
    """Knows no half-closing. Notes what it is told, and acts on it."""

    transport: Any

    def __init__(self, acts: dict[str, Act]) -> None:
        self.acts = acts
        self.told: list[str] = []
        self.received = b""
        self.reasons: list[Any] = []

    def _tell(self, name: str) -> None:
        self.told.append(name)
        self.acts.get(name, lambda _: None)(self)

    def connectionMade(self) -> None:
        self._tell("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell("data")

    def connectionLost(self, reason: Any = None) -> None:
        self.reasons.append(reason)
        self._tell("lost")


@implementer(IHandshakeListener)
class Listening(Inside):
    def handshakeCompleted(self) -> None:
        self._tell("handshake")


class Case(SynchronousTestCase):
    harness: Harness
    transport: FakeTransport

    def setUp(self) -> None:
        self.context = common_context()

    def connect(self, handler: Any = shout, wrapped: Any = None, **settings: Any) -> TlsClient:
        """A client of a new server that has sent nothing."""
        client_context = settings.pop("context", None) or trusting()
        self.harness = Harness(handler, **settings)
        factory = wrapped or self.harness.reactor.tcpServers[0][1]
        peer = IPv4Address("TCP", "192.0.2.2", 50000)
        protocol = self.tls_factory(factory).buildProtocol(peer)
        assert protocol is not None
        self.transport = FakeTransport(self.harness.reactor, protocol, peer, peer)
        # A client of the harness, as far as the harness looks.
        self.harness._connected.append(cast("Any", self))
        with self.harness._running():
            self.transport.startReading()
            protocol.makeConnection(self.transport)
        return TlsClient(self.harness, self.transport, client_context)

    def tls_factory(self, wrapped: Any) -> TLSFactory:
        return TLSFactory(self.context, wrapped)

    def shaken(self, *args: Any, **settings: Any) -> TlsClient:
        """The same, after its handshake."""
        client = self.connect(*args, **settings)
        client.shake_hands()
        return client

    def inside(self, kind: type[Inside] = Inside, **acts: Act) -> tuple[Inside, TlsClient]:
        """A protocol of any other kind, and a client that has sent nothing."""
        made = kind(acts)
        factory = Factory()
        factory.buildProtocol = lambda _: made  # type: ignore[method-assign,assignment]
        return made, self.connect(never, factory)

    def run_until_cut(self, seconds: float) -> None:
        """It is there for so long, and not for longer."""
        self.harness.advance(seconds - 1)
        self.assertTrue(self.transport.connected)
        self.harness.advance(3)
        self.assertFalse(self.transport.connected)


class Exchange(Case):
    def test_versions(self) -> None:
        """TLS 1.2 and 1.3."""
        for version, name in ((TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")):
            client = self.shaken(context=trusting(version))
            self.assertEqual(client.tls.version(), name)
            client.send(b"a\nb\n")
            self.assertEqual(client.received, b"A\nB\n")

    def test_large(self) -> None:
        """Messages and replies of a megabyte."""
        for framing, head in (("line", b""), ("int32", (1 << 20).to_bytes(4, "big"))):
            client = self.shaken(framing=framing, max_message=1 << 20)
            message = head + b"x" * (1 << 20) + (b"\n" if framing == "line" else b"")
            client.send(message)
            self.assertEqual(client.received, message.upper())

    def test_many_records(self) -> None:
        """The records of one read are received at once, and answered by one write."""
        inside, client = self.inside()
        client.shake_hands()
        for number in range(20):
            client.send(b"%d " % number, at_once=False)
        client.carry()
        self.assertEqual(inside.told, ["made", "data"])
        self.assertEqual(inside.received.split(), [b"%d" % number for number in range(20)])

        client = self.shaken()
        writes = self.transport.writes
        for number in range(20):
            client.send(b"%d\n" % number, at_once=False)
        client.carry()
        self.assertEqual(len(client.received.split()), 20)
        self.assertEqual(self.transport.writes, writes + 1)

    def test_one_byte_segments(self) -> None:
        """Handshake, messages and close_notify, byte by byte."""
        for version in (TLS12, TLS13):
            client = self.connect(context=trusting(version))
            client.segment = 1
            client.shake_hands()
            client.send(b"a\nb\n")
            client.finish()
            self.assertEqual(client.received, b"A\nB\n")
            self.assertFalse(self.transport.connected)

    def test_end_of_a_record(self) -> None:
        """The last bytes of a record bring all of it, however few they are."""
        for version in (TLS12, TLS13):
            client = self.connect(context=trusting(version))
            client.shake_hands()
            client.send(b"first\n")  # and alone in its read
            message = b"m" * 9999 + b"\n"
            client.send(message, at_once=False)
            record = client.outgoing.read()
            for piece in (record[:-7], record[-7:]):
                client.deliver(piece)
            client.read()
            self.assertEqual(client.received, b"FIRST\n" + message.upper())

    def test_data_with_the_handshake(self) -> None:
        """A message in one segment with the end of the handshake is one, as TLS 1.3 clients send it."""
        client = self.connect()
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        client.carry()
        client.tls.do_handshake()
        client.send(b"a\n")
        self.assertEqual(client.received, b"A\n")

    @given(st.lists(st.binary(max_size=20).filter(lambda text: b"\n" not in text), max_size=5), st.data())
    def test_any_split(self, messages: list[bytes], data: st.DataObject) -> None:
        """However the client's bytes are cut, the messages are the same."""
        seen: list[bytes] = []

        async def note(client: Client, message: bytes) -> None:
            seen.append(message)

        client = self.shaken(note)
        for message in messages:
            client.send(message + b"\n", at_once=False)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        rest = client.outgoing.read()
        cuts = sorted(data.draw(st.sets(st.integers(1, len(rest) - 1), max_size=10)))
        for begin, end in zip([0, *cuts], [*cuts, len(rest)], strict=True):
            client.deliver(rest[begin:end])
        self.assertEqual(seen, [message.removesuffix(b"\r") for message in messages])
        client.read()
        self.assertTrue(client.told)

    def test_empty_write(self) -> None:
        """Writing no bytes sends no bytes."""
        inside, client = self.inside()
        client.shake_hands()
        size = len(self.transport.output)
        inside.transport.write(b"")
        inside.transport.writeSequence([])
        client.carry()
        self.assertEqual(len(self.transport.output), size)

    def test_sequence(self) -> None:
        """A sequence is written as one."""
        inside, client = self.inside()
        client.shake_hands()
        inside.transport.writeSequence([b"a", b"b"])
        client.carry()
        self.assertEqual(client.received, b"ab")

    def test_transport(self) -> None:
        """The rest of what a transport can do, it can: addresses, options, certificate, pausing."""
        inside, client = self.inside()
        client.shake_hands()
        tls: Any = inside.transport
        self.assertEqual((tls.getPeer().port, tls.getHost().host), (50000, "192.0.2.2"))
        tls.setTcpNoDelay(True)
        tls.setTcpKeepAlive(True)
        self.assertTrue(tls.getTcpNoDelay())
        self.assertFalse(tls.getTcpKeepAlive())
        self.assertIsNone(tls.getPeerCertificate())
        self.assertIsNone(tls.negotiatedProtocol)
        self.assertEqual(tls.getHandle().version(), "TLSv1.3")
        tls.pauseProducing()
        client.send(b"a")
        self.assertEqual(inside.received, b"")
        tls.resumeProducing()
        client.carry()
        self.assertEqual(inside.received, b"a")
        tls.stopProducing()
        client.carry()
        self.assertTrue(client.told)

    def test_client_certificate(self) -> None:
        """A client's certificate, where the context asks for one, is given as DER."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        write_certificate(folder)
        files = str(folder / "cert.pem"), str(folder / "key.pem")
        context = server_context(*files)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files[0])
        self.context = context
        theirs = trusting(TLS12)
        theirs.load_cert_chain(*files)
        made = Inside({})
        factory = Factory()
        factory.buildProtocol = lambda _: made  # type: ignore[method-assign,assignment]
        client = self.connect(never, factory, context=theirs)
        client.shake_hands()
        expected = ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())
        self.assertEqual(made.transport.getPeerCertificate(), expected)

    def test_resumption(self) -> None:
        """A client that comes back resumes its session, by a ticket; TLS 1.3 has none, since they come unasked."""
        for version, resumes in ((TLS12, True), (TLS13, False)):
            context = trusting(version)
            client = self.shaken(context=context)
            client.send(b"a\n")
            session = client.tls.session
            again = self.connect()
            again.tls = context.wrap_bio(again.incoming, again.outgoing, session=session)
            again.shake_hands()
            again.send(b"b\n")
            self.assertEqual(again.received, b"B\n")
            self.assertEqual(again.tls.session_reused, resumes)

    def test_factory(self) -> None:
        """The factory starts and stops the one that it wraps; that may refuse, and gives its name to the log."""
        told = []

        class Wrapped(Factory):
            def doStart(self) -> None:
                told.append("start")

            def doStop(self) -> None:
                told.append("stop")

            def buildProtocol(self, addr: Any) -> None:
                return None

        factory = TLSFactory(self.context, Wrapped())
        factory.doStart()
        factory.doStop()
        self.assertEqual(told, ["start", "stop"])
        self.assertEqual(factory.logPrefix(), "Wrapped (TLS)")
        self.assertIsNone(factory.buildProtocol(None))


class Handshakes(Case):
    def test_silent(self) -> None:
        """A client that sends nothing is cut when its handshake is due."""
        self.connect(never)
        self.run_until_cut(HANDSHAKE)

    def test_silent_while_opening(self) -> None:
        """Nor does it wait for the app, whose lifespan may take longer to open."""
        opening: Deferred[None] = Deferred()

        @contextlib.asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            await opening
            yield

        self.connect(App(shout, lifespan=lifespan))
        self.run_until_cut(HANDSHAKE)
        self.harness.fire(opening)

    def test_slow(self) -> None:
        """One that goes on, byte by byte, is cut then too."""
        client = self.connect(never)
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        hello = client.outgoing.read()
        for number in range(int(HANDSHAKE)):
            self.assertTrue(self.transport.connected)
            client.deliver(hello[number : number + 1])
            self.harness.advance(1)
        self.harness.advance(2)
        self.assertFalse(self.transport.connected)

    def test_done(self) -> None:
        """One whose handshake is done has all the time of a client."""
        client = self.shaken()
        self.harness.advance(5 * HANDSHAKE)
        client.send(b"a\n")
        self.assertEqual(client.received, b"A\n")

    def test_left(self) -> None:
        """The end of a stream in the middle of a handshake is the end, and the client's doing."""
        for size in (0, 50, None):
            inside, client = self.inside()
            self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
            client.deliver(client.outgoing.read()[:size])
            client.end()
            self.assertFalse(self.transport.connected)
            inside.reasons[0].trap(type(main.CONNECTION_DONE))

    def test_not_tls(self) -> None:
        """Plain HTTP, and anything else that is no ClientHello, is the end, with no word of ours that is no TLS."""
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"hello\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 100, b"\xff" * 99):
            inside, client = self.inside()
            client.deliver(garbage)
            self.assertFalse(self.transport.connected)
            (reason,) = inside.reasons
            reason.trap(ssl.SSLError)
            self.assertTrue(reason.getErrorMessage())
            self.assertIn(bytes(self.transport.output[:2]), (b"", b"\x15\x03"))  # at most an alert

    def test_old_versions(self) -> None:
        """TLS 1.1 is refused, and the client told why."""
        context = trusting(ssl.TLSVersion.TLSv1_2)
        # Whether the client's own OpenSSL would still speak it is no matter: this is what it would say.
        client = self.connect(never, context=context)
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        hello = bytearray(client.outgoing.read())
        hello[9:11] = b"\x03\x02"
        client.deliver(bytes(hello))
        self.assertEqual(bytes(self.transport.output), b"\x15\x03\x02\x00\x02\x02\x46")  # fatal: protocol_version
        self.assertFalse(self.transport.connected)

    def test_no_shared_cipher(self) -> None:
        """A client that knows only what is weak (CBC, or no ephemeral key) is refused, and told."""
        for ciphers in ("ECDHE+AES+SHA256", "kRSA+AESGCM"):
            context = trusting(TLS12)
            context.set_ciphers(ciphers)
            inside, client = self.inside()
            client.tls = context.wrap_bio(client.incoming, client.outgoing)
            self.assertRaises(ssl.SSLError, client.shake_hands)
            self.assertIn("no shared cipher", inside.reasons[0].getErrorMessage())

    def test_distrusting(self) -> None:
        """A client that does not trust the certificate says so by an alert, which is the reason for the end."""
        inside, client = self.inside()
        strict = ssl.create_default_context()
        strict.maximum_version = TLS12
        client.tls = strict.wrap_bio(client.incoming, client.outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLCertVerificationError, client.shake_hands)
        client.carry()
        self.assertFalse(self.transport.connected)
        self.assertIn("alert", inside.reasons[0].getErrorMessage())

    def test_renegotiation(self) -> None:
        """TLS 1.2: a client that wants to renegotiate is told no, and served on; not for ever."""
        client = self.connect()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        theirs = SSL.Connection(context, None)
        theirs.set_connect_state()
        carried = 0
        received = b""

        def step(call: Callable[..., Any], *args: Any) -> None:
            nonlocal carried, received
            for _ in range(4):
                with contextlib.suppress(SSL.Error):
                    call(*args)
                with contextlib.suppress(SSL.Error):
                    client.deliver(theirs.bio_read(65536))
                new = bytes(self.transport.output[carried:])
                carried += len(new)
                if new:
                    theirs.bio_write(new)
                with contextlib.suppress(SSL.Error):
                    received += theirs.recv(65536)

        step(theirs.do_handshake)
        self.assertEqual(theirs.get_protocol_version_name(), "TLSv1.2")
        written = self.transport.writes
        theirs.renegotiate()
        with contextlib.suppress(SSL.Error):
            theirs.do_handshake()
        client.deliver(theirs.bio_read(65536))
        self.assertEqual(self.transport.writes, written + 1)
        answer = bytes(self.transport.output[carried:])
        self.assertEqual(answer[:1], b"\x15")  # an alert, no ServerHello
        self.assertTrue(self.transport.connected)
        theirs.bio_write(answer)
        self.assertRaises(SSL.Error, theirs.recv, 1)

    def test_refused(self) -> None:
        """A newcomer over the limit reads why once it has made its handshake, and whatever it sends with that."""
        for together in (False, True):
            harness = Harness(never, max_clients=1)
            harness.connect()
            client = self.connect(never, harness.reactor.tcpServers[0][1])
            self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
            client.carry()
            client.tls.do_handshake()
            if not together:
                client.carry()
            client.send(b"hello\n")
            self.assertRegex(client.received, rb"\AERR busy .*\n\Z")
            self.assertTrue(client.told)
            client.send(b"more\n")
            # To close now would be to reset, and the client might not have read it.
            self.assertTrue(self.transport.connected)
            client.finish()
            self.assertFalse(self.transport.connected)

    def test_write_before(self) -> None:
        """Bytes written before the handshake are sent after it, and before bytes written when it is done."""
        inside, client = self.inside(
            Listening,
            made=lambda inside: inside.transport.writeSequence([b"a", b"b"]),
            handshake=lambda inside: inside.transport.write(b"c"),
        )
        inside.transport.write(b"")
        client.shake_hands()
        self.assertEqual(client.received, b"abc")

    def test_lose_before(self) -> None:
        """Closing before the handshake, with nothing written, is aborting."""
        inside, _ = self.inside(made=lambda inside: inside.transport.loseConnection())
        self.harness.advance(0)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(inside.told, ["made", "lost"])

    def test_lose_when_done(self) -> None:
        """Closing when the handshake is done: bytes that came with it are no error, and nothing is lost."""

        def close(inside: Inside) -> None:
            tls: Any = inside.transport
            tls.write(b"bye")
            tls.loseConnection()

        _, client = self.inside(Listening, handshake=close)
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        client.carry()
        client.tls.do_handshake()
        client.send(b"hello")
        self.assertEqual(client.received, b"bye")
        self.assertTrue(client.told)
        self.assertTrue(self.transport.connected)

    def test_abort_in_the_middle(self) -> None:
        """A protocol that aborts when told of the handshake gets no bytes that came with it, and sends nothing more."""
        inside, client = self.inside(Listening, handshake=lambda inside: inside.transport.abortConnection())
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        client.carry()
        client.tls.do_handshake()
        client.send(b"hello")
        self.assertEqual(inside.told, ["made", "handshake", "lost"])
        tls: Any = inside.transport
        written = self.transport.writes
        tls.write(b"x")
        tls.loseConnection()
        self.assertEqual(self.transport.writes, written)

    def test_stop(self) -> None:
        """A stop does not wait for handshakes."""
        self.connect(never)
        began = self.harness.reactor.seconds()
        self.harness.stop()
        self.assertFalse(self.transport.connected)
        self.assertLess(self.harness.reactor.seconds() - began, 1)


class Ends(Case):
    def gated(self, **settings: Any) -> TlsClient:
        self.gate: Deferred[None] = Deferred()

        async def late(client: Client, message: bytes) -> bytes:
            await self.gate
            return message.upper()

        return self.shaken(late, **settings)

    def test_close_notify(self) -> None:
        """A client that has said close_notify reads the replies that come later, and then the end."""
        for version in (TLS12, TLS13):
            client = self.gated(context=trusting(version))
            client.send(b"a\nb\nunfinished")
            client.finish()
            self.assertFalse(client.told)
            self.harness.advance(60)
            self.harness.fire(self.gate)
            client.read()
            self.assertFalse(self.transport.connected)
            self.assertEqual(client.received, b"A\nB\n")

    def test_after_close_notify(self) -> None:
        """Bytes after the client's close_notify are ignored, and not kept; the end is told once."""
        client = self.gated()
        client.send(b"a\n")
        client.finish()
        for _ in range(1000):
            client.deliver(b"x" * 10000)
        protocol: Any = self.transport.protocol
        self.assertEqual(protocol._incoming.pending, 0)
        client.end()
        self.harness.fire(self.gate)
        client.read()
        self.assertEqual(client.received, b"A\n")
        self.assertFalse(self.transport.connected)

    def test_end_without_close_notify(self) -> None:
        """FIN alone is an end too: whole messages are answered."""
        client = self.gated()
        client.send(b"a\nb\nunfinished")
        client.end()
        self.assertTrue(self.transport.connected)
        self.harness.fire(self.gate)
        client.read()
        self.assertEqual(client.received, b"A\nB\n")
        self.assertTrue(client.told)
        self.assertFalse(self.transport.connected)

    def test_truncated(self) -> None:
        """FIN within a record: those before it count."""
        client = self.shaken()
        client.send(b"a\n")
        client.send(b"b\n", at_once=False)
        client.deliver(client.outgoing.read()[:-1])
        client.end()
        self.assertEqual(client.received, b"A\n")
        self.assertFalse(self.transport.connected)

    def test_garbage(self) -> None:
        """Bytes that are no record end the connection, but records before them count, even in the same segment."""
        for together in (False, True):
            seen: list[bytes] = []

            async def note(client: Client, message: bytes, seen: list[bytes] = seen) -> None:
                seen.append(message)

            client = self.shaken(note)
            client.send(b"a\n", at_once=not together)
            client.deliver(client.outgoing.read() + b"GET / HTTP/1.0\r\n\r\n")
            self.assertEqual(seen, [b"a"])
            self.assertFalse(self.transport.connected)

    def test_changed(self) -> None:
        """A record that was changed on its way is the end, with an alert."""
        inside, client = self.inside()
        client.shake_hands()
        client.send(b"hello", at_once=False)
        record = bytearray(client.outgoing.read())
        record[-1] ^= 1
        client.deliver(bytes(record))
        self.assertRaises(ssl.SSLError, client.read)
        self.assertFalse(self.transport.connected)
        self.assertEqual(inside.received, b"")
        self.assertIsNotNone(inside.reasons[0].check(ssl.SSLError))

    def test_fatal_alert(self) -> None:
        """A fatal alert from the client is the end, and its reason."""
        inside, client = self.inside()
        client.tls = trusting(TLS12).wrap_bio(client.incoming, client.outgoing)
        client.shake_hands()
        # Before it has seen our part of the handshake a peer may send it in the clear; so it is made by a bad record.
        client.incoming.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        self.assertRaises(ssl.SSLError, client.tls.read)
        client.deliver(client.outgoing.read())
        self.assertFalse(self.transport.connected)
        self.assertIsNotNone(inside.reasons[0].check(ssl.SSLError))

    def test_unanswered(self) -> None:
        """A client that does not answer our close_notify is cut after a while."""

        async def bye(client: Client, message: bytes) -> bytes:
            client.close()
            return b"bye"

        client = self.shaken(bye)
        client.send(b"x\n")
        self.assertEqual(client.received, b"bye\n")
        self.assertTrue(client.told)
        self.run_until_cut(GOODBYE)

    def test_answered(self) -> None:
        """One that does is closed with."""
        for finish in (TlsClient.finish, TlsClient.end):

            async def bye(client: Client, message: bytes) -> bytes:
                client.close()
                return b"bye"

            client = self.shaken(bye)
            client.send(b"x\n")
            self.assertTrue(self.transport.connected)
            finish(client)
            self.assertFalse(self.transport.connected)
            self.assertFalse(self.transport.aborted)

    def test_after_ours(self) -> None:
        """After our close_notify a client may send on for a while: that is dropped, and costs it not what we said."""
        for version in (TLS12, TLS13):
            client = self.shaken(max_message=5, context=trusting(version))
            for _ in range(20):
                client.send(b"x" * 16000)
            self.assertTrue(self.transport.connected)
            self.assertRegex(client.received, rb"\AERR too-long .*\n\Z")
            self.assertTrue(client.told)
            client.finish()
            self.assertFalse(self.transport.connected)
            self.assertFalse(self.transport.aborted)

    def test_flood_after_ours(self) -> None:
        """A flood is not read to its end."""
        client = self.shaken(max_message=5)
        sent = 0
        while self.transport.connected:
            client.send(b"x" * 1_000_000)
            sent += 1_000_000
            self.assertLess(sent, LINGER_SIZE + 3_000_000)
        self.assertGreater(sent, LINGER_SIZE)

    def test_not_half_closeable(self) -> None:
        """A protocol that knows no half-closing is closed when the client says close_notify, or FIN."""
        for finish in (TlsClient.finish, TlsClient.end):
            inside, client = self.inside()
            client.shake_hands()
            inside.transport.write(b"written")
            client.read()
            finish(client)
            self.assertEqual(client.received, b"written")
            self.assertFalse(self.transport.connected)
            self.assertEqual(inside.told, ["made", "lost"])
            inside.reasons[0].trap(type(main.CONNECTION_DONE))

    def test_write_after(self) -> None:
        """Bytes written after loseConnection, or after the end, are dropped."""
        inside, client = self.inside()
        client.shake_hands()
        tls: Any = inside.transport
        tls.loseConnection()
        tls.loseConnection()
        tls.write(b"late")
        client.read()
        self.assertEqual((client.received, client.told), (b"", True))
        client.finish()
        self.assertEqual(inside.told, ["made", "lost"])
        tls.write(b"later")
        tls.abortConnection()

    def test_write_fails(self) -> None:
        """A write that OpenSSL refuses ends the connection, with its reason."""
        inside, client = self.inside()
        client.shake_hands()
        tls: Any = inside.transport
        with contextlib.suppress(ssl.SSLError):
            tls.getHandle().unwrap()
        tls.write(b"x")
        client.read()
        self.assertFalse(self.transport.connected)
        inside.reasons[0].trap(ssl.SSLError)

    def test_reset(self) -> None:
        """RST is told as what it is."""
        inside, client = self.inside()
        client.shake_hands()
        with self.harness._running():
            self.transport.end(main.CONNECTION_LOST)
        inside.reasons[0].trap(type(main.CONNECTION_LOST))

    def test_answers_are_bounded(self) -> None:
        """Answers that OpenSSL sends by itself, to key updates and the like, are limited."""
        inside, client = self.inside()
        client.shake_hands()
        tls: Any = inside.transport
        for _ in range(ANSWERS // 1000):
            tls._answer(b"x" * 1000)
        self.assertTrue(self.transport.connected)
        tls._answer(b"x" * 1000)
        client.end()
        self.assertFalse(self.transport.connected)
        self.assertIn("too many", inside.reasons[0].getErrorMessage())


class BackPressure(Case):
    def test_send_timeout(self) -> None:
        """A client that reads no more is cut at --send-timeout."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * 300_000

        client = self.shaken(large, send_timeout=5)
        self.transport.window = 1000
        client.send(b"a\n")
        self.harness.advance(4)
        self.assertTrue(self.transport.connected)
        self.harness.advance(2 + LINGER + 1)
        self.assertFalse(self.transport.connected)

    def test_told(self) -> None:
        """If it reads again after all, it reads ``ERR slow`` behind what it was sent whole."""

        async def large(client: Client, message: bytes) -> bytes:
            for _ in range(6):
                client.send(b"x" * 65535)  # two are a write
            return b"end"

        client = self.shaken(large, send_timeout=5)
        self.transport.window = 1000
        client.send(b"a\n")
        self.harness.advance(6.5)
        self.transport.window = None
        client.read()
        *sent, word, end = client.received.split(b"\n")
        self.assertEqual([len(line) for line in sent], [65535] * 2)
        self.assertRegex(word, rb"\AERR slow ")
        self.assertEqual(end, b"")
        self.assertTrue(client.told)

    def test_send_buffer(self) -> None:
        """One that is sent more than --send-buffer holds is cut too."""

        async def flood(client: Client, message: bytes) -> None:
            for _ in range(100):
                client.send(b"x" * 10_000)

        client = self.shaken(flood, send_buffer=100_000)
        self.transport.window = 0
        client.send(b"a\n")
        self.harness.advance(LINGER + 1)
        self.assertFalse(self.transport.connected)

    def test_slow_but_reading(self) -> None:
        """One that reads on, however slowly, gets everything."""

        async def large(client: Client, message: bytes) -> bytes:
            return b"x" * 300_000

        client = self.shaken(large, send_timeout=5)
        self.transport.window = 0
        client.send(b"a\n" * 3)
        for _ in range(100):
            self.transport.window = 50_000
            self.harness.advance(1)
            client.read()
        self.assertEqual(client.received, (b"x" * 300_000 + b"\n") * 3)

    def test_reading_pauses(self) -> None:
        """While the handler is busy, reading pauses; and goes on."""
        gate: Deferred[None] = Deferred()

        async def late(client: Client, message: bytes) -> bytes:
            await gate
            return message[:1]

        client = self.shaken(late)
        for _ in range(100):
            client.send(b"a" * 9999 + b"\n")
        self.assertLess(self.transport.consumed, 200_000)
        self.harness.fire(gate)
        client.read()
        self.assertEqual(client.received, b"a\n" * 100)

    def test_producer(self) -> None:
        """A producer of the protocol's is one of the transport's."""

        @implementer(IPushProducer)
        class Producer:
            def __init__(self) -> None:
                self.told: list[str] = []

            def pauseProducing(self) -> None:
                self.told.append("pause")

            def resumeProducing(self) -> None:
                self.told.append("resume")

            def stopProducing(self) -> None:
                self.told.append("stop")

        inside, client = self.inside()
        client.shake_hands()
        tls: Any = inside.transport
        producer = Producer()
        tls.registerProducer(producer, True)
        self.transport.window = 0
        tls.write(b"x" * 100_000)
        self.assertEqual(producer.told, ["pause"])
        self.transport.window = None
        client.read()
        self.assertEqual(producer.told, ["pause", "resume"])
        tls.unregisterProducer()
        client.finish()
        self.assertEqual(producer.told, ["pause", "resume"])


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        write_certificate(self.folder)
        self.certificate = str(self.folder / "cert.pem")
        self.key = str(self.folder / "key.pem")

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def refused(self, blamed: str, certificate: str, key: str | None = None, chain: str | None = None) -> str:
        """The one line that names the file."""
        with self.assertRaises((OSError, ValueError)) as caught:
            server_context(certificate, key, chain)
        text = str(caught.exception)
        self.assertIn(blamed, text)
        self.assertNotIn("\n", text)
        return text

    def test_missing(self) -> None:
        """A file that is not there, and one that cannot be read."""
        for none in (str(self.folder / "none.pem"), str(self.folder)):
            self.refused(none, none, self.key)
            self.refused(none, self.certificate, none)
            self.refused(none, self.certificate, self.key, none)

    def test_not_pem(self) -> None:
        """A file that holds nothing of the kind."""
        der = self.write("cert.der", ssl.PEM_cert_to_DER_cert(Path(self.certificate).read_text()))
        for other in (der, self.key):
            self.assertIn("holds no certificate in PEM", self.refused(other, other, self.key))
            self.assertIn("holds no certificate in PEM", self.refused(other, self.certificate, self.key, other))
        for other in (der, self.certificate):
            self.assertIn("holds no private key in PEM", self.refused(other, self.certificate, other))
        self.assertIn("holds no private key", self.refused(self.certificate, self.certificate))

    def test_damaged(self) -> None:
        """PEM with nonsense in it."""
        certificate = self.write("bad.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.refused(certificate, certificate, self.key)
        self.refused(certificate, self.certificate, self.key, certificate)
        key = self.write("badkey.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.refused(key, self.certificate, key)

    def test_other_key(self) -> None:
        """The key of another certificate."""
        other = self.folder / "other"
        other.mkdir()
        write_certificate(other)
        key = str(other / "key.pem")
        self.assertEqual(
            self.refused(key, self.certificate, key), f"{key} is not the private key of {self.certificate}"
        )

    def test_encrypted(self) -> None:
        """Nobody is asked for a password."""
        from cryptography.hazmat.primitives import serialization

        loaded = serialization.load_pem_private_key(Path(self.key).read_bytes(), None)
        for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
            secret = serialization.BestAvailableEncryption(b"secret")
            key = self.write("secret.pem", loaded.private_bytes(serialization.Encoding.PEM, form, secret))
            self.assertIn("is encrypted", self.refused(key, self.certificate, key))

    def test_together(self) -> None:
        """Key and certificate in one file, in any order; lines may end as on Windows."""
        key, certificate = Path(self.key).read_bytes(), Path(self.certificate).read_bytes()
        for content in (key + certificate, certificate + key, (key + certificate).replace(b"\n", b"\r\n")):
            server_context(self.write("both.pem", content))

    def test_policy(self) -> None:
        """TLS 1.2 and newer, AEAD with ephemeral keys, no renegotiation, no compression."""
        context = server_context(self.certificate, self.key)
        self.assertEqual(context.minimum_version, TLS12)
        wanted = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self.assertEqual(context.options & wanted, wanted)
        for cipher in context.get_ciphers():
            self.assertTrue(cipher["aead"], cipher)
            self.assertTrue(cipher["name"].startswith(("TLS_", "ECDHE-")), cipher)


class Controls(ControlCase):
    def test_weak_ciphers(self) -> None:
        """What has no forward secrecy is offered."""
        right = Profile.context

        def wrong(profile: Profile) -> ssl.SSLContext:
            context = right(profile)
            context.set_ciphers("ALL")
            return context

        with self.noticed_by(Handshakes, "test_no_shared_cipher"):
            self.patch(Profile, "context", wrong)
            self.patch(sys.modules[__name__], "common_context", common_context.__wrapped__)

    def test_silent_handshake(self) -> None:
        """P9: a handshake may take for ever."""
        with self.noticed_by(Handshakes, "test_silent"):
            self.patch(opening, "HANDSHAKE", 1e9)

    def test_replies_lost_at_close_notify(self) -> None:
        """P4: who has said close_notify is owed nothing."""
        with self.noticed_by(Ends, "test_close_notify"):
            self.patch(Session, "readConnectionLost", lambda protocol: protocol.abort())
