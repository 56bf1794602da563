"""Nothing a peer sends can forge a line of the log, or drive the terminal that shows it."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from .peer import DEADLINE, Peer
from .server import Server

NASTY = b"\x1b[31mred\rover\0\x07\x7f\xc2\x9b2J\xe2\x80\xa8forged\tline\\"
#: Everything that is not printable, but the newline at the end of a line and the tab.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

RAISING = {
    "raising": """
        from twisted.logger import Logger

        async def loop(client, message: bytes) -> bytes:
            raise ValueError(message.decode())

        def thread(client, message: bytes) -> bytes:
            raise ValueError(message.decode())

        async def careless(client, message: bytes) -> None:
            Logger("careless").info("it says {text}", text=message.decode())
            client.close()
    """
}


class TestEscape(SynchronousTestCase):
    def _log_of(self, *options: str, message: bytes) -> str:
        with Server(*options, modules=RAISING) as server:
            with server.connect() as peer:
                peer.send(message)
                peer.finish()
                peer.rest()
            server.wait_for_log("client 1 from .* closed")
            self.assertIsNone(RAW.search(server.log_bytes.decode()), server.log)
            self.assertIn(r"\x1b[31mred", server.log.replace(r"\\", "\\").replace(r"\u001b", r"\x1b"))
            return server.log

    def test_log_app(self) -> None:
        """``--app log``: one line per message, all that is not printable shown as an escape."""
        log = self._log_of("--app", "log", message=NASTY + b"\nnext\n")
        self.assertEqual(len(re.findall("Received ", log)), 2)
        self.assertIn("Received next from client 1\n", log)

    def test_newlines_in_a_message(self) -> None:
        """With a framing that carries newlines, a message with some is one line all the same."""
        with Server("--app", "log", "--framing", "int32") as server:
            with server.connect() as peer:
                text = b"one\n2030-01-01T00:00:00+0000 [mtserver#info] forged\r\n"
                peer.send(len(text).to_bytes(4, "big") + text)
                peer.finish()
                peer.rest()
            server.wait_for_log("client 1 from .* closed")
            self.assertIsNone(re.search("^2030-", server.log, re.MULTILINE))
            self.assertIn(r"Received one\n2030", server.log)

    def test_exceptions(self) -> None:
        """A handler that raises ``ValueError(message.decode())``, in the loop or in a thread."""
        for kind in ("loop", "thread"):
            log = self._log_of("--app", f"raising:{kind}", message=NASTY + b"\n")
            self.assertRegex(log, r"ValueError: \\x1b\[31mred\\rover")

    def test_exceptions_in_json(self) -> None:
        """The same with ``--log-format json``."""
        self._log_of("--app", "raising:loop", "--log-format", "json", message=NASTY + b"\n")

    def test_careless_handler(self) -> None:
        """A handler that logs a message as it came."""
        self._log_of("--app", "raising:careless", message=NASTY + b"\n")

    def test_unix_peer(self) -> None:
        """The address of a UNIX client is its choice too."""
        import socket

        with Server("--app", "echo", ports=["unix:s.sock"]) as server:
            connection = socket.socket(socket.AF_UNIX)
            with Peer(connection) as peer:
                connection.settimeout(DEADLINE)
                connection.bind(str(server.folder / "peer\x1b[31mred\nforged"))
                connection.connect(str(server.folder / "s.sock"))
                self.assertEqual(peer.exchange(b"a"), [b"a"])
            server.wait_for_log("client 1 from .* closed")
            self.assertIsNone(RAW.search(server.log))
            self.assertIsNone(re.search("^forged", server.log, re.MULTILINE))
