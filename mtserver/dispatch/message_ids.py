"""
Messages that carry ids (``--message-ids``), so that one that is sent again is stored once.

A message begins with ``@<id> ``, which its handler does not see. Ids are known by who sends them: the client's
identity, and the name that it gives itself by ``RESUME <name>``; one of them there has to be. ``RESUME`` is answered
with the last message that was stored under that name, so that a client knows where to go on: ``OK <seq> @<id>``, or
``OK 0``. Laws:

* What was stored before is answered ``OK <seq> dup`` (by whoever stores it, or for a handler whose transaction it
  would have been), with the number that it got then.
* A message that was refused, for whatever reason, is not overtaken: those behind it are refused as well, until it comes
  again or the client says ``RESUME``. So the last id that is stored says that all before it are.
* Nor is a ``RESUME`` that was refused: what comes behind it belongs to its name.

A handler is wrapped into one that knows of all this; it runs in the loop, and calls one that may block in a thread.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mtserver.acks import Ack
from mtserver.client import Client
from mtserver.codecs import Codec
from mtserver.concurrency.offload import to_thread
from mtserver.dispatch.plan import Hook, Plan, batch_replies
from mtserver.errors import BadMessage, Duplicate, MtserverError, Unavailable
from mtserver.journal.client_journal import ClientJournal

_MESSAGE = re.compile(rb"@([!-~]{1,64}) ")
_RESUME = re.compile(rb"RESUME ([!-~]{1,64})")
_WORD = "an id, like a name, is 1 to 64 printable characters"


class Numbered(NamedTuple):
    """A message with an id."""

    id: str
    #: Frame as it came, without the id.
    frame: bytes
    #: Decoded message, or None where `error` says why it is none.
    message: Any
    error: MtserverError | None = None


class Resume(NamedTuple):
    """A client says what it calls itself."""

    #: Empty: that is no name.
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
        """Frames with ids before them, as a :class:`mtserver.codecs.Codec`."""
        found = _MESSAGE.match(frame)
        if found is not None:
            number, rest = found[1].decode(), frame[found.end() :]
            try:
                return Numbered(number, rest, self._decode(rest))
            except MtserverError as error:  # which is not to be overtaken either, so its id has to be known
                return Numbered(number, rest, None, error)
        if frame.startswith(b"RESUME "):
            found = _RESUME.fullmatch(frame)
            return Resume("" if found is None else found[1].decode())
        raise BadMessage(f"a message begins with @<id> and a space; {_WORD}")


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
    async def in_thread(handler: Any, message: Any) -> Any:
        return await to_thread(received, handler, message)

    return in_thread


def _one(received: Hook) -> Hook:
    async def numbered(handler: Any, incoming: Numbered | Resume) -> Any:
        client = _client_of(handler)
        if isinstance(incoming, Resume):
            return await _resume(client, incoming.name)
        _admit(client, incoming)
        own = client.own_journal
        try:
            return await _handled(own, [incoming], lambda: received(handler, incoming.message))
        except Duplicate as duplicate:
            return Ack(duplicate.sequence, True, own.level)
        except BaseException:
            own.behind = incoming.id
            raise

    return numbered


def _batches(received: Hook) -> Hook:
    async def numbered(handler: Any, incoming: list[Any]) -> list[Any]:
        client = _client_of(handler)
        replies: list[Any] = [None] * len(incoming)
        places: list[int] = []

        async def handle() -> None:
            """Handle the messages that are admitted and not handled yet."""
            admitted = [incoming[place] for place in places]
            try:
                messages = [each.message for each in admitted]
                outcome = await _handled(client.own_journal, admitted, lambda: received(handler, messages))
                answers: list[Any] = batch_replies(outcome, len(admitted))
            except Exception as error:  # it is what each of them is answered
                answers = [error] * len(admitted)
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer
                if isinstance(answer, BaseException):
                    client.own_journal.behind = client.own_journal.behind or incoming[place].id
            places.clear()

        for place, each in enumerate(incoming):
            try:
                if places and (isinstance(each, Resume) or each.error is not None):
                    await handle()  # what came before it
                if isinstance(each, Resume):
                    replies[place] = await _resume(client, each.name)
                else:
                    _admit(client, each)
                    places.append(place)
            except MtserverError as error:
                replies[place] = error
        if places:
            await handle()
        return replies

    return numbered


async def _handled(own: ClientJournal, messages: list[Numbered], handle: Callable[[], Awaitable[Any]]) -> Any:
    """Await the handler's answer; whatever it stores meanwhile is stored under these messages' ids."""
    own.ids = [each.id for each in messages]
    own.frames = [each.frame for each in messages]
    try:
        return await handle()
    finally:
        own.ids = own.frames = ()


def _admit(client: Client, message: Numbered) -> None:
    """Raise what a message is answered that may not be handled now."""
    own = client.own_journal
    own.is_numbered = True
    if own.is_resuming:
        # Under the name that it had before, it would be somebody else's.
        raise Unavailable("RESUME was refused: say it again first")
    if not (own.name or client.identity):
        raise BadMessage("say RESUME <name> first: ids are known by it")
    if own.behind and message.id != own.behind:
        raise Unavailable(f"@{own.behind} was refused: send it again first, or say RESUME")
    own.behind = ""
    if message.error is not None:
        own.behind = message.id
        raise message.error


async def _resume(client: Client, name: str) -> Ack:
    own = client.own_journal
    own.is_numbered = own.is_resuming = True
    if not name:
        raise BadMessage(f"RESUME <name>: {_WORD}")
    journal = client.app.journal
    last = await journal.last(client.identity or "", name)
    own.is_resuming = False
    own.name = name
    own.behind = ""
    return Ack(0) if last is None else Ack(last.sequence, level=journal.level, id=last.id)


def _client_of(handler: Any) -> Client:
    """Return the client of a handler: of an instance its client, of a function the handler itself."""
    client: Client = handler if isinstance(handler, Client) else handler.client
    return client
