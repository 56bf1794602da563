"""Measurements of how long messages wait for their handler and it takes, while somebody listens to that event."""

from __future__ import annotations

from mtserver.dispatch.conversation import Conversation
from mtserver.telemetry.events import MESSAGES_HANDLED


class Measurement:
    """
    One turn of a handler: from its beginning to its end. Made only while somebody listens.

    :param now: seconds on the server's clock, as everywhere here.
    """

    __slots__ = ("_arrived_at", "_began_at", "_handled")

    def __init__(self, conversation: Conversation, now: float) -> None:
        self._arrived_at = conversation.arrived_at or now
        self._began_at = now
        self._handled = _handled(conversation)

    def begin(self, now: float) -> None:
        """Note that a thread has begun with it only now."""
        self._began_at = now

    def end(self, conversation: Conversation, now: float) -> None:
        """The handler is done with this turn; replies may not have left yet."""
        MESSAGES_HANDLED(
            client=conversation.client.id,
            messages=_handled(conversation) - self._handled,
            queue_seconds=self._began_at - self._arrived_at,
            handler_seconds=now - self._began_at,
        )


def _handled(conversation: Conversation) -> int:
    """Messages that the handler has been done with so far: answered, or about to be."""
    return conversation.answered + len(conversation.replies or ())
