"""
NATS: a connection to a cluster of its servers that mends itself, for those who build on it.

::

    check_reactor("--groups nats://a:4222,b:4222/rooms")
    address = check_nats("--groups nats://a:4222,b:4222/rooms", settings)
    link = Link(address, "mtserver node x")
    link.watch(up, down)
    await link.open()
    link.subscribe("some.subject", heard)
    await link.client.publish("some.subject", b"...")      # while there is a client

Laws:

* What an operator has written wrongly is found before anything is opened; that the servers are away is not his
  mistake: the link is down, and comes up by itself.
* Nothing is sent late: what the connection held when it was lost is lost, and whoever cares sends it again.
* Only the servers that were named are ever talked to, over TLS only if it says ``tls://``, and with the credentials
  and authorities that the files have at that time.
* What was subscribed to is subscribed to, before ``up`` is called, on each new connection.
* Losing the servers is logged once, with each reason once, and finding them again is, too. No secret is.

It knows nothing of what is said over it.
"""

from __future__ import annotations

from mtserver.nats.address import Address, is_address, parse_address
from mtserver.nats.checks import check_nats, check_reactor
from mtserver.nats.link import Heard, Link, Subject
from mtserver.nats.link_log import words

__all__ = ["Address", "Heard", "Link", "Subject", "check_nats", "check_reactor", "is_address", "parse_address", "words"]
