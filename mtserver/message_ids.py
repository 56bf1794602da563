"""
Messages that carry ids (``--message-ids``), so that one that is sent again is stored once.

A message begins with ``@<id> ``, which its handler does not see. Ids are known by who sends them: the client's
identity, and the name that it gives itself by ``RESUME <name>``; one of them there has to be. ``RESUME`` is answered
with the last message that was stored under that name, so that a client knows where to go on: ``OK <seq> @<id>``, or
``OK 0``. Laws:

* What was stored before is answered ``OK <seq> dup`` (by whoever stores it, or for a handler whose transaction it
  would have been), with the number that it got then.
* A message that could not be stored is not overtaken: those behind it are refused as it was, until it comes again or
  the client says ``RESUME``. So the last id that is stored says that all before it are.
* Nor is a ``RESUME`` that could not be answered: what comes behind it belongs to its name, and is refused until then.

A handler is wrapped into one that knows of all this; it runs in the loop, and calls one that may block in a thread.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mtserver.acks import Ack
from mtserver.author import Author
from mtserver.client import Client
from mtserver.errors import BadMessage, Duplicate, Refusal, Unavailable
from mtserver.handlers import Hook, Plan, batch_replies
from mtserver.messages import Codec
from mtserver.offload import to_thread

_MESSAGE = re.compile(rb"@([!-~]{1,64}) ")
_RESUME = re.compile(rb"RESUME ([!-~]{1,64})")


class Numbered(NamedTuple):
    """A message with an id."""

    id: str
    #: As it came, without the id.
    frame: bytes
    message: Any


class Resume(NamedTuple):
    """A client says what it calls itself."""

    name: str


class NumberedCodec:
    """
    Messages with ids in front of those of another codec.

    :param codec: of the handler.
    """

    def __init__(self, codec: Codec) -> None:
        self._decode = codec.decode
        self.content_type = codec.content_type
        self.needs_any_byte = codec.needs_any_byte
        self.sends_as_is = codec.sends_as_is
        self.encode = codec.encode
        self.encode_reply = codec.encode_reply
        self.refuse = codec.refuse

    def decode(self, frame: bytes) -> Numbered | Resume:
        """See :class:`mtserver.messages.Codec`."""
        found = _MESSAGE.match(frame)
        if found is not None:
            rest = frame[found.end() :]
            return Numbered(found[1].decode(), rest, self._decode(rest))
        found = _RESUME.fullmatch(frame)
        if found is not None:
            return Resume(found[1].decode())
        raise BadMessage("a message begins with @<id> and a space; an id, like a name, is 1 to 64 printable characters")


def with_ids(plan: Plan) -> Plan:
    """The same handler, of messages with ids."""
    call = _in_thread(plan.received) if plan.blocks else plan.received
    return dataclasses.replace(
        plan,
        codec=NumberedCodec(plan.codec),
        received=_batches(call) if plan.batches else _one(call),
        blocks=False,
    )


def _in_thread(received: Hook) -> Hook:
    async def in_thread(subject: Any, message: Any) -> Any:
        return await to_thread(received, subject, message)

    return in_thread


def _one(received: Hook) -> Hook:
    async def numbered(subject: Any, incoming: Numbered | Resume) -> Any:
        client = _client_of(subject)
        if type(incoming) is Resume:
            return await _resume(client, incoming.name)
        admitted: Any = incoming
        author = _admit(client, admitted.id)
        try:
            return await _handled(author, [admitted], lambda: received(subject, admitted.message))
        except Duplicate as duplicate:
            return Ack(duplicate.sequence, True, author.level)
        except Unavailable:
            author.behind = admitted.id
            raise

    return numbered


def _batches(received: Hook) -> Hook:
    async def numbered(subject: Any, incoming: list[Any]) -> list[Any]:
        client = _client_of(subject)
        replies: list[Any] = [None] * len(incoming)
        places: list[int] = []

        async def handle() -> None:
            """Those that are admitted, and not handled yet."""
            admitted = [incoming[place] for place in places]
            try:
                messages = [each.message for each in admitted]
                outcome = await _handled(client.author, admitted, lambda: received(subject, messages))
                answers: list[Any] = batch_replies(outcome, len(admitted))
            except Exception as error:  # it is what each of them is answered
                answers = [error] * len(admitted)
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer
                if isinstance(answer, Unavailable):
                    client.author.behind = client.author.behind or incoming[place].id
            places.clear()

        for place, each in enumerate(incoming):
            try:
                if type(each) is Resume:
                    if places:
                        await handle()
                    replies[place] = await _resume(client, each.name)
                else:
                    _admit(client, each.id)
                    places.append(place)
            except Refusal as refusal:
                replies[place] = refusal
        if places:
            await handle()
        return replies

    return numbered


async def _handled(author: Author, messages: list[Numbered], handle: Callable[[], Awaitable[Any]]) -> Any:
    """What the handler answers, while whatever it stores is stored under these messages' ids."""
    author.ids = [each.id for each in messages]
    author.frames = [each.frame for each in messages]
    try:
        return await handle()
    finally:
        author.ids = author.frames = ()


def _admit(client: Client, number: str) -> Author:
    """See that a message with this id may be handled now."""
    author = client.author
    author.is_numbered = True
    if author.is_resuming:
        # Under the name that it had before, it would be somebody else's.
        raise Unavailable("RESUME could not be answered: say it again first")
    if not (author.name or client.identity):
        raise BadMessage("say RESUME <name> first: ids are known by it")
    if author.behind:
        if number != author.behind:
            raise Unavailable(f"@{author.behind} was not stored: send it again first, or say RESUME")
        author.behind = ""
    return author


async def _resume(client: Client, name: str) -> Ack:
    author = client.author
    journal = client.app.journal
    author.is_numbered = author.is_resuming = True
    last = await journal.last(client.identity or "", name)
    author.is_resuming = False
    author.name = name
    author.behind = ""
    return Ack(0) if last is None else Ack(last.sequence, level=journal.level, id=last.id)


def _client_of(subject: Any) -> Client:
    """Of a handler's instance, or of a function, whose subject it is."""
    client: Client = subject if isinstance(subject, Client) else subject.client
    return client
