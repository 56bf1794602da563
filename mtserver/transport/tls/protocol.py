"""
TLS on any stream transport: OpenSSL by way of Python's own ``ssl``, its bytes carried by hand.

Twisted carries them through pyOpenSSL, whose calls are dear. uvloop's own TLS took longer per message than this, and
aiofastnet's no less, as seen side by side with 50 clients. It is half-closeable, as TCP is: a client that has sent
its last message says so with close_notify, and may well wait for the replies (``socat`` does). TLS 1.3 has it so (RFC
8446, 6.1); TLS 1.2 peers read on or do not care.

Deadlines are for the protocol inside: for it the handshake ends with ``handshakeCompleted``.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.transport.tls import handshake_failures

#: The most bytes in one TLS record (RFC 8446, 5.1), so the most that one read can give.
RECORD = 16384
#: Bytes of answers to key updates, and to wishes to renegotiate, that one connection may cost in its life: 40,000 key
#: updates. A peer may ask for them at any speed and read none of the answers, and no other limit counts those.
ANSWERS = 1024 * 1024


class TLSFactory(Factory):
    """
    Puts TLS under the protocols of another factory.

    :param context: a server's; another one may be put in its place at any time, for handshakes to come.
    """

    noisy = False

    def __init__(self, context: ssl.SSLContext, wrapped: IProtocolFactory) -> None:
        self.context = context
        self.wrapped = wrapped

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    def logPrefix(self) -> str:
        return f"{type(self.wrapped).__name__} (TLS)"

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        inside = self.wrapped.buildProtocol(addr)  # type: ignore[arg-type] # no address is Twisted's way for some
        return None if inside is None else TLSProtocol(self, inside)


@implementer(INegotiated, IHalfCloseableProtocol)
class TLSProtocol(Protocol):
    """The protocol of a transport, and the transport of the protocol `inside`."""

    __slots__ = (
        "_answered",
        "_begun",
        "_certificate",
        "_early",
        "_heard",
        "_incoming",
        "_inside",
        "_is_up",
        "_outgoing",
        "_reason",
        "_tls",
        "_told_end",
        "connected",
        "disconnecting",
        "factory",
        "transport",
    )

    #: Application protocols are not negotiated.
    negotiatedProtocol = None  # noqa: N815 - Twisted's names, here and below

    def __init__(self, factory: TLSFactory, inside: IProtocol) -> None:
        self.factory = factory
        self.transport: Any = None
        self.connected = 0
        self.disconnecting = False
        self._inside: Any = inside
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = factory.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_up = False
        #: The client's. OpenSSL does not give it any more once there has been garbage.
        self._certificate: bytes | None = None
        #: OpenSSL has the beginning of a record, and more may come out of it than goes in the next time.
        self._begun = True
        #: The client has sent something.
        self._heard = False
        #: What was written before the handshake was done.
        self._early: list[bytes] = []
        #: Bytes that OpenSSL has answered by itself.
        self._answered = 0
        #: The peer has sent its close_notify, or the end of its stream.
        self._told_end = False
        #: Why the connection ends, if it is for a reason of TLS.
        self._reason: Failure | None = None

    # The transport calls these.

    def connectionMade(self) -> None:
        self._inside.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        if self._told_end:
            return  # RFC 8446, 6.1: what comes after close_notify is ignored; OpenSSL would let it pile up
        incoming, outgoing, tls = self._incoming, self._outgoing, self._tls
        incoming.write(data)
        shaking = not self._is_up
        if shaking and not self._shake_hands():
            return
        plain = b""
        chunks: list[bytes] | None = None
        problem: ssl.SSLError | None = None
        try:
            while pending := incoming.pending:
                # Not more than there can be: `read` allocates what it is asked for.
                chunk = tls.read(pending if pending < RECORD and not self._begun else RECORD)
                if not chunk:
                    self._told_end = True
                    break
                if not plain:
                    plain = chunk  # the usual case: one record, one read
                elif chunks is None:
                    chunks = [plain, chunk]
                else:
                    chunks.append(chunk)
            self._begun = False
        except ssl.SSLWantReadError:
            self._begun = True
        except ssl.SSLZeroReturnError:
            self._told_end = True  # and so have we told ours
        except ssl.SSLError as error:
            problem = error  # but what came before it is good
        if outgoing.pending:
            self._answer(outgoing.read())
        if shaking:
            self._tell_handshake()
        if plain and self.connected:
            self._inside.dataReceived(plain if chunks is None else b"".join(chunks))
        if not self.connected:
            return  # it was all too much
        if problem is not None:
            self._fail(problem)
        elif self._told_end:
            self._ended()

    def readConnectionLost(self) -> None:
        """The end of the stream; without a close_notify too, for whole messages are whole all the same."""
        if not self._is_up:
            self.transport.loseConnection()  # the log will say that it was the client
        elif not self._told_end:
            self._told_end = True
            self._ended()
        elif self.disconnecting:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._inside):
            self._inside.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inside, self._inside = self._inside, None
        self.connected = 0
        if not self._is_up:
            self._tell_failure()
        if inside is not None:
            inside.connectionLost(self._reason or reason)

    def _shake_hands(self) -> bool:
        """Take the handshake as far as the bytes reach; whether it is done."""
        self._heard = True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._carry()
            return False
        except ssl.SSLError as error:
            self._fail(error)
            return False
        if self._tls.session_reused and self._has_expired():
            self._fail(ssl.SSLError(ssl.SSL_ERROR_SSL, "the certificate of the session has expired"))
            return False
        self._is_up = True
        self._certificate = self._tls.getpeercert(binary_form=True)
        early, self._early = self._early, []
        if early:
            self._tls.write(b"".join(early))
        self._carry()
        return True

    def _has_expired(self) -> bool:
        """Of a client that resumes a session OpenSSL does not look at the certificate again."""
        certificate = self._tls.getpeercert()
        if not certificate:
            return False  # it was not asked for one
        return ssl.cert_time_to_seconds(str(certificate["notAfter"])) < time.time()

    def _tell_failure(self) -> None:
        """The handshake will not be done any more."""
        if self._reason is not None:
            reason = handshake_failures.reason_of(self._reason.value)
        elif self.disconnecting:
            reason = "not done by the time that the server ended it"
        elif self._heard:
            reason = "the client left in its middle"
        else:
            return  # it has not begun: somebody looked whether the port is open
        handshake_failures.tell(self.transport.getPeer(), reason)

    def _tell_handshake(self) -> None:
        """It is done, and what came with its end is read: OpenSSL could not say goodbye in front of that."""
        if self.disconnecting:
            self._say_goodbye()
        elif IHandshakeListener.providedBy(self._inside):
            self._inside.handshakeCompleted()

    def _answer(self, data: bytes) -> None:
        """Send what OpenSSL has to say to the peer by itself."""
        self._answered += len(data)
        if self._answered > ANSWERS:
            self._reason = Failure(ssl.SSLError("too many key updates"))
            self.abortConnection()
        else:
            self.transport.write(data)

    def _ended(self) -> None:
        """The peer has said its last."""
        if self.disconnecting:
            self.transport.loseConnection()
        elif self._inside is not None:
            if IHalfCloseableProtocol.providedBy(self._inside):
                self._inside.readConnectionLost()
            else:
                self.loseConnection()

    def _fail(self, error: ssl.SSLError) -> None:
        """The peer is told by an alert, which OpenSSL has written already."""
        # Without its traceback: that holds frames, which hold us, until a collector comes by.
        self._reason = Failure(error.with_traceback(None))
        self._carry()
        self.disconnecting = True
        self.transport.loseConnection()

    def _carry(self) -> None:
        if self._outgoing.pending:
            self.transport.write(self._outgoing.read())

    def _say_goodbye(self) -> None:
        # It wants the peer's close_notify, which is not here yet, or finds data in front of it.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._carry()
        if self._told_end:
            self.transport.loseConnection()

    # The protocol inside calls these: ITransport, IConsumer and what comes with TLS.

    def write(self, data: bytes) -> None:
        if not self._is_up:
            if not self.disconnecting:
                self._early.append(data)
            return
        if self.disconnecting or not self.connected:
            return
        try:
            if len(data) <= RECORD:
                self._tls.write(data)
                secret = self._outgoing.read()
            else:
                secret = self._encrypted_by_record(memoryview(data))
        except ssl.SSLError as error:
            self._fail(error)
            return
        self.transport.write(secret)

    def _encrypted_by_record(self, data: memoryview) -> bytes:
        # OpenSSL's buffer keeps the size that it once had, for as long as the connection lives.
        records = []
        for start in range(0, len(data), RECORD):
            self._tls.write(data[start : start + RECORD])
            records.append(self._outgoing.read())
        return b"".join(records)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send what was written, and close_notify; close when the peer's has come."""
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        if self._is_up:
            self._say_goodbye()
        elif not self._early:
            self.abortConnection()

    def loseWriteConnection(self) -> None:
        """Send what was written, close_notify and the end of our stream; read on."""
        if not self._is_up:
            self.loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = True
            self._say_goodbye()
            if not self._told_end:
                self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.connected = 0
        self.transport.abortConnection()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def getTcpNoDelay(self) -> bool:
        return bool(self.transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def getHandle(self) -> ssl.SSLObject:
        return self._tls

    def getPeerCertificate(self) -> bytes | None:
        """The client's certificate, as DER; None without one."""
        return self._certificate

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()
