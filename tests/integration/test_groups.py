"""Groups on real nodes: the suite of all groups, in one process and over three NATS servers; and what goes wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import rooms
from tests.groupsuite import GroupSuite, Talker

from .nats import Nats
from .peer import Peer
from .server import Server, wait_until

MODULES = {"rooms": Path(rooms.__file__).read_text()}
#: Seconds that NATS stands still: 60 shows more, and takes them.
STOPPED = float(os.environ.get("MTSERVER_NATS_STOPPED", "8"))


class Real(Talker):
    """A client on a socket."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer

    def send(self, *lines: str) -> None:
        self.peer.send("".join(f"{line}\n" for line in lines).encode())

    def line(self) -> str:
        return self.peer.line().decode()

    def leave(self) -> None:
        self.peer.reset()


def node(nats: Nats | None, *options: str) -> Server:
    """A node of the app for tests of groups."""
    groups = () if nats is None else ("--groups", nats.url)
    return Server("--app", "rooms:Rooms", *groups, *options, modules=MODULES)


def nodes(stack: contextlib.ExitStack, nats: Nats, count: int, *options: str) -> list[Server]:
    """Several, which know of each other."""
    found = [stack.enter_context(node(nats, *options)) for _ in range(count)]
    with contextlib.ExitStack() as watchers:
        for server in found:
            watchers.enter_context(server.connect()).exchange(b"join here")
        for server in found:
            wait_until(partial(knows, server, count, "here"), "nodes that know each other")
    return found


def ask(server: Server, *lines: str) -> str:
    """The last answer to these."""
    with server.connect() as peer:
        return peer.exchange(*(line.encode() for line in lines))[-1].decode()


def count_of(server: Server, room: str) -> int:
    """How many members a node knows of."""
    return len(ask(server, f"who {room}").split(" ")) - 1


def knows(server: Server, count: int, *rooms: str) -> bool:
    """There are as many in these rooms together."""
    return sum(count_of(server, room) for room in rooms) == count


class NodesCase(SynchronousTestCase):
    """On nodes that all tests of the class share."""

    stack: contextlib.ExitStack
    servers: Sequence[Server] = ()

    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> Sequence[Server]:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        with contextlib.ExitStack() as stack:
            cls.servers = cls.start(stack)
            cls.addClassCleanup(stack.pop_all().close)

    def talkers(self, count: int) -> list[Talker]:
        # Those of the test before are gone everywhere before this one begins.
        for server in self.servers:
            wait_until(partial(knows, server, 0, "a", "b"), "empty rooms")
        found: list[Talker] = []
        for number in range(count):
            peer = self.servers[number % len(self.servers)].connect()
            self.addCleanup(peer.socket.close)
            found.append(Real(peer))
        return found

    def soon(self, condition: Any, what: str) -> None:
        wait_until(condition, what)


class InMemory(NodesCase, GroupSuite):
    """In one process."""

    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> Sequence[Server]:
        return [stack.enter_context(node(None))]


class OverNats(NodesCase, GroupSuite):
    """On three nodes, over a cluster of three."""

    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> Sequence[Server]:
        return nodes(stack, stack.enter_context(Nats(3)), 3)
