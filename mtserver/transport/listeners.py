"""
Listening: the endpoints of ``--port`` strings, and the descriptors for their clients.

``--port`` is a number or any Twisted server endpoint string. Endpoints are Twisted's own; they are given a
:class:`ListeningReactor`, whose ports have a deeper backlog and TLS that can be half-closed.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint, _parse, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from mtserver.errors import ConfigurationError
from mtserver.settings import Settings
from mtserver.transport.proxy_protocol import ProxiedFactory
from mtserver.transport.tls import Files, Served, TLSFactory, TLSPolicy

#: Connections that the kernel may hold before they are accepted. Twisted's 50 overflow in a reconnect storm; the kernel
#: lowers this to its own limit (net.core.somaxconn).
BACKLOG = 4096
#: Most connections accepted in one go. Twisted accepts 100 and more, and closes none meanwhile: with too many clients,
#: those would use up the reserve below.
ACCEPTS = 8
#: Descriptors kept for other things than clients: journal, log, certificates, the handlers' own files and sockets.
RESERVE = 64

_log = Logger("mtserver")


class ListeningReactor:
    """The reactor that endpoints are given: the server's own, but for how it listens."""

    def __init__(self, reactor: Any, policy: TLSPolicy) -> None:
        self._reactor = reactor
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> Any:
        return _limit_accepts(self._reactor.listenTCP(port, factory, _backlog(backlog), interface))

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = BACKLOG,
        interface: str = "",
    ) -> Any:
        """Listen for an endpoint that needs pyOpenSSL; the usual ``ssl:`` strings do not come here."""
        from mtserver.transport.tls.pyopenssl import tls_factory  # pyOpenSSL takes 60 ms to import

        secured = tls_factory(contextFactory, factory, self._reactor, self._policy)
        listening = _limit_accepts(self._reactor.listenTCP(port, secured, _backlog(backlog), interface))
        listening._type = "TLS"
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = BACKLOG,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> Any:
        return _limit_accepts(self._reactor.listenUNIX(address, factory, _backlog(backlog), mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return _limit_accepts(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory))


def _backlog(backlog: int) -> int:
    # The endpoints' default is 50, so 50 is nobody's wish.
    return BACKLOG if backlog == 50 else backlog


def _limit_accepts(listening: Any) -> Any:
    """Make a Twisted port accept at most :data:`ACCEPTS` connections in one go, however many wait."""
    accept = getattr(listening, "doRead", None)
    if accept is not None:  # a test's fake port has none

        def accept_some() -> None:
            listening.numberAccepts = min(listening.numberAccepts, ACCEPTS)
            accept()

        listening.doRead = accept_some
    return listening


def endpoints(reactor: Any, settings: Settings) -> tuple[TLSPolicy, list[IStreamServerEndpoint]]:
    """
    Make the endpoints that the settings name, and the TLS policy for them.

    Raises :class:`~mtserver.errors.ConfigurationError`.
    """
    policy = TLSPolicy(
        settings.tls_profile,
        client_ca=settings.tls_client_ca or None,
        crl=settings.tls_crl or None,
        sni=settings.tls_sni or None,
        self_signed=settings.tls_self_signed,
    )
    made = [endpoint(reactor, listen.port, policy) for listen in settings.listens]
    if not policy.is_used:
        # An operator who asks clients for certificates means it; on a port without TLS no client would be asked.
        for name in ("tls_client_ca", "tls_sni", "tls_self_signed"):
            if getattr(settings, name):
                raise ConfigurationError(f"--{name.replace('_', '-')}: there is no --port ssl:... to use it")
    return policy, made


def endpoint(reactor: Any, description: str, policy: TLSPolicy) -> IStreamServerEndpoint:
    """Make the endpoint that a ``--port`` names; :class:`~mtserver.errors.ConfigurationError` quotes the string."""
    if description.isdecimal():
        if int(description) > 65535:
            raise ConfigurationError(f"--port {description}: a port number is at most 65535")
        description = f"tcp:{description}"
    listening = ListeningReactor(reactor, policy)
    try:
        made = _tls_endpoint(listening, description, policy)
        if made is None:
            made = serverFromString(listening, description)
            if description.startswith("haproxy:"):
                made._wrapperFactory = partial(ProxiedFactory, reactor=reactor)  # noqa: SLF001 - Twisted has no other way
            _check_policy(made, policy)
    except Exception as error:  # endpoint parsers, of plugins too, raise whatever they like
        text = " ".join(str(error).split()) or type(error).__name__
        if description.startswith("systemd:") and isinstance(error, LookupError):
            text = "systemd has handed over no such socket"
        raise ConfigurationError(f"--port {description}: {text}") from None
    return made


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """An endpoint whose protocols are under TLS."""

    def __init__(self, endpoint: IStreamServerEndpoint, served: Served) -> None:
        self._endpoint = endpoint
        self._served = served

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        factory = TLSFactory(self._served.context, protocolFactory)
        self._served.used_by(factory)
        if self._served.is_self_signed:
            _log.warn(
                "the certificate is self-signed, made on the spot, and no client can know that it is ours, but by its "
                "SHA-256 fingerprint: {fingerprint}",
                fingerprint=self._served.certificate.fingerprint,
            )
        return self._endpoint.listen(factory)


def _tls_endpoint(reactor: Any, description: str, policy: TLSPolicy) -> IStreamServerEndpoint | None:
    """Make the endpoint of an ``ssl:`` string; None for others, and those that need pyOpenSSL (``dhParameters``)."""
    if description.startswith("tls:"):
        raise ConfigurationError("tls: keeps no --tls-profile; ssl: with --tls-sni FOLDER serves such a folder")
    if not description.startswith("ssl:"):
        return None
    (_, *words), options = _parse(description)
    words += [options.pop("port")] if "port" in options else []
    if len(words) != 1 or not options.keys() <= {"privateKey", "certKey", "extraCertChain", "interface", "backlog"}:
        return None
    interface, backlog = options.get("interface", ""), int(options.get("backlog", BACKLOG))
    listens = TCP4ServerEndpoint(reactor, int(words[0]), backlog, interface)
    if policy.self_signed and not options.keys() & {"privateKey", "certKey", "extraCertChain"}:
        served = policy.serve_self_signed()
    else:
        private_key = options.get("privateKey", "server.pem")
        files = Files(options.get("certKey", private_key), private_key, options.get("extraCertChain"))
        served = policy.serve(files)
    return TLSEndpoint(listens, served)


def _check_policy(endpoint: Any, policy: TLSPolicy) -> None:
    """Refuse an endpoint that pyOpenSSL would serve, if the policy could not be kept."""
    while hasattr(endpoint, "_wrappedEndpoint"):  # haproxy:
        endpoint = endpoint._wrappedEndpoint  # noqa: SLF001 - Twisted has no other way to ask
    if isinstance(endpoint, SSL4ServerEndpoint):
        from mtserver.transport.tls.pyopenssl import check  # pyOpenSSL takes 60 ms to import

        check(endpoint._sslContextFactory, policy)  # noqa: SLF001 - Twisted has no other way to ask


def room_for(clients: int, ports: int = 1) -> int:
    """
    Count the clients, at most `clients`, for which the descriptor limit has room, with :data:`RESERVE` to spare.

    The soft limit is raised as far as is needed and allowed. Each port beyond the first may be in the middle of
    accepting :data:`ACCEPTS` more, with as many not quite closed. The count is at least 1, so that a server with next
    to no descriptors still tells a client why it refuses.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return clients
    reserve = RESERVE + 2 * ACCEPTS * (ports - 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 16  # noqa: PTH112, PTH208 - a count, not paths
    needed = clients + taken + reserve
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return clients
    return max(1, min(clients, soft - taken - reserve))
