"""What ``twistd --help`` lists. Kept to lazy lines: a cold plugin cache imports every plugin there is."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

mtserver = ServiceMaker(
    "mtserver",
    "mtserver.process.service",
    "Serve a Python handler to thousands of TCP clients at once.",
    "mtserver",
)

uv = Reactor(
    "uv",
    "mtserver.transport.reactor.uv",
    "Twisted's asyncio reactor on uvloop, with uvloop's TCP transports.",
)
