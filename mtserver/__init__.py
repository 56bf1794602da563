"""
mtserver serves a Python handler to thousands of TCP clients at once.

::

    # shout.py
    async def shout(client, message: bytes) -> bytes:
        return message.upper()

    $ twistd -n mtserver --port 9999 --app shout:shout

What a handler needs is here; :mod:`mtserver.testing` has what its tests need; everything else is how it is done.
"""

from mtserver.acks import Ack
from mtserver.app import App, Handler
from mtserver.client import Client
from mtserver.concurrency.offload import to_process, to_thread
from mtserver.errors import BadMessage, Duplicate, Refusal, Unavailable
from mtserver.groups import Change, Member
from mtserver.telemetry.escape import escape

__all__ = [
    "Ack",
    "App",
    "BadMessage",
    "Change",
    "Client",
    "Duplicate",
    "Handler",
    "Member",
    "Refusal",
    "Unavailable",
    "escape",
    "to_process",
    "to_thread",
]
__version__ = "0.1.0"
