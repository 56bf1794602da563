"""
One kind of event, and whoever is told of it. The table of those that there are is :mod:`mtserver.telemetry.events`.

The idea, and that the log is one listener of many, is from Erlang's *telemetry* as thousand_island uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

Subscriber = Callable[["Event", Mapping[str, Any]], object]

#: Levels of the log, from the least to the most.
LEVELS = ("debug", "info", "warn", "error", "critical")

_log = logging.getLogger("mtserver.telemetry")


class Event:
    """
    One kind of event: tells whoever has subscribed when it is called with its fields.

    :param name: lower case with hyphens.
    :param meaning: when it happens, as one sentence without its full stop.
    :param fields: meaning of each, with its unit, in the order of a line.
    :param text: the line of the log, a format string of fields; a part in square brackets is left out where its field
        is missing or empty. Without a text it has no line.
    :param level: of that line.
    :param audit: whether it is one of the audit log's.
    """

    __slots__ = ("_counts", "audit", "fields", "level", "meaning", "name", "subscribers", "text")

    def __init__(
        self,
        name: str,
        meaning: str,
        fields: Mapping[str, str],
        *,
        text: str = "",
        level: str = "info",
        audit: bool = False,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.fields = dict(fields)
        self.text = text
        self.level = level
        self.audit = audit
        #: Subscribers, each once, in the order in which they came. A hot path asks whether there are any.
        self.subscribers: tuple[Subscriber, ...] = ()
        self._counts: dict[Subscriber, int] = {}

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self.subscribers)

    def __call__(self, **fields: Any) -> None:
        """Tell that it has happened."""
        for subscriber in self.subscribers:
            try:
                subscriber(self, fields)
            except Exception:  # a listener's mistake is not the business of those whom it listens to
                _log.exception("a subscriber of the event %s failed", self.name)

    def __repr__(self) -> str:
        return f"<Event {self.name}>"

    def add(self, subscriber: Subscriber) -> None:
        """Tell this subscriber from now on; see :func:`subscribe`."""
        self._counts[subscriber] = self._counts.get(subscriber, 0) + 1
        self.subscribers = tuple(self._counts)

    def remove(self, subscriber: Subscriber) -> None:
        """One subscription of this subscriber has ended."""
        self._counts[subscriber] -= 1
        if not self._counts[subscriber]:
            del self._counts[subscriber]
        self.subscribers = tuple(self._counts)


def subscribe(subscriber: Subscriber, *events: Event) -> Callable[[], None]:
    """
    Call `subscriber` with the event and its fields whenever one of these happens.

    The fields are the same object for all subscribers, which leave it as it is. For the loop's thread.

    :return: a function that ends the subscription; called again it does nothing.
    """
    left = list(events)
    for event in events:
        event.add(subscriber)

    def end() -> None:
        while left:
            left.pop().remove(subscriber)

    return end
