"""Log lines about a link: the servers are away, there again, or refuse something; each once."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from mtserver.telemetry.escape import escape
from mtserver.telemetry.logs import format_exception
from mtserver.telemetry.rate_limit import Once

#: Most different lines about one connection, or one absence of the servers.
LINES = 20

_log = Logger("mtserver.nats")


class LinkLog:
    """The log of one link."""

    def __init__(self) -> None:
        #: Lines logged about this absence, or about this connection.
        self._logged = Once(LINES)
        self._is_away = False

    def away(self, why: str) -> None:
        """Log that the servers cannot be reached."""
        if not self._is_away:
            self._is_away = True
            self._logged.clear()
        if self._logged.is_new(why):
            _log.warn("NATS is away, and tried again: {why}", why=escape(why))

    def there(self, url: str, info: dict[str, Any]) -> None:
        """Log that a server is there."""
        self._is_away = False
        self._logged.clear()
        server, version = info.get("server_name", ""), info.get("version", "")
        _log.info("NATS is there: {url}, {server} {version}", url=url, server=server, version=version)

    def failed(self, error: Exception) -> None:
        """Log an error on a connection that is not its end."""
        from nats.errors import Error, StaleConnectionError  # nats-py is an extra

        if isinstance(error, (StaleConnectionError, OSError)):
            return
        why = escape(words(error)) if isinstance(error, Error) else format_exception(error)
        if "permissions violation" in why:
            why += " (nats-py has made capitals small)"
        if self._logged.is_new(why):
            _log.warn("NATS: {why}", why=why)


def words(error: BaseException) -> str:
    """Write an error in one line, without nats-py's prefix."""
    text = " ".join(str(error).split()).removeprefix("nats: ")
    return text or ("it does not answer" if isinstance(error, TimeoutError) else type(error).__name__)
