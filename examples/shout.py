"""Every line comes back in capitals.

cd examples && twistd -n mtserver --port 9999 --app shout:shout
"""

from mtserver import Client


async def shout(client: Client, message: bytes) -> bytes:
    return message.upper()
