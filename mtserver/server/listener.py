"""
One port: the Twisted factory of its connections, with its app, framing, codec and login.

Two ports of one server may differ in all of these; what their clients share is :mod:`mtserver.server.server`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from mtserver.dispatch import Dispatch
from mtserver.framing import Framing
from mtserver.session.session import Session
from mtserver.session.shared import Gate, Server, SplitComplete


class Listener(ServerFactory):
    """
    Makes a session for each client of a port.

    :param server: what its clients share with those of other ports.
    :param dispatch: runs the handler of its app.
    :param framing: how bytes become messages.
    :param gate: where clients say who they are; None: anybody is let in.
    """

    noisy = False

    def __init__(self, server: Any, dispatch: Dispatch, framing: type[Framing], gate: Gate | None) -> None:
        self._server = server
        self.app = dispatch.app
        self.dispatch = dispatch
        self.codec = dispatch.plan.codec
        self.framing = framing
        self.encode: Callable[[Sequence[bytes]], bytes] = framing.encode
        self.gate = gate
        self.max_message: int = server.settings.max_message
        split: SplitComplete = _none_complete if server.settings.message_rate else framing.split_complete
        if gate is not None and gate.verb:
            split = _none_with(gate.verb, split)
        self.split_complete = split

    @property
    def server(self) -> Server:
        """The server that it is a port of."""
        server: Server = self._server
        return server

    def buildProtocol(self, addr: IAddress | None) -> Any:
        server = self._server
        if server.draining:
            return None
        server.deadlines.watch()
        refusal = server.admission.refusal(addr)
        if refusal is not None:
            return server.admission.reject(b"" if server.settings.quiet else self.encode([self.codec.refuse(refusal)]))
        session = Session(self, server.next_number())
        server.add(session, addr)
        return session


def _none_complete(_data: bytes, _max_message: int, _limit: int) -> None:
    """Find no complete messages: with ``--message-rate`` each is taken when there is a token for it."""


def _none_with(verb: bytes, split: SplitComplete) -> SplitComplete:
    """Have reads in which a message of authentication may be looked at message by message."""
    return lambda data, max_message, limit: None if verb in data else split(data, max_message, limit)
