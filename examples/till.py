"""One instance per client, so its attributes are that client's state: here, the sum of the numbers it has sent.

cd examples && twistd -n mtserver --port 9999 --app till:Till
"""

from mtserver import BadMessage, Client, Handler


class Till(Handler):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.total = 0

    async def connected(self) -> None:
        self.client.send("send me numbers")

    async def received(self, message: str) -> str:
        try:
            self.total += int(message)
        except ValueError:
            raise BadMessage("not a whole number") from None
        return str(self.total)
