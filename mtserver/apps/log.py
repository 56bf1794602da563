"""``--app log``: the classic. Each message is a line in the log; nothing is answered."""

from twisted.logger import Logger

from mtserver import App, Client, escape

_log = Logger("mtserver.apps.log")


async def log(client: Client, message: bytes) -> None:
    _log.info("Received {text} from client {client}", text=escape(message), client=client.id)


app = App(log)
