"""
How handlers run: one conversation per client, its messages one after another, different clients at the same time.

A :class:`Dispatch` is shared by all clients of a server and holds nothing of theirs; what it works on is a
:class:`Conversation`, which is also where messages come from and replies go. There is no queue in between, so a client
that is ahead of its handler fills only what its conversation is ready to hold.

* ``async def`` handlers run in the event loop, as far as they go without waiting, right when their message arrives.
* plain ``def`` handlers run in threads, a batch of messages per hand-off; replies come back as they are made,
  but no more than once a millisecond.

Neither keeps the loop, or a thread, for longer than :data:`SLICE` while others wait.
"""

from __future__ import annotations

from collections.abc import Callable

from mtserver.app import App
from mtserver.concurrency.loop_calls import LoopCalls
from mtserver.concurrency.threads import Threads
from mtserver.dispatch.conversation import CANCELLED, FREE, IN_TURN, SMALL, Conversation
from mtserver.dispatch.dispatch import SLICE, Dispatch, FanOut
from mtserver.dispatch.in_loop import InLoop, InLoopBatches
from mtserver.dispatch.in_threads import InThreads
from mtserver.dispatch.message_ids import with_ids
from mtserver.dispatch.plan import plan
from mtserver.settings import DEFAULTS, Settings

__all__ = ["CANCELLED", "FREE", "IN_TURN", "SLICE", "SMALL", "Conversation", "Dispatch", "dispatch_for"]


def dispatch_for(
    app: App,
    loop_calls: LoopCalls,
    threads: Threads,
    seconds: Callable[[], float],
    fan_out: FanOut,
    *,
    settings: Settings = DEFAULTS,
) -> Dispatch:
    """The way in which this app's handler runs; parameters as of :class:`Dispatch`."""
    planned = plan(app.handler, settings)
    if settings.message_ids:
        planned = with_ids(planned)
    kind = InThreads if planned.blocks else (InLoopBatches if planned.batches else InLoop)
    return kind(app, planned, loop_calls, threads, seconds=seconds, fan_out=fan_out)
