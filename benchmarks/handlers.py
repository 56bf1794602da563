"""The handlers that are measured, as a user would write them: ``--app benchmarks.handlers:<name>``."""

from __future__ import annotations

import asyncio
import time

from mtserver import Client, Handler

SLEEP = 0.05


async def echo(client: Client, message: bytes) -> bytes:
    return message


def echo_in_thread(client: Client, message: bytes) -> bytes:
    return message


class EchoBatch(Handler):
    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return messages


async def sleep(client: Client, message: bytes) -> bytes:
    await asyncio.sleep(SLEEP)
    return message


def sleep_in_thread(client: Client, message: bytes) -> bytes:
    time.sleep(SLEEP)
    return message


async def broadcast(client: Client, message: bytes) -> None:
    client.app.broadcast(message, exclude=client)


class Room(Handler):
    async def connected(self) -> None:
        await self.client.join("room")

    async def received(self, message: bytes) -> None:
        await self.client.app.group("room").send(message, exclude=self.client)
