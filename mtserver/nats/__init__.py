"""
NATS: a link to a cluster of its servers that mends itself, for groups and for the journal.

::

    check_reactor("--groups nats://a:4222,b:4222/rooms")
    address = check_nats("--groups nats://a:4222,b:4222/rooms", settings)
    link = Link(address, "mtserver node x")
    link.watch(up, down)
    await link.open()
    link.subscribe("some.subject", callback)
    await link.client.publish("some.subject", b"...")      # while there is a client

Laws:

* Mistakes of the operator are found before anything is opened. Servers that are away are no mistake: the link is down,
  and comes up by itself.
* Nothing is sent late: bytes that a connection holds when it is lost are lost, and its users send again what matters.
* Only servers that were named are ever connected to, over TLS only where the address says ``tls://``, and with the
  credentials and authorities that are in the files at that time.
* Each new connection has all subscriptions before ``up`` is called.
* The loss of the servers is logged once, with each reason once; so is their return. No secret is logged.

Nothing here knows the meaning of the messages.
"""

from __future__ import annotations

from mtserver.nats.address import Address, is_address, parse_address
from mtserver.nats.checks import check_nats, check_reactor
from mtserver.nats.link import Link
from mtserver.nats.link_log import words
from mtserver.nats.subscription import MessageCallback, Subscription

__all__ = [
    "Address",
    "Link",
    "MessageCallback",
    "Subscription",
    "check_nats",
    "check_reactor",
    "is_address",
    "parse_address",
    "words",
]
