"""
The event loop: an asyncio reactor on uvloop, with uvloop's own transports behind TCP ports and time that does not jump.

Nothing here knows the rest of mtserver: ``twistd --reactor=uv web ...`` runs other programs on it. Where there is no
uvloop, Twisted's asyncio reactor does the same more slowly.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import sys
import time
from typing import Any

from twisted.logger import Logger

_log = Logger("mtserver.reactor")


def install() -> bool:
    """
    Install the fastest reactor that this machine has, unless the process has one already (``--reactor``, say).

    :return: whether one was installed.
    """
    if "twisted.internet.reactor" in sys.modules:
        return False
    if importlib.util.find_spec("uvloop") is not None:
        from mtserver.transport.reactor import uv

        uv.install()
    else:
        from twisted.internet import asyncioreactor

        # The default on Windows would be the proactor loop, which Twisted cannot use.
        loop = asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        asyncioreactor.install(loop)
        _log.info("uvloop is not installed: serving on asyncio's own loop, several times as slow")
    return True


def steady(reactor: Any) -> None:
    """
    Set a reactor on the monotonic clock, if it has no timers yet: theirs would be off by half a century.

    Twisted's reactors follow the wall clock (twisted#2424): an hour forward fires every timeout at once, an hour back
    stalls them all.
    """
    if not getattr(reactor, "is_steady", False) and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def impersonal(reactor: Any) -> None:
    """
    Have what `callLater` calls run with the context variables that are set now.

    An asyncio reactor of Twisted's has one timer for all such calls, and asyncio runs that with the variables of
    whoever happened to set it: a handler's, for everybody's calls, from then on.
    """
    on_timer = getattr(reactor, "_onTimer", None)
    if on_timer is not None:
        context = contextvars.copy_context()
        # Copied each time, since a call may have the reactor iterate.
        reactor._onTimer = lambda: context.copy().run(on_timer)  # noqa: SLF001 - there is no other door
