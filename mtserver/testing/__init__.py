"""
Testing a handler: the real server on fake transports and a clock that the test moves. No socket, no thread, no waiting.

::

    from mtserver.testing import Harness

    def test_shout():
        harness = Harness(shout)
        client = harness.connect()
        client.send(b"hello")
        assert client.received == [b"HELLO"]
        harness.advance(601)
        assert client.disconnected

A typed handler's messages are values: what is sent is encoded, what is received is what a client that knows no types
makes of it. (Bytes are sent as they are: that is how to try what no such client would send.) ::

    client.send(Reading(21.5), {"celsius": "warm"})
    assert client.received[0] == {"mean": 21.5}
    assert client.received[1]["error"] == "bad-message"

Everything runs inside the calls of the harness: when one returns, all that could happen has happened. A plain ``def``
handler, ``to_thread`` and ``to_process`` run in place. ``async def`` handlers may await Deferreds and asyncio's
awaitables; ``asyncio.sleep`` and ``asyncio.timeout`` follow the harness's clock. (Real sockets cannot be awaited here.)

With pytest, the fixture ``harness`` (:mod:`mtserver.testing.pytest_plugin`) makes them, and stops them after the test::

    def test_shout(harness):
        client = harness(shout, max_message=100).connect()
"""

from mtserver.testing.harness import Harness, HarnessClient

__all__ = ["Harness", "HarnessClient"]
