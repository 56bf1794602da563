"""One question to a JetStream server and its answer: JSON, or an error that says whether anything has been done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import NoRespondersError

#: Seconds that an answer may take. A cluster that loses the leader of a stream needs some to agree on another.
PATIENCE = 5.0

# Codes of errors that have a meaning here; see server/errors.json of nats-server.
NO_MESSAGE = 10037
NO_STREAM = 10059
#: The id is that of a message which the servers are about to store.
IN_PROCESS = 10158
#: One of those in a go was stored before, or is in it twice.
DUPLICATE_IN_BATCH = 10201


class Refused(Exception):
    """
    The server has said no: nothing was done.

    :param number: the server's own for this error; 0: nobody was there to answer.
    """

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number

    @property
    def is_of_messages(self) -> bool:
        """It is about what was sent, so that others' may be stored; otherwise the stream itself is away."""
        return self.number not in (0, NO_STREAM)


async def ask(
    connection: Client,
    subject: str,
    payload: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    patience: float = PATIENCE,
) -> Any:
    """
    The answer, decoded.

    :raises Refused: it was not done.
    :raises TimeoutError: nobody knows whether it was done, or will be.
    """
    if not connection.is_connected:
        # nats-py would keep it for later, when nobody waits for it any more.
        raise Refused("not connected")
    async with asyncio.timeout(patience):
        try:
            message = await connection.request(
                subject, payload, timeout=2 * patience, headers=dict(headers or {}) or None
            )
        except NoRespondersError:
            raise Refused("nobody answers: there is no such stream, no leader of it, or no JetStream") from None
    answer = json.loads(message.data)
    if "error" in answer:
        error = answer["error"]
        raise Refused(str(error.get("description", "an error")), error.get("err_code", 0))
    return answer
