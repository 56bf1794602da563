"""A handler that blocks: plain `def` runs in a worker thread, so a slow disk stops nobody else.

Each message is the name of a file in the working directory; the answer is its SHA-256.

    cd examples && twistd -n mtserver --port 9999 --app files:digest --threads 50
"""

import hashlib
from pathlib import Path

from mtserver import BadMessage, Client


def digest(client: Client, message: str) -> str:
    path = Path(message)
    if path.name != message:
        raise BadMessage("that is not the name of a file here")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadMessage(error.strerror or "it cannot be read") from None
