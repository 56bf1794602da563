"""``--app echo``: each message comes back as it was."""

from mtserver import App, Handler


class Echo(Handler):
    __slots__ = ()

    async def received_batch(self, messages: list[bytes]) -> list[bytes]:
        return messages


app = App(Echo)
