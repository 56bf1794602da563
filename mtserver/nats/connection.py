"""
One connection to one server: nats-py's client, kept from reconnecting by itself.

A nats-py client that reconnects sends what it has kept, however old; gives up for good where the server says that
credentials have expired; waits for a server that is stopped (SIGSTOP) until the kernel does not; and talks in clear
text to a server that asks for no TLS, whatever the URL says. So it is given one server, once.

Subscriptions of nats-py have a task and a queue each, 8 kB for a group of one, and its pings overtake the bytes that it
holds. Here a subscription is an entry in a table, with one bounded queue for all, and the answer to a ping says that
all that was sent before it has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from nats import errors
from nats.aio.client import PING_PROTO, Client, RawCredentials
from nats.protocol import command

from mtserver.nats.subscription import MessageCallback

#: Seconds for a server to answer.
CONNECT_TIMEOUT = 2
#: Bytes that nats-py may hold before a publish waits. As much again may be on its way through the socket.
PENDING = 4 * 1024 * 1024

#: Most bytes of messages that wait for their callbacks; messages beyond that are dropped and counted.
RECEIVED_SIZE = 8 * 1024 * 1024
#: Bytes that a waiting message costs beyond its own.
COST = 200
#: Callbacks called in one go, before the loop turns.
TURN = 100


class Connection(Client):
    """
    A client of one server, for the life of one connection.

    :param url: the server's URL.
    :param context: the context for TLS; None: in clear text.
    :param lost: called once, when the connection ends, if there was one.
    :param failed: called with each error meanwhile.
    :param missed: called with the number of messages dropped, since they came faster than they were handled.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None,
        lost: Callable[[], Any],
        failed: Callable[[Exception], Any],
        missed: Callable[[int], Any],
    ) -> None:
        super().__init__()
        self.url = url
        self._context = context
        self._lost = lost
        self._failed = failed
        self._missed = missed
        self._callbacks: dict[int, MessageCallback] = {}
        self._received: deque[tuple[int, str, str, bytes]] = deque()
        self._received_size = 0

    async def connect_once(self, name: str, credentials: bytes) -> None:
        """Connect; each failure is raised."""
        more: dict[str, Any] = {"tls": self._context} if self._context is not None else {}
        if credentials:
            more["user_credentials"] = RawCredentials(credentials.decode())
        await asyncio.wait_for(
            self.connect(
                [self.url],
                name=name,
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=3600,  # the link pings itself
                no_echo=True,
                pending_size=PENDING,
                flush_timeout=CONNECT_TIMEOUT,  # without it, a publish that waits when the connection ends never ends
                error_cb=self._on_error,
                closed_cb=self._on_closed,
                **more,
            ),
            2 * CONNECT_TIMEOUT,
        )

    async def _on_error(self, error: Exception) -> None:
        self._err = None  # else a missing right, say, would be taken for the reason of a later loss
        self._failed(error)

    async def _on_closed(self) -> None:
        for pong in self._pongs:
            pong.cancel()
        self._lost()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Check the server's INFO, as overridden in nats-py: TLS or the credentials come right after the first."""
        if initial_connection and self._context is not None:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise errors.Error("nats: the server does not speak TLS")
            info["tls_required"] = True
        elif initial_connection and info.get("tls_required"):
            raise errors.Error("nats: the server speaks TLS only; say tls:// in place of nats://")
        # The server's own list of servers is dropped: only those that the operator has named are connected to.
        await super()._process_info({**info, "connect_urls": None}, initial_connection)

    def add_subscription(self, subject: str, callback: MessageCallback) -> int:
        """Call `callback` with each message on a subject; return the number for :meth:`remove_subscription`."""
        self._sid += 1
        self._callbacks[self._sid] = callback
        self._queue_command(command.sub_cmd(subject, "", self._sid))
        return self._sid

    def remove_subscription(self, number: int) -> None:
        """Call the callback no more, not for messages that have arrived already either."""
        if self._callbacks.pop(number, None) is not None:
            self._queue_command(command.unsub_cmd(number, 0))

    async def round_trip(self, seconds: float) -> None:
        """Wait until the server has received all that was sent so far; each failure is raised."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._queue_command(PING_PROTO)
        await asyncio.wait([pong], timeout=seconds)  # not cancelled, since the pong may still come
        if pong.cancelled():
            raise errors.ConnectionClosedError
        if not pong.done():
            raise TimeoutError

    def _queue_command(self, line: bytes) -> None:
        """Send a line of the protocol after all else, without a wait."""
        self._pending.append(line)
        self._pending_data_size += len(line)
        if self._flush_queue is not None and not self._flush_queue.full():  # a full queue is flushed anyway
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Queue a message for its callback, as overridden in nats-py: pongs must not wait behind callbacks."""
        if sid not in self._callbacks:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif self._received_size > RECEIVED_SIZE:
            self._missed(1)
        else:
            if not self._received:
                asyncio.get_running_loop().call_soon(self._run_callbacks)
            self._received.append((sid, subject.decode(), reply.decode(), data))
            self._received_size += len(data) + COST

    def _run_callbacks(self) -> None:
        for _ in range(min(len(self._received), TURN)):
            number, subject, reply, data = self._received.popleft()
            self._received_size -= len(data) + COST
            callback = self._callbacks.get(number)
            if callback is not None:
                try:
                    callback(subject, reply, data)
                except Exception as error:  # the other callbacks go on
                    self._failed(error)
        if self._received:
            asyncio.get_running_loop().call_soon(self._run_callbacks)

    @property
    def info(self) -> dict[str, Any]:
        """Return what the server said of itself."""
        found: dict[str, Any] = self._server_info
        return found

    async def abort(self) -> None:
        """End the connection without sending what is left, so that it ends even if the server reads no more."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        self._pending, self._pending_data_size = [], 0
        if self._received:  # late messages must not mix with those of the next connection
            self._missed(len(self._received))
            self._received.clear()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.close(), CONNECT_TIMEOUT)
