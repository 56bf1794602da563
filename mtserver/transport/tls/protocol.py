"""
TLS on any stream transport: OpenSSL by way of Python's own ``ssl``, which is fed and emptied through memory BIOs.

Twisted does the same through pyOpenSSL, whose calls are dear. uvloop's own TLS took longer per message than this, and
aiofastnet's no less, measured side by side with 50 clients. Connections are half-closeable, as over TCP: a client that
has sent its last message says so with close_notify, and may well wait for the replies (``socat`` does). TLS 1.3 has it
so (RFC 8446, 6.1); TLS 1.2 peers read on or do not care.

Deadlines are left to the protocol inside, which learns of the handshake's end by ``handshakeCompleted``.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.transport.tls import handshake_failures

#: Most bytes in one TLS record (RFC 8446, 5.1), and so the most that one read gives.
RECORD = 16384
#: Most bytes of answers to key updates and to requests to renegotiate in the life of a connection: 40,000 key updates.
#: A client may ask at any speed and read none of the answers, and no other limit counts those.
ANSWERS = 1024 * 1024


@implementer(INegotiated, IHalfCloseableProtocol)
class TLSProtocol(Protocol):
    """The protocol of a transport, and the transport of the protocol `inside`."""

    __slots__ = (
        "_answered",
        "_certificate",
        "_early_writes",
        "_handshake_is_done",
        "_has_received",
        "_in_record",
        "_incoming",
        "_input_has_ended",
        "_inside",
        "_outgoing",
        "_reason",
        "_tls",
        "connected",
        "disconnecting",
        "transport",
    )

    #: Application protocols are not negotiated.
    negotiatedProtocol = None  # noqa: N815 - Twisted's names, here and below

    def __init__(self, context: ssl.SSLContext, inside: IProtocol) -> None:
        self.transport: Any = None
        self.connected = 0
        self.disconnecting = False
        self._inside: Any = inside
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_is_done = False
        #: Certificate of the client, kept since OpenSSL does not give it any more once garbage has come.
        self._certificate: bytes | None = None
        #: Whether OpenSSL holds the beginning of a record, so that the next read may give more than it is fed.
        self._in_record = True
        #: Whether the client has sent anything.
        self._has_received = False
        #: Bytes written before the end of the handshake.
        self._early_writes: list[bytes] = []
        #: Count of the bytes that OpenSSL has sent of its own accord.
        self._answered = 0
        #: Whether the client has sent its close_notify, or the end of its stream.
        self._input_has_ended = False
        #: Error that ends the connection, if it is one of TLS.
        self._reason: Failure | None = None

    # The transport calls these.

    def connectionMade(self) -> None:
        self._inside.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        if self._input_has_ended:
            return  # RFC 8446, 6.1: bytes after close_notify are ignored; OpenSSL would let them pile up
        incoming, outgoing, tls = self._incoming, self._outgoing, self._tls
        incoming.write(data)
        shaking = not self._handshake_is_done
        if shaking and not self._shake_hands():
            return
        chunks: list[bytes] = []
        problem: ssl.SSLError | None = None
        try:
            while pending := incoming.pending:
                # Asked for no more than there can be, since `read` allocates what it is asked for.
                chunk = tls.read(pending if pending < RECORD and not self._in_record else RECORD)
                if not chunk:
                    self._input_has_ended = True
                    break
                chunks.append(chunk)
            self._in_record = False
        except ssl.SSLWantReadError:
            self._in_record = True
        except ssl.SSLZeroReturnError:
            self._input_has_ended = True  # after this side's own close_notify
        except ssl.SSLError as error:
            problem = error  # the records before it are good
        if outgoing.pending:
            self._answer(outgoing.read())
        if shaking:
            self._handshake_ended()
        if chunks and self.connected:
            self._inside.dataReceived(b"".join(chunks))  # usual: one record, which is not copied
        if not self.connected:
            return  # closed by the protocol inside, or for too many answers
        if problem is not None:
            self._fail(problem)
        elif self._input_has_ended:
            self._end_input()

    def readConnectionLost(self) -> None:
        """End the input with the stream, even without close_notify: complete messages are complete all the same."""
        if not self._handshake_is_done:
            self.transport.loseConnection()  # the audit log will say that the client left
        elif not self._input_has_ended:
            self._input_has_ended = True
            self._end_input()
        elif self.disconnecting:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._inside):
            self._inside.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inside, self._inside = self._inside, None
        self.connected = 0
        if not self._handshake_is_done:
            self._record_failure()
        if inside is not None:
            inside.connectionLost(self._reason or reason)

    def _shake_hands(self) -> bool:
        """Take the handshake as far as the bytes reach; return whether it is done."""
        self._has_received = True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush_outgoing()
            return False
        except ssl.SSLError as error:
            self._fail(error)
            return False
        if self._tls.session_reused and self._has_expired():
            self._fail(ssl.SSLError(ssl.SSL_ERROR_SSL, "the certificate of the session has expired"))
            return False
        self._handshake_is_done = True
        self._certificate = self._tls.getpeercert(binary_form=True)
        early, self._early_writes = self._early_writes, []
        if early:
            self._tls.write(b"".join(early))
        self._flush_outgoing()
        return True

    def _has_expired(self) -> bool:
        """Whether the certificate of a resumed session has expired, at which OpenSSL does not look again."""
        certificate = self._tls.getpeercert()
        if not certificate:
            return False  # none was asked for
        return ssl.cert_time_to_seconds(str(certificate["notAfter"])) < time.time()

    def _record_failure(self) -> None:
        """Record, for the audit log, why the handshake was not done."""
        if self._reason is not None:
            reason = handshake_failures.reason_of(self._reason.value)
        elif self.disconnecting:
            reason = "not done by the time that the server ended it"
        elif self._has_received:
            reason = "the client left in its middle"
        else:
            return  # not begun: a probe whether the port is open
        handshake_failures.record(self.transport.getPeer(), reason)

    def _handshake_ended(self) -> None:
        """Go on once the bytes behind the handshake are read: OpenSSL could not send close_notify in front of them."""
        if self.disconnecting:
            self._send_close_notify()
        elif IHandshakeListener.providedBy(self._inside):
            self._inside.handshakeCompleted()

    def _answer(self, data: bytes) -> None:
        """Send what OpenSSL answers of its own accord (to key updates, say), up to a limit."""
        self._answered += len(data)
        if self._answered > ANSWERS:
            self._reason = Failure(ssl.SSLError("too many key updates"))
            self.abortConnection()
        else:
            self.transport.write(data)

    def _end_input(self) -> None:
        """Pass on the end of the client's input, or close if this side has ended too."""
        if self.disconnecting:
            self.transport.loseConnection()
        elif self._inside is not None:
            if IHalfCloseableProtocol.providedBy(self._inside):
                self._inside.readConnectionLost()
            else:
                self.loseConnection()

    def _fail(self, error: ssl.SSLError) -> None:
        """Close for an error of TLS. OpenSSL has written the alert that tells the client already."""
        # Stripped of its traceback, whose frames would keep this object until a garbage collection.
        self._reason = Failure(error.with_traceback(None))
        self._flush_outgoing()
        self.disconnecting = True
        self.transport.loseConnection()

    def _flush_outgoing(self) -> None:
        if self._outgoing.pending:
            self.transport.write(self._outgoing.read())

    def _send_close_notify(self) -> None:
        # An error: the client's close_notify has not come yet, or there is data in front of it.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush_outgoing()
        if self._input_has_ended:
            self.transport.loseConnection()

    # The protocol inside calls these: ITransport, IConsumer, and the methods that TLS adds.

    def write(self, data: bytes) -> None:
        if not self._handshake_is_done:
            if not self.disconnecting:
                self._early_writes.append(data)
            return
        if self.disconnecting or not self.connected:
            return
        try:
            if len(data) <= RECORD:
                self._tls.write(data)
                encrypted = self._outgoing.read()
            else:
                encrypted = self._encrypt_by_record(memoryview(data))
        except ssl.SSLError as error:
            self._fail(error)
            return
        self.transport.write(encrypted)

    def _encrypt_by_record(self, data: memoryview) -> bytes:
        # Read after each record, since OpenSSL's buffer keeps its largest size for the life of the connection.
        records = []
        for start in range(0, len(data), RECORD):
            self._tls.write(data[start : start + RECORD])
            records.append(self._outgoing.read())
        return b"".join(records)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send what was written, and close_notify; close once the client's has come."""
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        if self._handshake_is_done:
            self._send_close_notify()
        elif not self._early_writes:
            self.abortConnection()

    def loseWriteConnection(self) -> None:
        """Send what was written, close_notify and the end of the stream; read on."""
        if not self._handshake_is_done:
            self.loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = True
            self._send_close_notify()
            if not self._input_has_ended:
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
