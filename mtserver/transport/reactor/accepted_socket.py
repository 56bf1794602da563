"""An accepted TCP socket as Twisted shows it: the addresses of both ends, its options, its descriptor."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

#: SO_LINGER on, for 0 seconds: closing sends RST.
_RESET = struct.pack("ii", 1, 0)


class AcceptedSocket:
    """
    The part of a connection that asks its socket alone (of ``ITCPTransport`` and ``ISystemHandle``).

    :param sock: the accepted socket.
    :param client: the address that ``accept`` gave with it.
    """

    __slots__ = ("_client", "socket")

    def __init__(self, sock: socket.socket, client: tuple[Any, ...]) -> None:
        self.socket = sock
        self._client = pack_address(client)
        sock.setblocking(False)

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _twisted_address(unpack_address(self._client))

    def getHost(self) -> IPv4Address | IPv6Address:
        return _twisted_address(self.socket.getsockname())

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def getHandle(self) -> Any:
        return self.socket

    def fileno(self) -> int:
        return self.socket.fileno()

    def _reset_on_close(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def pack_address(name: tuple[Any, ...]) -> Any:
    """Shrink a client's address until somebody asks for it: IPv4 to one number of 32 bytes, where a tuple takes 180."""
    if len(name) != 2:
        return name
    host, port = name
    return int.from_bytes(socket.inet_aton(host), "big") << 16 | port


def unpack_address(packed: Any) -> tuple[Any, ...]:
    """Undo :func:`pack_address`."""
    if isinstance(packed, tuple):
        return packed
    return socket.inet_ntoa((packed >> 16).to_bytes(4, "big")), packed & 0xFFFF


def _twisted_address(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    # getnameinfo adds the scope of a link-local address.
    host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return IPv6Address("TCP", host, *name[1:])
