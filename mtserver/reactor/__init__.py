"""
The event loop: Twisted's asyncio reactor on uvloop, with time that does not jump.

Knows nothing of the rest of mtserver. Twisted's reactors follow the wall clock (twisted#2424): an hour forward fires
every timeout at once, an hour back stalls them all. :func:`install` and :func:`steady` set them on the monotonic one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any


def new_loop() -> tuple[asyncio.AbstractEventLoop, bool]:
    """The fastest asyncio loop there is here, and whether it is uvloop's."""
    try:
        import uvloop
    except ImportError:
        if sys.platform == "win32":
            return asyncio.SelectorEventLoop(), False  # Twisted cannot use the proactor loop
        return asyncio.new_event_loop(), False
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop, True


def install() -> bool:
    """
    Make this the process's reactor, unless there is one already (``--reactor`` on the command line, say).

    :return: whether it was done.
    """
    if "twisted.internet.reactor" in sys.modules:
        return False
    from twisted.internet import asyncioreactor

    loop, _ = new_loop()
    # So that asyncio.get_event_loop() in a library, before the reactor runs, finds the loop that will.
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    return True


def steady(reactor: Any) -> None:
    """
    Set a reactor on the monotonic clock. Before it runs, or has timers: theirs would be off by half a century.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
