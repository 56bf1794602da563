"""The example that needs a server behind it, with one."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .server import Server

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class TestRelay(SynchronousTestCase):
    def test_relay(self) -> None:
        """Streams of asyncio work inside a handler: a message goes to the server behind, and its answer comes back."""
        relay = {"relay": (EXAMPLES / "relay.py").read_text()}
        with Server("--app", "echo") as behind:
            upstream = {"UPSTREAM": f"127.0.0.1:{behind.numbers[0]}"}
            front = Server("--app", "relay:relay", modules=relay, environment=upstream)
            with front as server, server.connect() as peer:
                self.assertEqual(peer.exchange(b"hello", b"again"), [b"hello", b"again"])

    def test_nobody_behind(self) -> None:
        """Without one, the client is told so, and when to try again."""
        relay = {"relay": (EXAMPLES / "relay.py").read_text()}
        nobody = {"UPSTREAM": "127.0.0.1:1"}
        with Server("--app", "relay:relay", modules=relay, environment=nobody) as server, server.connect() as peer:
            expected = b"ERR unavailable retry-after=5 the server behind does not answer"
            self.assertEqual(peer.exchange(b"hello"), [expected])
