"""Request to a JetStream server: its answer in JSON, or an error that says whether anything was done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import NoRespondersError

#: Seconds for an answer. A cluster that has lost the leader of a stream needs some of them to elect another.
TIMEOUT = 5.0

# Error codes of server/errors.json of nats-server.
NO_MESSAGE = 10037
NO_STREAM = 10059
#: Error when the servers are storing another message with the same id.
IN_PROCESS = 10158
#: Error when a message of an atomic publish was stored before, or is in it twice.
DUPLICATE_IN_BATCH = 10201


class Refused(Exception):
    """
    Error when a request was refused: nothing was done.

    :param number: the server's error code; 0 if no server answered.
    """

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number

    @property
    def is_about_message(self) -> bool:
        """Whether the message is at fault, and others may be stored; otherwise the stream itself is away."""
        return self.number not in (0, NO_STREAM)


async def request(
    connection: Client,
    subject: str,
    payload: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = TIMEOUT,
) -> Any:
    """
    Send a request and return the decoded answer.

    :raises Refused: if it was not done.
    :raises TimeoutError: if nobody knows whether it was done, or will be.
    """
    if not connection.is_connected:
        # nats-py would send it later, when nobody waits for the answer any more.
        raise Refused("not connected")
    async with asyncio.timeout(seconds):
        try:
            message = await connection.request(
                subject, payload, timeout=2 * seconds, headers=dict(headers or {}) or None
            )
        except NoRespondersError:
            raise Refused("nobody answers: there is no such stream, no leader of it, or no JetStream") from None
    answer = json.loads(message.data)
    if "error" in answer:
        error = answer["error"]
        raise Refused(str(error.get("description", "an error")), error.get("err_code", 0))
    return answer
