"""
``--app collect``: each message is stored in the journal and answered ``OK <seq>`` when it is safe there, not before.

Messages that arrive together are stored together, which is what makes it fast: one wait for the disk acknowledges them
all. Where the journal cannot store, the answer is ``ERR unavailable``, and the client may send them again.
"""

from __future__ import annotations

from mtserver import App, Handler


class Collect(Handler):
    __slots__ = ()

    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return (await self.client.journal_batch(messages)).words()


app = App(Collect, uses_journal=True)
