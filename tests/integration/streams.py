"""Streams as their operator has them: made, changed, read and deleted, with nats-py and not through the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from nats.aio.client import Client

from .nats import Nats
from .peer import DEADLINE

T = TypeVar("T")


class Found(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    headers: dict[str, str]
    message: bytes


def with_client(nats: Nats, use: Callable[[Client], Awaitable[T]]) -> T:
    """Return what `use` does, in a thread and a loop of its own: the tests' reactor may be an asyncio loop itself."""

    async def work() -> T:
        client = Client()
        urls = [f"nats://127.0.0.1:{port}" for port in nats.ports]
        await client.connect(urls, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0)
        try:
            return await use(client)
        finally:
            await client.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asyncio.wait_for(work(), DEADLINE)).result()


def api(nats: Nats, subject: str, **asked: Any) -> dict[str, Any]:
    """The answer of JetStream's API."""

    async def ask(client: Client) -> dict[str, Any]:
        message = await client.request(f"$JS.API.{subject}", json.dumps(asked).encode() if asked else b"", 10)
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    return with_client(nats, ask)


def done(answer: dict[str, Any]) -> dict[str, Any]:
    """The same, if it was done."""
    assert "error" not in answer, answer["error"]
    return answer


def contents(nats: Nats, stream: str) -> list[Found]:
    """All of a stream, as the leader has it."""

    async def read(client: Client) -> list[Found]:
        context = client.jetstream()
        last = (await context.stream_info(stream)).state.last_seq
        subscription = await context.subscribe("", stream=stream, ordered_consumer=True) if last else None
        found: list[Found] = []
        while subscription is not None and (not found or found[-1].sequence < last):
            message = await subscription.next_msg(DEADLINE)
            sequence = message.metadata.sequence.stream
            found.append(Found(sequence, message.subject, message.headers or {}, message.data))
        return found

    return with_client(nats, read)
