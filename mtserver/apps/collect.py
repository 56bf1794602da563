"""
``--app collect``: each message is stored in the journal and answered ``OK <seq>`` when it is safe there, not before.

Messages that arrive together are stored together, which is what makes it fast: one wait for the disk acknowledges them
all. Where the journal cannot store, the answer is ``ERR unavailable``, and the client may send them again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mtserver import App, Client, Handler
from mtserver.journal import Batch, open_journal


@asynccontextmanager
async def journal(app: App) -> AsyncIterator[None]:
    app.state.journal = open_journal(app.settings.journal)
    try:
        yield
    finally:
        await app.state.journal.close()


class Collect(Handler):
    __slots__ = ("_peer",)

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._peer = client.peer

    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        client = self.client
        batch = Batch(time.time(), client.id, self._peer, messages)
        return [b"OK %d" % sequence for sequence in await client.app.state.journal.append(batch)]


app = App(Collect, lifespan=journal)
