"""``--app echo``: each message comes back as it was."""

from mtserver import App, Client


async def echo(client: Client, message: bytes) -> bytes:  # noqa: ARG001 - the signature of a handler
    return message


app = App(echo)
