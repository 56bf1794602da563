"""
How handlers run: one conversation per client, its messages one after another, different clients at the same time.

A :class:`Dispatch` is shared by all clients of a server and holds nothing of theirs; what it works on is a
:class:`Conversation`, which is also where messages come from and replies go. There is no queue in between, so a client
that is ahead of its handler fills only what its conversation is ready to hold.

* ``async def`` handlers run in the event loop, as far as they go without waiting, right when their message arrives.
* plain ``def`` handlers run in worker threads, a batch of messages per hand-off; replies come back as they are made,
  but no more than once a millisecond.

Neither keeps the loop, or a worker, for longer than :data:`SLICE` while others wait.
"""

from __future__ import annotations

import abc
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, cast

from mtserver.app import App
from mtserver.broadcasts import Broadcasts
from mtserver.client import Client
from mtserver.coroutines import Runner, Running, runner
from mtserver.errors import HandlerError, Refusal
from mtserver.framing import Framing
from mtserver.handlers import Hook, Plan, is_async, plan
from mtserver.handoff import Handoff
from mtserver.messages import BytesCodec
from mtserver.offload import Offload
from mtserver.threads import Workers

# Where the handler is; `busy`.
FREE = 0
IN_TURN = 1  # running in the loop, right now
WAITING = 2  # a coroutine that waits for something
AWAY = 3  # with a worker

#: Seconds that one client's messages may keep the loop (or a worker that others wait for) in one go.
SLICE = 0.005
#: Seconds between two deliveries of replies from a worker that is still at it.
DELIVERY = 0.001
#: Bytes of a reply that may wait for the others of its batch without being counted.
SMALL = 2048


class Conversation(abc.ABC):
    """
    One client's side of it: the state that a dispatch keeps there, and what the dispatch asks of it.

    For the loop's thread only, but for `holds` and `cancelled`.
    """

    __slots__ = (
        "answered",
        "busy",
        "cancelled",
        "client",
        "context",
        "framing",
        "holds",
        "replies",
        "running",
        "subject",
    )

    client: Client
    #: Not zero while no further message is to be handled, whatever the reason. A worker may read it.
    holds: int
    #: What has been read and not been handled; None while that is nothing.
    framing: Framing | None
    #: Messages answered so far, be it with nothing.
    answered: int
    #: The handler's instance for this client, or the client where it is a function; None before the handler has begun,
    #: and if it could not.
    subject: Any
    #: Not zero while the handler is at work, or waits for something: it is not to be given more.
    busy: int
    #: The coroutine that waits for something.
    running: Running | None
    #: Nobody waits for the handler any more. A worker may read it.
    cancelled: bool
    #: Encoded replies that wait for the others of their batch, and do not yet count as answers; None while the
    #: handler is not busy.
    replies: list[bytes] | None
    #: contextvars set by the handler are this client's: seen by its later messages, and by no other client. None
    #: while it has set none.
    context: contextvars.Context | None

    def __init__(self) -> None:
        self.holds = 0
        self.framing = None
        self.answered = 0
        self.subject = None
        self.busy = FREE
        self.running = None
        self.cancelled = False
        self.replies = None
        self.context = None

    @abc.abstractmethod
    def take(self) -> list[bytes]:
        """The next messages; an empty list if there are none or they are held back."""

    @abc.abstractmethod
    def give_back(self, frames: list[bytes]) -> None:
        """Messages taken and not handled after all, to come first next time."""

    @abc.abstractmethod
    def answer(self, reply: Any) -> None:
        """One message is answered, with None if there is nothing to send."""

    @abc.abstractmethod
    def failed(self, error: BaseException) -> None:
        """One message is not answered, for this reason: a refusal, or whatever the handler raised."""

    @abc.abstractmethod
    def broken(self, error: BaseException) -> None:
        """The handler cannot begin with this client."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Some replies have been left, and the handler is still busy."""

    @abc.abstractmethod
    def catch_up(self) -> None:
        """Something was said to everyone, and something else is about to be said here."""

    @abc.abstractmethod
    def relieve(self) -> None:
        """Many replies may have been left, and the handler is still busy."""

    @abc.abstractmethod
    def rested(self) -> None:
        """The handler is free, and `take` gave nothing."""

    @abc.abstractmethod
    def yielded(self) -> None:
        """The time slice is over: wake the dispatch again when others have had their turn."""

    @abc.abstractmethod
    def released(self) -> None:
        """The handler has been told of the end; nothing more will come."""


class Dispatch(abc.ABC):
    """
    How the handlers of one app run.

    :param app: its handler is what runs.
    :param workers: for plain ``def`` handlers.
    :param seconds: a monotonic clock.
    :param broadcasts: of the same server.
    """

    def __init__(
        self,
        app: App,
        plan: Plan,
        handoff: Handoff,
        workers: Workers,
        *,
        seconds: Callable[[], float],
        broadcasts: Broadcasts,
    ) -> None:
        self.app = app
        self.plan = plan
        self.handoff = handoff
        self.workers = workers
        self.seconds = seconds
        #: What has been said to everyone; a client catches up before its next reply.
        self.unsent = broadcasts.unsent
        #: For a plain ``def`` hook in a class whose other methods may be async.
        self.offload = Offload(handoff, workers)
        # With bytes, the usual case, there is nothing to decode, and this is the type of what needs no encoding.
        plain = type(plan.codec) is BytesCodec
        self._decode = None if plain else plan.codec.decode
        self._plain: type | None = bytes if plain else None
        self._only_plain: set[Any] = {bytes if plain else None}  # not empty: types of no reply at all are not it
        self._received: Hook = plan.received
        self._pristine = contextvars.copy_context()
        self._spare: contextvars.Context | None = None
        self._runner: Runner | None = None

    def begin(self, conversation: Conversation) -> None:
        """Make the handler and tell it of the connection; then see whether there are messages."""
        context = self._lend(conversation)
        try:
            subject = context.run(self.plan.make, conversation.client)
        except BaseException as error:  # a handler's author may raise anything
            conversation.broken(error)
            return
        finally:
            self._take_back(conversation, context)
        conversation.subject = subject
        if self.plan.connects:
            self._run(conversation, self._connect(conversation, subject.connected), self.wake, self.wake)
        else:
            self.wake(conversation)

    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        """As `wake`, with messages that have been taken already."""
        conversation.give_back(frames)
        self.wake(conversation)

    @abc.abstractmethod
    def wake(self, conversation: Conversation) -> None:
        """There may be messages. Does nothing if the handler is busy."""

    def before_sending(self) -> None:  # noqa: B027 - nothing is to be done where handlers run in the loop
        """The calling thread is about to send something that is not a reply."""

    def end(self, conversation: Conversation, reason: str) -> None:
        """Tell the handler that the connection is gone. Not while it is busy."""
        subject = conversation.subject
        # One that never began is not told of an end.
        if subject is None or not self.plan.disconnects:
            conversation.released()
        else:
            self._run(conversation, self._disconnect(conversation, subject.disconnected, reason), _released, _released)

    @staticmethod
    def cancel(conversation: Conversation) -> None:
        """Stop waiting for the handler. A coroutine is cancelled; a thread cannot be, but nobody waits for it."""
        conversation.cancelled = True
        if conversation.running is not None:
            conversation.running.cancel()

    def _run(
        self,
        conversation: Conversation,
        coroutine: Coroutine[Any, Any, None],
        at_once: Callable[[Conversation], None],
        later: Callable[[Conversation], None],
    ) -> None:
        """Run a coroutine, busy until it is done; then call `at_once`, or `later` if it had to wait."""
        conversation.busy = IN_TURN
        if conversation.replies is None:  # else the run before had to wait, and its last ones have not left yet
            conversation.replies = []
        context = self._lend(conversation)
        running = (self._runner or self._find_runner()).start(coroutine, context)
        if running is None:
            self._take_back(conversation, context)
            conversation.busy = FREE
            at_once(conversation)
        else:
            self._suspended(conversation, context, running, later)

    def _suspended(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        running: Running,
        later: Callable[[Conversation], None],
    ) -> None:
        conversation.context = context
        conversation.running = running
        conversation.busy = WAITING
        (self._runner or self._find_runner()).when_done(running, self._done, conversation, later)
        conversation.flush()

    def _find_runner(self) -> Runner:
        self._runner = runner()
        return self._runner

    def _done(
        self, error: BaseException | None, conversation: Conversation, later: Callable[[Conversation], None]
    ) -> None:
        conversation.busy = FREE
        conversation.running = None
        if conversation.context == self._pristine:
            conversation.context = None  # it was kept for the wait only
        if error is not None and not conversation.cancelled:
            conversation.broken(error)
        later(conversation)

    # Contexts. One per client costs 100 bytes; most handlers never set a context variable.

    def _lend(self, conversation: Conversation) -> contextvars.Context:
        """A context for the handler to run in: its own, if it has changed one; else one that nobody has."""
        if conversation.context is not None:
            return conversation.context
        context, self._spare = self._spare, None
        return self._pristine.copy() if context is None else context  # an empty one is false

    def _take_back(self, conversation: Conversation, context: contextvars.Context) -> None:
        """After `_lend`: it is the conversation's own if the handler has changed it."""
        if context is conversation.context:
            return  # and stays so, even if it has undone all its changes: the next client must not share it
        if context == self._pristine:
            self._spare = context
        else:
            conversation.context = context

    async def _connect(self, conversation: Conversation, hook: Hook) -> None:
        try:
            await self._call(hook)
        except BaseException as error:
            if conversation.cancelled:
                raise
            conversation.subject = None  # never connected, so never disconnected either
            conversation.broken(error)

    async def _disconnect(self, conversation: Conversation, hook: Hook, reason: str) -> None:
        try:
            await self._call(hook, reason)
        except BaseException as error:
            if conversation.cancelled:
                raise
            conversation.failed(error)

    async def _call(self, hook: Hook, *args: Any) -> None:
        if is_async(hook):
            await hook(*args)
        else:
            # A copy of the context, as asyncio.to_thread does: this one is the running coroutine's.
            context = contextvars.copy_context()
            await self.offload.in_thread(partial(context.run, hook, *args))

    def _decoded(self, frames: list[bytes]) -> tuple[list[Any], list[Refusal | None]]:
        """The messages in these frames that can be decoded, and per frame the refusal of one that cannot."""
        decode = self._decode
        if decode is None:
            return frames, [None] * len(frames)
        messages: list[Any] = []
        refusals: list[Refusal | None] = []
        for frame in frames:
            try:
                messages.append(decode(frame))
                refusals.append(None)
            except Refusal as refusal:
                refusals.append(refusal)
        return messages, refusals


def _released(conversation: Conversation) -> None:
    conversation.released()


def _answer_batch(conversation: Conversation, refusals: Sequence[Refusal | None], outcome: Any) -> None:
    """Leave the outcome of a batch: an exception for all of it, or a reply for each message that was decoded."""
    good = refusals.count(None)
    if outcome is None:
        outcome = [None] * good
    elif not isinstance(outcome, BaseException):
        if isinstance(outcome, (str, bytes)) or not isinstance(outcome, Iterable):
            outcome = HandlerError(f"received_batch returned {type(outcome).__name__}, not a list of replies")
        else:
            outcome = list(outcome)
            if len(outcome) != good:
                outcome = HandlerError(f"received_batch returned {len(outcome)} replies to {good} messages")
    replies = iter([outcome] * good if isinstance(outcome, BaseException) else outcome)
    for refusal in refusals:
        reply = next(replies) if refusal is None else refusal
        if isinstance(reply, BaseException):
            conversation.failed(reply)
        else:
            conversation.answer(reply)


class InLoop(Dispatch):
    """``async def received(self, message)``."""

    def wake(self, conversation: Conversation) -> None:
        if conversation.busy:
            return
        frames = conversation.take() if conversation.subject is not None else None
        if frames:
            self.handle(conversation, frames)
        else:
            conversation.rested()

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
                _answer_batch(conversation, refusals, outcome)
            if conversation.framing is None:
                return
            if conversation.busy == WAITING:
                conversation.flush()
            else:
                conversation.relieve()
            if self.seconds() >= until or isinstance(outcome, GeneratorExit):
                conversation.yielded()
                return
            frames = conversation.take()


class _Failed:
    """What a handler raised in a worker, in the place of its reply."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class InThreads(Dispatch):
    """``def received(self, message)`` and ``def received_batch(self, messages)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What is to be done by workers, gathered while the loop goes round once.
        self._ready: list[Callable[[], None]] = []
        #: Per worker: what it is at, a conversation, its context and the outcomes not yet delivered.
        self._local = threading.local()

    def wake(self, conversation: Conversation) -> None:
        if conversation.busy:
            return
        frames = conversation.take() if conversation.subject is not None else None
        if frames:
            self.handle(conversation, frames)
        else:
            conversation.rested()

    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        conversation.busy = AWAY
        work = self._work_batch if self.plan.batches else self._work
        if not self._ready:
            self.handoff.post(self._send_off)
        self._ready.append(partial(work, conversation, self._lend(conversation), frames))

    def _send_off(self) -> None:
        ready, self._ready = self._ready, []
        self.workers.submit(*ready)

    def before_sending(self) -> None:
        turn = getattr(self._local, "turn", None)
        if turn is not None and turn[2]:
            # The replies to earlier messages of its batch come first.
            conversation, context, outcomes = turn
            self.handoff.post(self._deliver, conversation, context, outcomes.copy(), None)
            outcomes.clear()

    # These run in a worker thread.

    def _work(self, conversation: Conversation, context: contextvars.Context, frames: list[bytes]) -> None:
        outcomes: list[Any] = []
        self._local.turn = (conversation, context, outcomes)
        left = context.run(self._work_through, conversation, context, frames, outcomes)
        self._local.turn = None
        # Only now: the loop may send the next worker into the same context at once.
        self.handoff.post(self._deliver, conversation, context, outcomes, left)

    def _work_through(
        self, conversation: Conversation, context: contextvars.Context, frames: list[bytes], outcomes: list[Any]
    ) -> list[bytes]:
        """Handle these messages; returns those that are left."""
        received, subject, decode = self._received, conversation.subject, self._decode
        monotonic = time.monotonic
        began = delivered = monotonic()
        pending: Iterator[bytes] = iter(frames)
        for frame in pending:
            try:
                outcomes.append(received(subject, frame if decode is None else decode(frame)))
            except BaseException as error:
                outcomes.append(_Failed(error))
            now = monotonic()
            if conversation.holds or conversation.cancelled or (now - began > SLICE and self.workers.waiting()):
                break
            if now - delivered > DELIVERY:
                self.handoff.post(self._deliver, conversation, context, outcomes.copy(), None)
                outcomes.clear()
                delivered = now
        return list(pending)

    def _work_batch(self, conversation: Conversation, context: contextvars.Context, frames: list[bytes]) -> None:
        messages, refusals = self._decoded(frames)
        try:
            outcome = context.run(self._received, conversation.subject, messages) if messages else None
        except BaseException as error:
            outcome = error
        self.handoff.post(self._deliver_batch, conversation, context, refusals, outcome)

    # These run in the loop again.

    def _deliver(
        self, conversation: Conversation, context: contextvars.Context, outcomes: list[Any], left: list[bytes] | None
    ) -> None:
        if self.unsent:
            conversation.catch_up()
        if set(map(type, outcomes)) == self._only_plain and max(map(len, outcomes)) <= SMALL:
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
        if left and not conversation.cancelled:
            conversation.give_back(left)
        self._go_on(conversation, context)

    def _deliver_batch(
        self,
        conversation: Conversation,
        context: contextvars.Context,
        refusals: Sequence[Refusal | None],
        outcome: Any,
    ) -> None:
        _answer_batch(conversation, refusals, outcome)
        self._go_on(conversation, context)

    def _go_on(self, conversation: Conversation, context: contextvars.Context) -> None:
        self._take_back(conversation, context)
        conversation.busy = FREE
        conversation.flush()
        self.wake(conversation)


def dispatch(
    app: App, handoff: Handoff, workers: Workers, seconds: Callable[[], float], broadcasts: Broadcasts
) -> Dispatch:
    """The way in which this app's handler runs; parameters as of :class:`Dispatch`."""
    planned = plan(app.handler)
    kind = InThreads if planned.blocks else (InLoopBatches if planned.batches else InLoop)
    return kind(app, planned, handoff, workers, seconds=seconds, broadcasts=broadcasts)
