"""The fixture ``harness``, which pytest finds by itself where mtserver is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mtserver.testing.harness import Harness


@pytest.fixture
def harness() -> Iterator[Callable[..., Harness]]:
    """Makes harnesses, ``harness(handler, **settings)``, and stops them when the test is over."""
    # Not at the top: pytest loads this plugin in every project it runs, and that is no reason to load a server.
    from mtserver.testing.harness import Harness

    made: list[Harness] = []

    def make(*args: Any, **settings: Any) -> Harness:
        made.append(Harness(*args, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()
