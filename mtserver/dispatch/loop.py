"""Handlers that run in the event loop, as far as they go without waiting, right when their message arrives."""

from __future__ import annotations

from typing import Any, cast

from mtserver.dispatch.base import SLICE, Dispatch, answer_batch
from mtserver.dispatch.conversation import FREE, IN_TURN, SMALL, SUSPENDED, Conversation


class InLoop(Dispatch):
    """``async def received(self, message)``."""

    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        # This is `_run`, without the calls: it is what happens most.
        own = context = conversation.context
        if context is None:
            context, self._spare = self._spare, None
            if context is None:
                context = self._pristine.copy()
        conversation.busy = IN_TURN
        if conversation.replies is None:
            conversation.replies = []
        running = (self._runner or self._find_runner()).start(self._converse(conversation, frames), context)
        if running is None:
            if own is None:
                if context == self._pristine:
                    self._spare = context
                else:
                    conversation.context = context
            conversation.busy = FREE
            conversation.rested()
        else:
            # Messages may come between its last look for one and the end of its task: look again.
            self._suspended(conversation, context, running, self.wake)

    async def _converse(self, conversation: Conversation, frames: list[bytes]) -> None:
        received, subject = self._received, conversation.subject
        decode: Any = self._decode
        plain: Any = self._plain
        append = cast("list[bytes]", conversation.replies).append
        unsent = self.unsent
        until = 0.0 if conversation.framing is None else self.seconds() + SLICE
        while True:
            pending = iter(frames)
            for frame in pending:
                try:
                    reply: Any = await received(subject, frame if decode is None else decode(frame))
                    if unsent:
                        conversation.catch_up()
                    if type(reply) is plain and len(reply) <= SMALL and conversation.busy == IN_TURN:
                        append(reply)
                    else:
                        conversation.answer(reply)
                except BaseException as error:  # whatever it is, it costs this client and nobody else
                    if conversation.cancelled:
                        raise
                    conversation.failed(error)
                    if isinstance(error, GeneratorExit):
                        # If it is not the handler's odd idea but the end of this coroutine, it must not wait again.
                        conversation.give_back(list(pending))
                        conversation.yielded()
                        return
                if conversation.holds:
                    conversation.give_back(list(pending))
                    return
            if conversation.framing is None:
                return  # the usual case
            frames = conversation.take()
            if not frames:
                return
            conversation.relieve()
            if self.seconds() >= until:
                conversation.give_back(frames)
                conversation.yielded()
                return


class InLoopBatches(InLoop):
    """``async def received_batch(self, messages)``."""

    async def _converse(self, conversation: Conversation, frames: list[bytes]) -> None:
        received, subject = self._received, conversation.subject
        until = 0.0 if conversation.framing is None else self.seconds() + SLICE
        while frames:
            messages, refusals = self._decoded(frames)
            try:
                outcome = await received(subject, messages) if messages else None
            except BaseException as error:
                if conversation.cancelled:
                    raise
                outcome = error
            if self.unsent:
                conversation.catch_up()
            replies = conversation.replies
            if (
                type(outcome) is list
                and len(outcome) == len(refusals)  # not of the frames, which are the handler's list by now
                and replies is not None
                and set(map(type, outcome)) == self._only_plain
            ):
                replies.extend(outcome)
            else:
                answer_batch(conversation, refusals, outcome)
            if conversation.framing is None:
                return
            if conversation.busy == SUSPENDED:
                conversation.flush()
            else:
                conversation.relieve()
            if self.seconds() >= until or isinstance(outcome, GeneratorExit):
                conversation.yielded()
                return
            frames = conversation.take()
