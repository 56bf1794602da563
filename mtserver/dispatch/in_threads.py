"""Handlers that may block: each batch of messages goes to a thread, and its replies come back together."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from mtserver.dispatch.conversation import AWAY, FREE, Conversation
from mtserver.dispatch.dispatch import SLICE, Dispatch, answer_batch
from mtserver.dispatch.measuring import Measurement
from mtserver.errors import MtserverError
from mtserver.telemetry.events import MESSAGES_HANDLED

#: Seconds between two deliveries of replies from a thread that is still at it.
DELIVERY = 0.001


class _Failed:
    """The exception that a handler raised in a thread, in the place of its reply."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Turn:
    """The turn that a thread is at."""

    __slots__ = ("context", "conversation", "is_last", "outcomes")

    def __init__(self, conversation: Conversation, context: contextvars.Context) -> None:
        self.conversation = conversation
        self.context = context
        #: Outcomes not yet delivered.
        self.outcomes: list[Any] = []
        #: The handler has closed the connection: the messages that are left go unread.
        self.is_last = False


class InThreads(Dispatch):
    """``def received(self, message)`` and ``def received_batch(self, messages)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Jobs for threads, gathered while the loop goes round once.
        self._ready: list[Callable[[], None]] = []
        #: Turn of each thread that is at one.
        self._local = threading.local()

    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        conversation.busy = AWAY
        work = self._work_batch if self.plan.batches else self._work
        if not self._ready:
            self.loop_calls.post(self._send_off)
        measured = Measurement(conversation, self.seconds()) if MESSAGES_HANDLED.subscribers else None
        self._ready.append(partial(work, conversation, self._lend(conversation), frames, measured))

    def _send_off(self) -> None:
        ready, self._ready = self._ready, []
        self.threads.submit(*ready)

    def before_sending(self) -> None:
        turn: _Turn | None = getattr(self._local, "turn", None)
        if turn is not None and turn.outcomes:
            # The replies to earlier messages of its batch come first.
            self.loop_calls.post(self._deliver, turn.conversation, turn.context, turn.outcomes.copy(), None)
            turn.outcomes.clear()

    def before_closing(self, conversation: Conversation) -> None:
        turn: _Turn | None = getattr(self._local, "turn", None)
        if turn is not None and turn.conversation is conversation:
            turn.is_last = True

    # Methods that run in a thread of the pool.

    def _work(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        frames: list[bytes],
        measured: Measurement | None,
    ) -> None:
        if measured is not None:
            measured.begin(self.seconds())
        turn = self._local.turn = _Turn(conversation, context)
        left = context.run(self._work_through, turn, frames)
        self._local.turn = None
        # Only now: the loop may send the next thread into the same context at once.
        self.loop_calls.post(self._deliver, conversation, context, turn.outcomes, left, measured)

    def _work_through(self, turn: _Turn, frames: list[bytes]) -> list[bytes]:
        """Handle these messages; returns those that are left."""
        conversation, outcomes = turn.conversation, turn.outcomes
        received, handler, decode = self._received, conversation.handler, self._decode
        monotonic, append = time.monotonic, outcomes.append
        began = monotonic()
        due = began + DELIVERY
        pending: Iterator[bytes] = iter(frames)
        for frame in pending:
            try:
                append(received(handler, frame if decode is None else decode(frame)))
            except BaseException as error:
                append(_Failed(error))
            if conversation.pauses or turn.is_last:
                break
            now = monotonic()
            if now >= due:
                if now - began > SLICE and self.threads.waiting():
                    break
                self.loop_calls.post(self._deliver, conversation, turn.context, outcomes.copy(), None)
                outcomes.clear()
                due = now + DELIVERY
        return list(pending)

    def _work_batch(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        frames: list[bytes],
        measured: Measurement | None,
    ) -> None:
        if measured is not None:
            measured.begin(self.seconds())
        messages, errors = self._decoded(frames)
        try:
            outcome = context.run(self._received, conversation.handler, messages) if messages else None
        except BaseException as error:
            outcome = error
        self.loop_calls.post(self._deliver_batch, conversation, context, errors, outcome, measured)

    # Methods that run in the loop again.

    def _deliver(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        outcomes: list[Any],
        left: list[bytes] | None,
        measured: Measurement | None = None,
    ) -> None:
        if self.unsent:
            self.fan_out.catch_up(conversation)
        if set(map(type, outcomes)) == self._only_plain:  # of any size: they are flushed in a moment
            replies = conversation.replies
            if replies is None:
                conversation.replies = outcomes
            else:
                replies.extend(outcomes)
        else:
            for outcome in outcomes:
                if type(outcome) is _Failed:
                    conversation.failed(outcome.error)
                else:
                    conversation.answer(outcome)
        if left is None:
            conversation.flush()
            return
        if left:
            conversation.give_back(left)
        self._go_on(conversation, context, measured)

    def _deliver_batch(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        errors: Sequence[MtserverError | None],
        outcome: Any,
        measured: Measurement | None,
    ) -> None:
        answer_batch(conversation, errors, outcome)
        self._go_on(conversation, context, measured)

    def _go_on(self, conversation: Conversation, context: contextvars.Context, measured: Measurement | None) -> None:
        if measured is not None:
            measured.end(conversation, self.seconds())
        self._take_back(conversation, context)
        conversation.busy = FREE
        conversation.flush()
        self.wake(conversation)
