"""Testing a handler without a socket or a pause: pytest examples/test_till.py"""

from till import Till

from mtserver.testing import Harness


def test_sum() -> None:
    client = Harness(Till).connect()
    client.send("1", "2", "x", "3")
    assert client.received == ["send me numbers", "1", "3", "ERR bad-message not a whole number", "6"]


def test_each_client_has_its_own() -> None:
    harness = Harness(Till)
    first, second = harness.connect(), harness.connect()
    first.send("100")
    second.send("1")
    assert second.received[-1] == "1"


def test_idle_clients_are_told() -> None:
    harness = Harness(Till, idle_timeout=60)
    client = harness.connect()
    harness.advance(61)
    assert client.disconnected
    assert client.received[-1] == "ERR idle nothing heard for 60 seconds"
