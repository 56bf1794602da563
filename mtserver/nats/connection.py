"""
One connection to one server: nats-py's client, held to what was asked of it.

nats-py can reconnect by itself, but then it sends what it has kept, however old; gives up for good where the server
says that credentials have expired; waits for a server that is stopped (SIGSTOP) until the kernel does not; and talks
in clear text to a server that asks for no TLS, whatever the URL says. So it is given one server, once.

Its subscriptions have a task and a queue each, 8 kB for a group of one, and its pings overtake what it holds. Ours are
an entry in a table, with one bounded queue for all; and a ping of ours says that all that was said before it has
arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nats import errors
from nats.aio.client import PING_PROTO, Client, RawCredentials
from nats.protocol import command

if TYPE_CHECKING:
    from mtserver.nats.link import Heard

#: Seconds for a server to answer.
CONNECT_TIMEOUT = 2
#: Bytes that nats-py may hold before whoever publishes waits. As much again may be on its way through the socket.
PENDING = 4 * 1024 * 1024

#: Bytes of messages that may wait to be heard; what comes beyond that is dropped, and counted.
UNHEARD = 8 * 1024 * 1024
#: What one costs beyond its own bytes.
COST = 200
#: Messages heard in one go, before others have their turn.
TURN = 100


class Connection(Client):
    """
    Connected to one server, or not any more.

    :param url: the server's.
    :param context: for TLS; None: in clear text.
    :param lost: called once, when there is no connection any more, if there was one.
    :param failed: called with what goes wrong meanwhile.
    :param missed: called with the number of messages that could not wait to be heard.
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
        self._heard: dict[int, Heard] = {}
        self._unheard: deque[tuple[int, str, str, bytes]] = deque()
        self._unheard_size = 0

    async def begin(self, name: str, credentials: bytes) -> None:
        """Connect; whatever goes wrong is raised."""
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
                ping_interval=3600,  # the link asks itself
                no_echo=True,
                pending_size=PENDING,
                flush_timeout=CONNECT_TIMEOUT,  # or who waits for room when the connection is lost waits for ever
                error_cb=self._note,
                closed_cb=self._note_closed,
                **more,
            ),
            2 * CONNECT_TIMEOUT,
        )

    async def _note(self, error: Exception) -> None:
        self._err = None  # or a right that is missing would be why it is lost, some day
        self._failed(error)

    async def _note_closed(self) -> None:
        for answered in self._pongs:
            answered.cancel()  # nobody answers any more
        self._lost()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """See nats-py: the first thing that the server says; TLS begins after it, or our credentials follow."""
        if initial_connection and self._context is not None:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise errors.Error("nats: the server does not speak TLS")
            info["tls_required"] = True
        elif initial_connection and info.get("tls_required"):
            raise errors.Error("nats: the server speaks TLS only; say tls:// in place of nats://")
        # Servers that it names are not those that the operator has named.
        await super()._process_info({**info, "connect_urls": None}, initial_connection)

    def listen(self, subject: str, heard: Heard) -> int:
        """Have `heard` called with what is published there; the number by which :meth:`ignore` knows it."""
        self._sid += 1
        self._heard[self._sid] = heard
        self._say(command.sub_cmd(subject, "", self._sid))
        return self._sid

    def ignore(self, number: int) -> None:
        """The opposite, from this moment on."""
        if self._heard.pop(number, None) is not None:
            self._say(command.unsub_cmd(number, 0))

    async def round_trip(self, seconds: float) -> None:
        """Until the server has had all that was said so far; whatever goes wrong is raised."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pongs.append(answered)
        self._say(PING_PROTO)
        await asyncio.wait([answered], timeout=seconds)  # it is not cancelled: its answer may still come
        if answered.cancelled():
            raise errors.ConnectionClosedError
        if not answered.done():
            raise TimeoutError

    def _say(self, words: bytes) -> None:
        """Send this after all else, without waiting for anything."""
        self._pending.append(words)
        self._pending_data_size += len(words)
        if self._flush_queue is not None and not self._flush_queue.full():  # then it is going to be flushed anyway
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """See nats-py. What is ours waits for its turn: the server's answers to pings are not to wait behind it."""
        if sid not in self._heard:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif self._unheard_size > UNHEARD:
            self._missed(1)
        else:
            if not self._unheard:
                asyncio.get_running_loop().call_soon(self._hear)
            self._unheard.append((sid, subject.decode(), reply.decode(), data))
            self._unheard_size += len(data) + COST

    def _hear(self) -> None:
        for _ in range(min(len(self._unheard), TURN)):
            number, subject, reply, data = self._unheard.popleft()
            self._unheard_size -= len(data) + COST
            heard = self._heard.get(number)
            if heard is not None:
                try:
                    heard(subject, reply, data)
                except Exception as error:  # or the others would not be heard any more
                    self._failed(error)
        if self._unheard:
            asyncio.get_running_loop().call_soon(self._hear)

    @property
    def info(self) -> dict[str, Any]:
        """What the server said of itself."""
        found: dict[str, Any] = self._server_info
        return found

    async def abandon(self) -> None:
        """End it, also if the server takes nothing any more, and nothing is to be sent any more."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        self._pending, self._pending_data_size = [], 0
        if self._unheard:  # it would be heard among what the next connection brings
            self._missed(len(self._unheard))
            self._unheard.clear()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.close(), CONNECT_TIMEOUT)
