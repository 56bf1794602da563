"""More clients than there is room for: refused with a word, and nothing else fails for want of a descriptor."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from .peer import Crowd
from .server import Server, rows

BUSY = rb"ERR busy retry-after=[1-9]\d* [^\n]*"
WITH_256_FILES = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")


class TestDescriptors(SynchronousTestCase):
    def _thousand(self, *, speak_first: bool) -> None:
        with Server(prefix=WITH_256_FILES) as server:
            with Crowd(server.port, 1000) as crowd:
                if speak_first:
                    for index in range(1000):
                        crowd.send(index, b"first\n")
                crowd.read_until(lambda: len(crowd.ended) >= 1000 - 256 and all(crowd.received) is speak_first)
