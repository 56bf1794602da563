"""
Reading a stream: pages of messages, and the last message of a source.

Pages come from whichever server is near, which may be a moment behind. So the end of the stream, and the last message
that a client is told of, come from the stream's leader.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from nats.aio.client import Client

from mtserver.errors import Unavailable
from mtserver.journal.interface import Last, Record
from mtserver.journal.jetstream.envelope import id_of, record_of, source, subject_of
from mtserver.journal.jetstream.request import NO_MESSAGE, TIMEOUT, Refused, request

#: Bytes of a page, at most: nats-py holds all of it in memory.
PAGE_SIZE = 1024 * 1024

_END = "204"
_NOTHING = "404"


async def position(connection: Client, stream: str) -> int:
    """Return the number of the last message there has been."""
    answer = await request(connection, f"$JS.API.STREAM.INFO.{stream}")
    return int(answer["state"]["last_seq"])


async def last(connection: Client, stream: str, identity: str, name: str) -> Last | None:
    """Return the last message with an id of a source."""
    message = await _message(connection, stream, {"last_by_subj": subject_of(stream, source(identity, name))})
    return None if message is None else Last(message["seq"], id_of(_headers(message)))


async def read(connection: Client, stream: str, after: int, limit: int, *, is_direct: bool) -> list[Record]:
    """Read the messages that follow a number."""
    records: list[Record] = []
    while len(records) < limit:
        following = (records[-1].sequence if records else max(after, 0)) + 1
        if is_direct:
            page, more = await _page(connection, stream, following, limit - len(records))
            records += page
            if page and more:
                continue
            if len(records) == limit:
                break
            following = records[-1].sequence + 1 if records else following
        # The leader says whether this is the end: the page's server may be a moment behind.
        message = await _message(connection, stream, {"seq": following, "next_by_subj": ">"})
        if message is None:
            break
        data = base64.b64decode(message.get("data", ""))
        records.append(record_of(message["seq"], message["time"], _headers(message), data))
    return records


async def _page(connection: Client, stream: str, following: int, limit: int) -> tuple[list[Record], bool]:
    """Read a page of the messages from a number on; return whether there are more."""
    if not connection.is_connected:
        raise Refused("not connected")
    inbox = await connection.subscribe(connection.new_inbox())
    try:
        query = {"seq": following, "batch": limit, "max_bytes": PAGE_SIZE}
        await connection.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), reply=inbox.subject)
        records: list[Record] = []
        while True:
            message = await inbox.next_msg(TIMEOUT)
            found = message.headers or {}
            status = found.get("Status")
            if status == _END:
                return records, found.get("Nats-Num-Pending") != "0"
            if status == _NOTHING:
                return records, False
            if status is not None:
                raise Unavailable(f"the journal cannot be read now: {status}")
            records.append(record_of(int(found["Nats-Sequence"]), found["Nats-Time-Stamp"], found, message.data))
    finally:
        await inbox.unsubscribe()


async def _message(connection: Client, stream: str, query: dict[str, Any]) -> Any:
    """Read one message from the leader; None if there is none."""
    try:
        answer = await request(connection, f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(query).encode())
    except Refused as refused:
        if refused.number == NO_MESSAGE:
            return None
        raise
    return answer["message"]


def _headers(message: dict[str, str]) -> dict[str, str]:
    """Parse the headers of a message in a JSON answer."""
    lines = base64.b64decode(message.get("hdrs", "")).decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, found, value in (line.partition(":") for line in lines) if found}
