"""
The Twisted transport of one client, and the verbs that its session asks of it.

With :mod:`mtserver.server.rejection` and :mod:`mtserver.transport` the only module that touches a transport: what TLS,
half-closing and producers mean is known here, and the session says what it wants. :class:`TransportSide` is a base
class of the session, and not an object beside it, because ten thousand clients would pay for a second object each.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, INegotiated

from mtserver.transport.addresses import format_address, host_of, is_local

#: Seconds that a client has to close its side, once all has been sent.
LINGER = 2.0
#: Seconds that a TLS client has to answer close_notify.
GOODBYE = 5.0


class TransportSide:
    """The transport of one session; None before there is one."""

    __slots__ = ("transport",)

    transport: Any

    @property
    def peer(self) -> str:
        """The client's address, for logs and people; also when the connection has ended."""
        # Asked for twice in most lives, so 60 bytes of text for each client are not kept.
        return format_address(self.transport.getPeer())

    @property
    def host(self) -> str:
        """The client's address without the port; an empty text where it has none."""
        return host_of(self.transport.getPeer())

    @property
    def is_tls(self) -> bool:
        """Whether the transport is TLS's."""
        return INegotiated.providedBy(self.transport)

    @property
    def is_private(self) -> bool:
        """Whether nobody but the client reads what is sent: TLS, or a connection that does not leave this machine."""
        return self.is_tls or is_local(self.transport.getPeer())

    @property
    def linger(self) -> float:
        """Seconds that the client has to close its side once all has been sent."""
        return GOODBYE if self.is_tls else LINGER

    def peer_certificate(self) -> bytes | None:
        """The certificate that the client has shown in its handshake, as DER; None where it was asked for none."""
        certificate: bytes | None = self.transport.getPeerCertificate()
        return certificate

    def connect(self, transport: Any) -> None:
        """Have this transport from now on, and hear from it when the client does not read as fast as it is sent to."""
        self.transport = transport
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send bytes, now or later; the transport keeps what the client is not ready to read."""
        self.transport.write(data)

    def pause_reading(self) -> None:
        """Read no further."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read on."""
        self.transport.resumeProducing()

    def end_output(self, *, input_ended: bool) -> float | None:
        """
        Send the end of our side behind what was written, and close if the client has closed its side.

        :returns: seconds that the client has to answer; None where it has to read first, which has a limit of its own.
        """
        transport = self.transport
        # A transport with a producer waits for it to end before it does.
        transport.unregisterProducer()
        if input_ended:
            transport.loseConnection()
        elif self.is_tls and not IHalfCloseableProtocol.providedBy(transport):
            # pyOpenSSL's: close_notify is sent, and the peer's is waited for.
            transport.loseConnection()
            return GOODBYE
        else:
            transport.loseWriteConnection()
        return None

    def abort(self) -> None:
        """End the connection at once, whatever is still to be sent."""
        self.transport.abortConnection()
