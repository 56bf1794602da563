"""
How handlers run: one conversation per client, its messages one after another, different clients at the same time.

A conversation pulls messages from its :class:`Source` (the session) when the handler is free and puts replies back
in the same order. It holds no queue of its own, so a client that is ahead of its handler fills only what its source
is ready to hold.

* ``async def`` handlers run in the event loop, as far as they go without waiting, right when their message arrives.
* plain ``def`` handlers run in worker threads, a batch of messages per hand-off; replies come back as they are made,
  but no more than once a millisecond.

Neither keeps the loop, or a worker, for longer than :data:`SLICE` while others wait.
"""

from __future__ import annotations

import abc
import contextvars
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from mtserver import coroutines
from mtserver.app import App
from mtserver.client import Client
from mtserver.errors import HandlerError, Refusal
from mtserver.handlers import Bound, Hook, Plan, is_async, plan
from mtserver.handoff import Handoff
from mtserver.offload import Offload
from mtserver.threads import Workers

#: Seconds that one client's messages may keep the loop (or a worker that others wait for) in one go.
SLICE = 0.005
#: Seconds between two deliveries of replies from a worker that is still at it.
DELIVERY = 0.001


class Source(Protocol):
    """Where a conversation gets its messages and leaves its replies. For the loop's thread only, but for `holds`."""

    #: Not zero while no further message is to be handled, whatever the reason. A worker may read it.
    holds: int

    def take(self) -> list[bytes]:
        """The next messages; an empty list if there are none or the source holds them back."""
        ...

    def give_back(self, frames: list[bytes]) -> None:
        """Messages taken and not handled after all, to come first next time."""
        ...

    def answer(self, reply: Any) -> None:
        """One message is answered, with None if there is nothing to send."""
        ...

    def failed(self, error: BaseException) -> None:
        """One message is not answered, for this reason: a refusal, or whatever the handler raised."""
        ...

    def broken(self, error: BaseException) -> None:
        """The handler cannot begin with this client."""
        ...

    def delivered(self) -> None:
        """Some replies have been left, and the handler is still busy."""
        ...

    def rested(self) -> None:
        """The handler is free, and `take` gave nothing."""
        ...

    def yielded(self) -> None:
        """The time slice is over: wake the conversation again when others have had their turn."""
        ...

    def released(self) -> None:
        """The handler has been told of the end; nothing more will come."""
        ...


class Dispatch:
    """
    Everything conversations share.

    :param app: its handler is what runs.
    :param workers: for plain ``def`` handlers.
    :param seconds: a monotonic clock.
    """

    def __init__(self, app: App, handoff: Handoff, workers: Workers, seconds: Callable[[], float]) -> None:
        self.app = app
        self.plan: Plan = plan(app.handler)
        self.handoff = handoff
        self.workers = workers
        self.seconds = seconds
        #: For a plain ``def`` hook in a class whose other methods may be async.
        self.offload = Offload(handoff, workers)
        self._kind = InThreads if self.plan.blocks else (InLoopBatches if self.plan.batches else InLoop)

    def converse(self, client: Client, source: Source) -> Conversation:
        """A conversation with a client that has just connected; ``begin`` it."""
        return self._kind(self, client, source)


class Conversation(abc.ABC):
    """One client's handler, and whose turn it is."""

    __slots__ = ("_bound", "_cancelled", "_client", "_context", "_dispatch", "_running", "_source", "busy")

    def __init__(self, dispatch: Dispatch, client: Client, source: Source) -> None:
        self._dispatch = dispatch
        self._client = client
        self._source = source
        self._bound: Bound | None = None
        #: contextvars set by a handler are this client's: seen by its later messages, and by no other client.
        self._context = contextvars.copy_context()
        self._running: coroutines.Running | None = None
        self._cancelled = False
        #: The handler is at work, or waits for something; it is not to be given more.
        self.busy = False

    def begin(self) -> None:
        """Make the handler and tell it of the connection; then see whether there are messages."""
        try:
            self._bound = self._context.run(self._dispatch.plan.bind, self._client)
        except BaseException as error:  # a handler's author may raise anything
            self._source.broken(error)
            return
        if self._bound.connected is None:
            self.wake()
        else:
            self._run(self._connect(self._bound.connected), self.wake, self.wake)

    @abc.abstractmethod
    def wake(self) -> None:
        """There may be messages. Does nothing if the handler is busy."""

    def end(self, reason: str) -> None:
        """Tell the handler that the connection is gone. Not while it is busy."""
        if self._bound is None or self._bound.disconnected is None:
            self._source.released()
        else:
            released = self._source.released
            self._run(self._disconnect(self._bound.disconnected, reason), released, released)

    def cancel(self) -> None:
        """Stop waiting for the handler. A coroutine is cancelled; a thread cannot be, but nobody waits for it."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    def _run(
        self, coroutine: Coroutine[Any, Any, None], at_once: Callable[[], None], later: Callable[[], None]
    ) -> None:
        """Run a coroutine, busy until it is done; then call `at_once`, or `later` if it had to wait."""

        def done(error: BaseException | None) -> None:
            self.busy = False
            self._running = None
            if error is not None and not self._cancelled:
                self._source.broken(error)
            later()

        self.busy = True
        self._running = coroutines.start(coroutine, self._context, done)
        if self._running is None:
            self.busy = False
            at_once()

    async def _connect(self, hook: Hook) -> None:
        try:
            await self._call(hook)
        except BaseException as error:
            if self._cancelled:
                raise
            self._bound = None  # never connected, so never disconnected either
            self._source.broken(error)

    async def _disconnect(self, hook: Hook, reason: str) -> None:
        try:
            await self._call(hook, reason)
        except BaseException as error:
            if self._cancelled:
                raise
            self._source.failed(error)

    async def _call(self, hook: Hook, *args: Any) -> None:
        if is_async(hook):
            await hook(*args)
        else:
            # A copy of the context, as asyncio.to_thread does: this one is the running coroutine's.
            context = contextvars.copy_context()
            await self._dispatch.offload.in_thread(partial(context.run, hook, *args))

    def _decoded(self, frames: Sequence[bytes]) -> tuple[list[Any], list[Refusal | None]]:
        """The messages in these frames that can be decoded, and per frame the refusal of one that cannot."""
        decode = self._dispatch.plan.codec.decode
        messages: list[Any] = []
        refusals: list[Refusal | None] = []
        for frame in frames:
            try:
                messages.append(decode(frame))
                refusals.append(None)
            except Refusal as refusal:
                refusals.append(refusal)
        return messages, refusals

    def _answer_batch(self, refusals: Sequence[Refusal | None], outcome: Any) -> None:
        """Leave the outcome of a batch: an exception for all of it, or a reply for each message that was decoded."""
        source = self._source
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
                source.failed(reply)
            else:
                source.answer(reply)


class InLoop(Conversation):
    """``async def received(self, message)``."""

    __slots__ = ()

    def wake(self) -> None:
        if self.busy:
            return
        if self._bound is None:
            self._source.rested()
        else:
            # Messages may come between its last look for one and the end of its task: look again.
            self._run(self._converse(self._bound.received), self._source.rested, self.wake)

    async def _converse(self, received: Hook) -> None:
        source, seconds, decode = self._source, self._dispatch.seconds, self._dispatch.plan.codec.decode
        until = seconds() + SLICE
        while frames := source.take():
            pending = iter(frames)
            for frame in pending:
                try:
                    source.answer(await received(decode(frame)))
                except BaseException as error:  # whatever it is, it costs this client and nobody else
                    if self._cancelled:
                        raise
                    source.failed(error)
                    if isinstance(error, GeneratorExit):
                        # If it is not the handler's odd idea but the end of this coroutine, it must not wait again.
                        source.give_back(list(pending))
                        source.yielded()
                        return
                if source.holds:
                    source.give_back(list(pending))
                    return
            if seconds() >= until:
                source.yielded()
                return


class InLoopBatches(InLoop):
    """``async def received_batch(self, messages)``."""

    __slots__ = ()

    async def _converse(self, received: Hook) -> None:
        source, seconds = self._source, self._dispatch.seconds
        until = seconds() + SLICE
        while frames := source.take():
            messages, refusals = self._decoded(frames)
            try:
                outcome = await received(messages) if messages else None
            except BaseException as error:
                if self._cancelled:
                    raise
                outcome = error
            self._answer_batch(refusals, outcome)
            source.delivered()
            if seconds() >= until or isinstance(outcome, GeneratorExit):
                source.yielded()
                return


class InThreads(Conversation):
    """``def received(self, message)`` and ``def received_batch(self, messages)``."""

    __slots__ = ()

    def wake(self) -> None:
        if self.busy:
            return
        frames = self._source.take() if self._bound is not None else []
        if self._bound is None or not frames:
            self._source.rested()
            return
        self.busy = True
        work = self._work_batch if self._dispatch.plan.batches else self._work
        self._dispatch.workers.submit(partial(work, self._bound.received, frames))

    # These two run in a worker thread.

    def _work(self, received: Hook, frames: list[bytes]) -> None:
        dispatch, context, source = self._dispatch, self._context, self._source
        decode, post, deliver = dispatch.plan.codec.decode, dispatch.handoff.post, self._deliver
        outcomes: list[tuple[bool, Any]] = []
        began = delivered = time.monotonic()
        pending: Iterator[bytes] = iter(frames)
        for frame in pending:
            try:
                outcomes.append((True, context.run(received, decode(frame))))
            except BaseException as error:
                outcomes.append((False, error))
            now = time.monotonic()
            if source.holds or self._cancelled or (now - began > SLICE and dispatch.workers.waiting()):
                break
            if now - delivered > DELIVERY:
                post(deliver, outcomes, None)
                outcomes = []
                delivered = now
        post(deliver, outcomes, list(pending))

    def _work_batch(self, received: Hook, frames: list[bytes]) -> None:
        messages, refusals = self._decoded(frames)
        try:
            outcome = self._context.run(received, messages) if messages else None
        except BaseException as error:
            outcome = error
        self._dispatch.handoff.post(self._deliver_batch, refusals, outcome)

    # These run in the loop again.

    def _deliver(self, outcomes: list[tuple[bool, Any]], left: list[bytes] | None) -> None:
        source = self._source
        for succeeded, outcome in outcomes:
            if succeeded:
                source.answer(outcome)
            else:
                source.failed(outcome)
        if left is None:
            source.delivered()
            return
        if left:
            source.give_back(left)
        self._go_on()

    def _deliver_batch(self, refusals: Sequence[Refusal | None], outcome: Any) -> None:
        self._answer_batch(refusals, outcome)
        self._go_on()

    def _go_on(self) -> None:
        self.busy = False
        self._source.delivered()
        self.wake()
