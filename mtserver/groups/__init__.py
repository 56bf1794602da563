"""
Groups: clients that are sent the same messages, on this node and on others.

::

    await client.join("room", label="bob")
    await client.app.group("room").send("hello", exclude=client)
    for member in client.app.group("room").members(): ...
    await client.leave("room")

Laws, the same wherever the members are (``--groups``):

* Messages of one sender to one group reach each member in the order in which they were sent, each once.
* A member gets the messages sent after ``join`` has returned, and none sent after ``leave`` has.
* A message reaches every member on the same node; one that reads too slowly is treated as ``--send-buffer`` and
  ``--send-timeout`` say. Delivery to other nodes is at most once: while the nodes cannot reach each other
  (``connected`` is False), members there miss messages, which are counted and logged.
* A sender chooses what becomes of a message for which there is no room, here or on the way to other nodes:
  ``full="drop"`` (the default) never makes it wait, ``full="wait"`` makes it wait for room. Slow members of other nodes
  are the business of those nodes.
* Any text of 1 to 128 characters is the name of a group, and no more than a name.
"""

from __future__ import annotations

from mtserver.errors import ConfigurationError
from mtserver.groups.groups import NAME_SIZE, Change, Groups, Member, Recipient, check_label, check_name
from mtserver.groups.memory import MemoryGroups
from mtserver.nats import check_nats, check_reactor, is_address
from mtserver.settings import Settings

__all__ = [
    "NAME_SIZE",
    "Change",
    "Groups",
    "Member",
    "Recipient",
    "check_groups",
    "check_label",
    "check_name",
    "open_groups",
]


def check_groups(settings: Settings) -> None:
    """Raise :class:`~mtserver.errors.ConfigurationError` for a ``--groups`` that is wrong, or needs another reactor."""
    described = f"--groups {settings.groups}"
    if is_address(settings.groups):
        check_nats(described, settings)
        check_reactor(described)
    elif settings.groups != "memory:":
        raise ConfigurationError(f"{described}: neither memory: nor of the form nats://HOST:4222[,HOST:4222...]")


def open_groups(settings: Settings) -> Groups:
    """Make the groups that ``--groups`` names."""
    if settings.groups == "memory:":
        return MemoryGroups(settings.max_groups)
    from mtserver.groups.nats import NatsGroups  # 10 ms to import, and only for several nodes

    return NatsGroups(settings.max_groups, check_nats(f"--groups {settings.groups}", settings))
