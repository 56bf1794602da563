"""What the log is told of a link: that the servers are away, there again, or do not let us do something; each once."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception
from mtserver.telemetry.rate_limit import Once

#: Different lines about one connection, or one absence, at most.
LINES = 20

_log = Logger("mtserver.nats")


class Telling:
    """Of one link."""

    def __init__(self) -> None:
        #: What has been said of this absence, or of this connection.
        self._said = Once(LINES)
        self._is_away = False

    def away(self, why: str) -> None:
        """The servers cannot be reached."""
        if not self._is_away:
            self._is_away = True
            self._said.clear()
        if self._said.is_new(why):
            _log.warn("NATS is away, and tried again: {why}", why=escape(why))

    def there(self, url: str, info: dict[str, Any]) -> None:
        """One of them is there, and has said this of itself."""
        self._is_away = False
        self._said.clear()
        server, version = info.get("server_name", ""), info.get("version", "")
        _log.info("NATS is there: {url}, {server} {version}", url=url, server=server, version=version)

    def failed(self, error: Exception) -> None:
        """Something has gone wrong on a connection, and that is not its end, which is told once."""
        from nats.errors import Error, StaleConnectionError

        if isinstance(error, (StaleConnectionError, OSError)):
            return
        why = escape(words(error)) if isinstance(error, Error) else format_exception(error)
        if "permissions violation" in why:
            why += " (nats-py has made capitals small)"
        if self._said.is_new(why):
            _log.warn("NATS: {why}", why=why)


def words(error: BaseException) -> str:
    """What has gone wrong, in one line."""
    text = " ".join(str(error).split()).removeprefix("nats: ")
    return text or ("it does not answer" if isinstance(error, TimeoutError) else type(error).__name__)
