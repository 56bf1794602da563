"""Typed messages: JSON that fits the types, or the client is told what does not; a union is told apart by its tag.

cd examples && twistd -n mtserver --port 9999 --app station:station

    {"type": "Reading", "celsius": 21.5}
    {"type": "Ask", "last": 10}
"""

from statistics import fmean
from typing import Annotated

from msgspec import Meta, Struct

from mtserver import Client


class Reading(Struct, tag=True):
    celsius: Annotated[float, Meta(ge=-273.15)]


class Ask(Struct, tag=True):
    last: Annotated[int, Meta(ge=1, le=100)] = 100


class Mean(Struct):
    celsius: float | None
    readings: int


async def station(client: Client, message: Reading | Ask) -> Mean | None:
    readings: list[float] = client.state.__dict__.setdefault("readings", [])
    if isinstance(message, Reading):
        client.state.readings = [*readings[-99:], message.celsius]
        return None
    asked = readings[-message.last :]
    return Mean(fmean(asked) if asked else None, len(asked))
