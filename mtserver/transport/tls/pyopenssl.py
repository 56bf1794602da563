"""
TLS as Twisted's ``ssl:`` endpoints make it, under mtserver's policy and with half-close, which they lack.

Endpoints that need pyOpenSSL come here (``sslmethod``, ``dhParameters``, ``haproxy:ssl:``). Twisted has read their
files and does not say where they are, so such a port keeps its certificate until the server is started again. Nor does
it ask clients for theirs, or choose one by name; where that is wanted, such a port is refused.

A client that has sent its last message says so with close_notify, and may well wait for the replies (``socat`` does).
Stock Twisted answers with its own close_notify at once, and replies not yet made, or waiting in its buffer for the
next iteration, are lost. Here the protocol is told ``readConnectionLost``, as over plain TCP, and closes when it has
answered. TLS 1.3 has it so (RFC 8446, 6.1: each direction is closed by itself); TLS 1.2 peers read on or do not care.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol, IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver.errors import ConfigurationError
from mtserver.transport.tls import handshake_failures
from mtserver.transport.tls.policy import TLSPolicy
from mtserver.transport.tls.profiles import CIPHERS


class _Connection(SSL.Connection):
    """An OpenSSL connection that reports the client's close_notify to the protocol, once."""

    def __init__(self, context: SSL.Context, transport: TLSMemoryBIOProtocol) -> None:
        super().__init__(context, None)
        self._transport: TLSMemoryBIOProtocol | None = transport

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        try:
            return super().recv(bufsiz, flags)
        except SSL.ZeroReturnError:
            transport, self._transport = self._transport, None
            protocol = getattr(transport, "wrappedProtocol", None)
            if not IHalfCloseableProtocol.providedBy(protocol):
                raise
            protocol.readConnectionLost()
            raise SSL.WantReadError from None


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return _Connection(self._context, tlsProtocol)


# Not derived from Twisted's buffering default: mtserver writes once per batch already, and a buffer adds an iteration.
class _Protocol(TLSMemoryBIOProtocol):
    """Twisted's TLS protocol, with a record of each handshake that failed."""

    transport: Any

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._handshakeDone and (self._reason is not None or self.disconnecting):
            words = "not done by the time that the server ended it"
            if self._reason is not None:
                words = _words_of(self._reason.value)
            handshake_failures.record(self.transport.getPeer(), words)
        super().connectionLost(reason)


def _words_of(error: BaseException) -> str:
    """Find the words in an OpenSSL error: ``no shared cipher`` in ``[('SSL routines', '', 'no shared cipher')]``."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1])
    return "the client left in its middle"


def check(context_factory: Any, policy: TLSPolicy) -> None:
    """Raise :class:`~mtserver.errors.ConfigurationError` where the policy cannot be kept."""
    if policy.asks_for_certificates:
        raise ConfigurationError(
            "--tls-client-ca needs a plain ssl: string, without sslmethod, dhParameters or haproxy:"
        )
    if policy.has_names:
        raise ConfigurationError("--tls-sni needs a plain ssl: string, without sslmethod, dhParameters or haproxy:")
    _context(context_factory, policy)


def tls_factory(context_factory: Any, factory: IProtocolFactory, clock: Any, policy: TLSPolicy) -> TLSMemoryBIOFactory:
    """
    Put TLS under a factory.

    :param context_factory: an argument of ``listenSSL``, for its key, certificate and method. The policy says the rest.
    """
    check(context_factory, policy)
    wrapped = TLSMemoryBIOFactory(_Creator(_context(context_factory, policy)), False, factory, clock)
    wrapped.protocol = _Protocol
    return wrapped


def _context(options: Any, policy: TLSPolicy) -> SSL.Context:
    if not isinstance(options, CertificateOptions):
        raise ConfigurationError(f"{type(options).__name__} keeps a TLS policy of its own, and not --tls-profile")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(policy.profile.minimum)
    if options.method not in (SSL.TLS_METHOD, SSL.SSLv23_METHOD):
        if options.method != SSL.TLSv1_2_METHOD or policy.profile.minimum > SSL.TLS1_2_VERSION:
            raise ConfigurationError("this sslmethod is older than --tls-profile allows")
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tmp_ecdh(ec.SECP256R1())  # the profiles' group
    if options.certificate is not None and options.privateKey is not None:
        context.use_certificate(options.certificate.to_cryptography())
        key: Any = options.privateKey.to_cryptography_key()
        context.use_privatekey(key)
        for certificate in options.extraCertChain:
            context.add_extra_chain_cert(certificate.to_cryptography())
        context.check_privatekey()
    context.set_cipher_list(CIPHERS.encode())  # the last step: pyOpenSSL lets nothing be changed after it
    return context
