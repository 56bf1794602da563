"""The loop's side of a stream: what waits, what is under way, and what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from twisted.logger import Logger

from mtserver.acks import LEVELS
from mtserver.coroutines import Promise
from mtserver.errors import BadMessage, HandlerError, Unavailable
from mtserver.journal import Batch, Last, Record, Stored
from mtserver.journal.jetstream import reading
from mtserver.journal.jetstream.asking import PATIENCE, Refused
from mtserver.journal.jetstream.envelope import Envelope, envelopes, size
from mtserver.journal.jetstream.publishing import TOGETHER, Publisher
from mtserver.journal.jetstream.stream import UNKNOWN, Judgement, Wanted
from mtserver.journal.jetstream.watching import Watch
from mtserver.nats import Link

#: Bytes of messages that may wait before those who read them from somewhere should pause.
QUEUE_SIZE = 16 * 1024 * 1024
#: Bytes that are published before they are waited for; more only if they are one batch.
GO_SIZE = 2 * 1024 * 1024

_log = Logger("mtserver.journal")

T = TypeVar("T")


class _Entry(NamedTuple):
    """A batch that waits, or is under way."""

    envelopes: list[Envelope]
    size: int
    promise: Promise[Stored]
    #: Until when it may wait to be published.
    until: float


class JetStreamJournal:
    """
    Appends to one stream.

    :param link: to its servers; opened and closed here.
    """

    def __init__(self, link: Link, wanted: Wanted) -> None:
        self._link = link
        self._stream = wanted.options.stream
        self._watch = Watch(link, wanted, self._judged, self._lost)
        self._judgement = UNKNOWN
        self._waiting: deque[_Entry] = deque()
        #: Bytes of what waits or is under way.
        self._queued = 0
        self._going: asyncio.Task[list[Stored | Exception]] | None = None
        self._scheduled = False
        #: While the stream is there and does what it should.
        self._publisher: Publisher | None = None
        self.trouble = ""
        self._opening: asyncio.Task[None] | None = None

    @property
    def level(self) -> str:
        """See :class:`mtserver.journal.Journal`."""
        return self._judgement.level

    @property
    def is_full(self) -> bool:
        """See :class:`mtserver.journal.Journal`."""
        return self._queued > QUEUE_SIZE
