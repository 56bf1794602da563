"""Handlers that run in the event loop, as far as they go without waiting, right when their message arrives."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from sys import getrefcount
from typing import Any

from mtserver.concurrency.coroutines import READY, Running, current
from mtserver.dispatch.conversation import CANCELLED, FREE, IN_TURN, SMALL, SUSPENDED, Conversation
from mtserver.dispatch.dispatch import SLICE, Dispatch, answer_batch
from mtserver.dispatch.measuring import Measurement
from mtserver.telemetry.context import enter, is_like
from mtserver.telemetry.events import MESSAGES_HANDLED

#: A conversation, and messages for its handler.
Turn = tuple[Conversation, list[bytes]]


class InLoop(Dispatch):
    """``async def received(self, message)``."""

    _take_turn: Callable[[Turn, Any], Running | None] | None = None

    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        # The same as `_run`, without its calls, since this happens most.
        own = context = conversation.context
        if context is None:
            context, self._spare = self._spare, None
            if context is None:
                context = self._pristine.copy()
        conversation.busy = IN_TURN
        if conversation.replies is None:
            conversation.replies = []
        measured = Measurement(conversation, self.seconds()) if MESSAGES_HANDLED.subscribers else None
        running = (self._take_turn or self._begin_turns())((conversation, frames), context)
        if running is None:
            if own is None:
                if len(context) == 1 or is_like(context, self._pristine):  # the first is the usual case
                    self._spare = context
                else:
                    conversation.context = context
            if measured is not None:
                measured.end(conversation, self.seconds())
            conversation.busy = FREE
            conversation.idle()
        else:
            # Messages may come between its last look for one and the end of its task: look again.
            self._suspended(conversation, context, running, self.wake, measured)

    def _begin_turns(self) -> Callable[[Turn, Any], Running | None]:
        self._take_turn = (self._runner or self._find_runner()).repeated(self._turns)
        return self._take_turn

    @types.coroutine
    def _turns(self, only: Turn | None, task: Any) -> Generator[Any, Any, None]:
        """Take one turn after another; see :data:`mtserver.concurrency.coroutines.Turns`."""
        # Names of this function are found faster than those of a module, and some are looked up for each message.
        received, decode, unsent = self._received, self._decode, self.unsent
        native, small, in_turn, for_client = types.CoroutineType, SMALL, IN_TURN, enter
        plain: Any = self._plain
        conversation: Any
        while True:
            conversation, frames = only or (yield READY)
            if only:
                task = current()
            for_client(conversation.client.id)
            ours = getrefcount(task)
            handler = conversation.handler
            replies: Any = conversation.replies
            until = 0.0 if conversation.inbox is None else self.seconds() + SLICE
            while frames:
                pending = iter(frames)
                for frame in pending:
                    try:
                        waiting = received(handler, frame if decode is None else decode(frame))
                        reply = yield from (waiting if type(waiting) is native else _awaited(waiting))
                        if unsent:
                            self.fan_out.catch_up(conversation)
                        if type(reply) is plain and len(reply) <= small and conversation.busy == in_turn:
                            replies.append(reply)
                        else:
                            conversation.answer(reply)
                    except BaseException as error:  # whatever it is, it costs this client and nobody else
                        if conversation.pauses & CANCELLED:
                            raise
                        conversation.failed(error)
                        if isinstance(error, GeneratorExit):
                            # If it is not the handler's odd idea but our own end, we must not wait again.
                            conversation.give_back(list(pending))
                            conversation.slice_over()
                            return
                    if conversation.pauses or conversation.busy != in_turn or getrefcount(task) > ours:
                        conversation.give_back(list(pending))
                        break
                frames = []
                if conversation.inbox is not None:
                    frames = self._more(conversation, until, parted=getrefcount(task) > ours)
            if only:
                return
            # No client's objects are kept until the next turn.
            conversation = handler = replies = pending = frame = waiting = reply = None

    def _more(self, conversation: Conversation, until: float, *, parted: bool) -> list[bytes]:
        """
        The next messages of the same turn.

        Those behind one that has waited, or whose task is somebody's now (`parted`), are another turn's, in a task of
        their own: a cancel that comes late must not meet them.
        """
        if conversation.busy != IN_TURN:
            return []
        if parted:
            conversation.slice_over()
            return []
        frames = conversation.take()
        if frames:
            conversation.flush_if_large()
            if self.seconds() >= until:
                conversation.give_back(frames)
                conversation.slice_over()
                return []
        return frames


class InLoopBatches(InLoop):
    """``async def received_batch(self, messages)``."""

    @types.coroutine
    def _turns(self, only: Turn | None, task: Any) -> Generator[Any, Any, None]:
        received, decode, unsent = self._received, self._decode, self.unsent
        plain, only_plain = self._plain, self._only_plain
        conversation: Any
        while True:
            conversation, frames = only or (yield READY)
            if only:
                task = current()
            enter(conversation.client.id)
            ours, until = 0, 0.0
            if conversation.inbox is not None:  # else this is all there is
                ours, until = getrefcount(task), self.seconds() + SLICE
            outcome: Any = None
            while frames:
                count = len(frames)  # the list is the handler's by then
                messages, errors = (frames, None) if decode is None else self._decoded(frames)
                outcome = None
                try:
                    if messages:
                        waiting = received(conversation.handler, messages)
                        outcome = yield from (waiting if type(waiting) is types.CoroutineType else _awaited(waiting))
                except BaseException as error:
                    if conversation.pauses & CANCELLED:
                        raise
                    outcome = error
                if unsent:
                    self.fan_out.catch_up(conversation)
                if (
                    type(outcome) is list
                    and len(outcome) == count
                    and conversation.replies is not None
                    and (type(outcome[0]) is plain if count == 1 else set(map(type, outcome)) == only_plain)
                ):
                    conversation.replies.extend(outcome)
                else:
                    answer_batch(conversation, errors or [None] * count, outcome)
                if conversation.inbox is None or conversation.busy == SUSPENDED:
                    break  # its other messages are another turn's, as in `InLoop`
                conversation.flush_if_large()
                if self.seconds() >= until or getrefcount(task) > ours or isinstance(outcome, GeneratorExit):
                    conversation.slice_over()
                    break
                frames = conversation.take()
            if only or isinstance(outcome, GeneratorExit):
                return
            conversation = frames = messages = errors = waiting = outcome = None


async def _awaited(waiting: Awaitable[Any]) -> Any:
    """Await a coroutine that is not Python's own (Cython's, say)."""
    return await waiting
