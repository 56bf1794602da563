"""
``--app collect``: stores each message in the journal, and answers ``OK <seq>`` when it is safe there.

Messages that arrive together are stored together, and one wait for the disk acknowledges them all. When the journal
cannot store, the answer is ``ERR unavailable`` and the client may send them again.
"""

from __future__ import annotations

from mtserver import App, Handler


class Collect(Handler):
    __slots__ = ()

    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return (await self.client.journal_batch(messages)).words()


app = App(Collect, uses_journal=True)
