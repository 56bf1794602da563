"""The common part of the ways in which handlers run: begin, hooks, end, cancel, and contexts."""

from __future__ import annotations

import abc
import contextvars
import typing
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from mtserver.app import App
from mtserver.codecs import BytesCodec
from mtserver.concurrency.coroutines import Runner, Running, runner
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.offload import Offload
from mtserver.concurrency.threads import Threads
from mtserver.dispatch.conversation import CANCELLED, FREE, IN_TURN, SUSPENDED, Conversation
from mtserver.dispatch.measuring import Measurement
from mtserver.dispatch.plan import Hook, Plan, batch_replies, is_async
from mtserver.errors import HandlerError, MtserverError
from mtserver.telemetry.context import enter, is_like

#: Seconds that one client's messages may keep the loop (or a thread that others wait for) in one go.
SLICE = 0.005

_UNSET = object()


class FanOut(typing.Protocol):
    """Messages said to many, as far as a reply goes: a client catches up with them first."""

    unsent: list[Any]

    def catch_up(self, hearer: Any) -> None: ...


class Dispatch(abc.ABC):
    """
    How the handlers of one app run.

    :param app: its handler is what runs.
    :param threads: for plain ``def`` handlers.
    :param seconds: a monotonic clock.
    :param fan_out: what the same server says to many.
    """

    def __init__(
        self,
        app: App,
        plan: Plan,
        loop_calls: LoopCalls,
        threads: Threads,
        *,
        seconds: Callable[[], float],
        fan_out: FanOut,
    ) -> None:
        self.app = app
        self.plan = plan
        self.loop_calls = loop_calls
        self.threads = threads
        self.seconds = seconds
        self.fan_out = fan_out
        #: Messages said to many and not delivered; a client catches up before its next reply.
        self.unsent = fan_out.unsent
        #: Threads for a plain ``def`` hook in a class whose other methods may be async.
        self.offload = Offload(loop_calls, threads)
        # Bytes, the usual case, need no decoding, and are the type of a reply that needs no encoding.
        self._decode = None if type(plan.codec) is BytesCodec else plan.codec.decode
        self._plain: type | None = bytes if plan.codec.sends_as_is else None
        self._only_plain: set[Any] = {self._plain}  # not empty: types of no reply at all are not it
        self._received: Hook = plan.received
        self._pristine = contextvars.copy_context()
        self._spare: contextvars.Context | None = None
        self._runner: Runner | None = None

    def begin(self, conversation: Conversation) -> None:
        """Make the handler, if there is none, and tell it of the connection; then see whether there are messages."""
        if conversation.handler is None:
            try:
                self._make(conversation)
            except BaseException as error:  # a handler's author may raise anything
                conversation.start_failed(error)
                return
        if self.plan.connects:
            hook = conversation.handler.connected
            self._run(conversation, self._connect(conversation, hook), self.wake, self.wake)
        else:
            self.wake(conversation)

    def authenticate(self, conversation: Conversation, frame: bytes, done: Callable[[Any], None]) -> None:
        """Let the handler say whose messages these will be. `done` gets what it returns, or what it raises."""
        codec: Any = self.plan.login
        try:
            message = codec.decode(frame)
            self._make(conversation)
        except BaseException as error:
            done(error)
            return
        outcome: list[Any] = [None]

        def tell(conversation: Conversation) -> None:
            done(outcome[0])
            self.wake(conversation)  # it may have ended meanwhile

        hook = conversation.handler.authenticate
        self._run(conversation, self._authenticate(hook, message, outcome), tell, tell)

    def _make(self, conversation: Conversation) -> None:
        context = self._lend(conversation)
        try:
            conversation.handler = context.run(self.plan.make, conversation.client)
        finally:
            self._take_back(conversation, context)

    def wake(self, conversation: Conversation) -> None:
        """Look for messages, and hand them on; does nothing if the handler is busy."""
        if conversation.busy:
            return
        frames = conversation.take() if conversation.handler is not None else None
        if frames:
            self.handle(conversation, frames)
        else:
            conversation.idle()

    @abc.abstractmethod
    def handle(self, conversation: Conversation, frames: list[bytes]) -> None:
        """Give the handler messages that have been taken. Not while it is busy."""

    def before_sending(self) -> None:  # noqa: B027 - nothing is to be done where handlers run in the loop
        """The calling thread is about to send something that is not a reply."""

    def before_closing(self, conversation: Conversation) -> None:  # noqa: B027 - as above
        """The calling thread is about to close this conversation's connection."""

    def end(self, conversation: Conversation, reason: str) -> None:
        """Tell the handler that the connection is gone. Not while it is busy."""
        handler = conversation.handler
        # One that never began is not told of an end.
        if handler is None or not self.plan.disconnects:
            conversation.finished()
        else:
            self._run(conversation, self._disconnect(conversation, handler.disconnected, reason), _finished, _finished)

    @staticmethod
    def cancel(conversation: Conversation) -> None:
        """Stop waiting for the handler. A coroutine is cancelled; a thread cannot be, but nobody waits for it."""
        conversation.pauses |= CANCELLED
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
        measured: Measurement | None = None,
    ) -> None:
        conversation.context = context
        conversation.running = running
        conversation.busy = SUSPENDED
        (self._runner or self._find_runner()).when_done(running, self._done, conversation, later, measured)
        conversation.flush()

    def _find_runner(self) -> Runner:
        self._runner = runner()
        return self._runner

    def _done(
        self,
        error: BaseException | None,
        conversation: Conversation,
        later: Callable[[Conversation], None],
        measured: Measurement | None,
    ) -> None:
        if measured is not None:
            measured.end(conversation, self.seconds())
        conversation.busy = FREE
        conversation.running = None
        if conversation.context is not None and is_like(conversation.context, self._pristine):
            conversation.context = None  # it was kept for the wait only
        if error is not None and not conversation.pauses & CANCELLED:
            conversation.start_failed(error)
        later(conversation)

    # Contexts. One per client costs 100 bytes; most handlers never set a context variable.

    def _lend(self, conversation: Conversation) -> contextvars.Context:
        """A context for the handler to run in: its own, if it has changed one; else one that nobody has."""
        if conversation.context is not None:
            return conversation.context
        context, self._spare = self._spare, None
        if context is None:
            context = self._pristine.copy()
        context.run(enter, conversation.client.id)
        return context

    def _take_back(self, conversation: Conversation, context: contextvars.Context) -> None:
        """After `_lend`: it is the conversation's own if the handler has changed it."""
        if context is conversation.context:
            return  # and stays so, even if it has undone all its changes: the next client must not share it
        if is_like(context, self._pristine):
            self._spare = context
        else:
            conversation.context = context

    async def _authenticate(self, hook: Hook, message: Any, outcome: list[Any]) -> None:
        try:
            outcome[0] = await self._call(hook, message)
        except BaseException as error:
            outcome[0] = error

    async def _connect(self, conversation: Conversation, hook: Hook) -> None:
        try:
            await self._call(hook)
        except BaseException as error:
            if conversation.pauses & CANCELLED:
                raise
            conversation.handler = None  # never connected, so never disconnected either
            conversation.start_failed(error)

    async def _disconnect(self, conversation: Conversation, hook: Hook, reason: str) -> None:
        try:
            await self._call(hook, reason)
        except BaseException as error:
            if conversation.pauses & CANCELLED:
                raise
            conversation.failed(error)

    async def _call(self, hook: Hook, *args: Any) -> Any:
        if is_async(hook):
            return await hook(*args)
        # A copy of the context, as asyncio.to_thread does: this one is the running coroutine's.
        context = contextvars.copy_context()
        try:
            return await self.offload.in_thread(partial(context.run, hook, *args))
        finally:
            # Variables that the hook has set are the client's all the same.
            for variable, value in context.items():
                if variable.get(_UNSET) is not value:
                    variable.set(value)

    def _decoded(self, frames: list[bytes]) -> tuple[list[Any], list[MtserverError | None]]:
        """The messages in these frames that can be decoded, and per frame the error of one that cannot."""
        decode = self._decode
        if decode is None:
            return frames, [None] * len(frames)
        messages: list[Any] = []
        errors: list[MtserverError | None] = []
        for frame in frames:
            try:
                messages.append(decode(frame))
                errors.append(None)
            except MtserverError as error:  # a type's own code may fail: see HandlerError
                errors.append(error)
        return messages, errors


def _finished(conversation: Conversation) -> None:
    conversation.finished()


def answer_batch(conversation: Conversation, errors: Sequence[MtserverError | None], outcome: Any) -> None:
    """Leave the outcome of a batch: an exception for all of it, or a reply for each message that was decoded."""
    good = errors.count(None)
    if not isinstance(outcome, BaseException):
        try:
            outcome = batch_replies(outcome, good)
        except HandlerError as broken:
            outcome = broken
    replies = iter([outcome] * good if isinstance(outcome, BaseException) else outcome)
    for error in errors:
        reply = next(replies) if error is None else error
        if isinstance(reply, BaseException):
            conversation.failed(reply)
        else:
            conversation.answer(reply)
