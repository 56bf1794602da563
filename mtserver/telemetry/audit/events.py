"""
The security events there are, and what is known of each: a contract, which ``docs/audit.md`` explains.

A field may be missing where it is not known. Each line of the file has ``time`` and ``event`` in front of these.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One kind of event."""

    #: When it is recorded.
    meaning: str
    #: What is known of it, in the order of the line.
    fields: tuple[str, ...]


EVENTS: dict[str, Event] = {
    "start": Event("clients are served from now on", ("pid", "app", "ports")),
    "root": Event("the server serves with root's privileges", ("pid",)),
    "stop": Event("the server has stopped", ("seconds", "cut_off")),
    "refused": Event("a newcomer was refused", ("peer", "code", "reason")),
    "closed": Event(
        "a client was refused something and closed for it, by a limit or by the handler",
        ("client", "peer", "code", "reason"),
    ),
    "authenticated": Event("a client has shown who it is", ("client", "peer", "mechanism", "identity")),
    "authentication-failed": Event(
        "a client has not, by what it said, in time, or at all", ("client", "peer", "mechanism", "reason")
    ),
    "handshake-failed": Event("TLS was not agreed on, or not in time", ("peer", "reason")),
    "certificate-reloaded": Event(
        "a certificate, or whom to trust with one, was read anew: new connections have it", ("files",)
    ),
    "certificate-refused": Event("it could not be used; what was read before holds", ("files", "reason")),
    "passwords-reloaded": Event("a file of password hashes was read anew", ("path", "users")),
    "passwords-refused": Event("it could not be read; what was read before holds", ("path", "reason")),
    "keys-reloaded": Event("the keys that verify tokens were read or fetched anew", ("source", "keys")),
    "keys-refused": Event("their file could not be read; what was read before holds", ("source", "reason")),
    "keys-unreachable": Event("they could not be fetched; what was fetched before holds", ("source", "reason")),
    "introspection-failed": Event("whether a token is good could not be asked", ("source", "reason")),
    "suppressed": Event("more events of one kind than a minute may have; these were not recorded", ("kind", "count")),
    "lost": Event("the file could not be written for a while; these were not recorded in it", ("count",)),
}
