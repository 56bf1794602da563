"""
Events: what happens in a server, by name and with measurements, as a contract. Logs, audit and metrics only listen.

::

    if MESSAGES_HANDLED:  # somebody listens; else nothing is measured
        MESSAGES_HANDLED(client=7, messages=16, queue_seconds=0.0, handler_seconds=0.0021)

    end = subscribe(subscriber, MESSAGES_HANDLED, CLIENT_REFUSED)  # subscriber(event, fields)
    end()

Laws:

* An event is false while nobody listens. To tell it then does nothing, so a cold path need not ask; a hot path, or one
  that would have to find something out for a field, asks first. (``if EVENT.subscribers``: 10 ns; ``if EVENT``: 40.)
* Subscribers are called at once, in the thread in which it happens: the loop's, but for :data:`JOURNAL_COMMITTED`. One
  that raises costs a line of the log, and nobody else hears of it.
* A subscriber that has subscribed twice is told once, and until both subscriptions have ended: two servers in one
  process do not log twice.
* Fields are numbers and text. What comes from a peer is escaped by whoever tells it
  (:func:`~mtserver.telemetry.escape.escape`); passwords, tokens and messages are never among them. A field may be
  missing where it is not known.
* Names of events and fields stay: new ones may come.

Knows neither Twisted nor who listens.
"""

from __future__ import annotations

from mtserver.telemetry.event import LEVELS as LEVELS  # noqa: PLC0414 - these four are for whoever knows the table
from mtserver.telemetry.event import Event as Event  # noqa: PLC0414
from mtserver.telemetry.event import Subscriber as Subscriber  # noqa: PLC0414
from mtserver.telemetry.event import subscribe as subscribe  # noqa: PLC0414

#: Every event by its name.
EVENTS: dict[str, Event] = {}


def _event(
    name: str, meaning: str, *, text: str = "", level: str = "info", audit: bool = False, **fields: str
) -> Event:
    event = EVENTS[name] = Event(name, meaning, fields, text=text, level=level, audit=audit)
    return event


_CLIENT = "the client's number since the server's start"
_PEER = "the client's address: host:port, [host]:port or unix:path"
_CODE = "the code on the wire"
_FILES = "their paths, separated by commas"
_MECHANISM = "how: EXTERNAL (a certificate), PLAIN, OAUTHBEARER, or empty for the handler's own"

# Clients.

CLIENT_CONNECTED = _event(
    "connected",
    "a connection was accepted, before TLS and authentication",
    client=_CLIENT,
    peer=_PEER,
    text="client {client} has come from {peer}",
    level="debug",
)
CLIENT_ADMITTED = _event(
    "admitted",
    "the handler is given a client, after TLS and authentication",
    client=_CLIENT,
    peer=_PEER,
    identity="who it has shown to be; empty where nobody asked",
    text="client {client} connected from {peer}[: {identity}]",
)
CLIENT_REFUSED = _event(
    "refused", "a newcomer was refused", peer=_PEER, code=_CODE, reason="the text on the wire", audit=True
)
CLIENT_CLOSED = _event(
    "closed",
    "a client was refused something and closed for it, by a limit or by the handler",
    client=_CLIENT,
    peer=_PEER,
    code=_CODE,
    reason="the text on the wire",
    audit=True,
)
CLIENT_DISCONNECTED = _event(
    "disconnected",
    "a connection has ended, whoever ended it; its handler may still be at work",
    client=_CLIENT,
    peer=_PEER,
    reason="why: the code it was refused with, or what has ended it in words",
    duration="seconds since it was accepted",
    messages="messages received",
    bytes="bytes received",
    messages_sent="messages sent",
    bytes_sent="bytes sent",
    text="client {client} from {peer} closed ({reason}) after {duration:.3f} s: received {messages} messages, "
    "{bytes} bytes; sent {messages_sent} messages, {bytes_sent} bytes",
)

# Messages.

MESSAGES_HANDLED = _event(
    "messages-handled",
    "the handler is done with messages of one client that it was given together",
    client=_CLIENT,
    messages="messages, answered or failed",
    queue_seconds="seconds that the oldest of what was held with them had waited when the handler began",
    handler_seconds="seconds from the handler's beginning to its end, its waits included",
    text="client {client}: {messages} messages waited {queue_seconds:.6f} s and took {handler_seconds:.6f} s",
    level="debug",
)
HANDLER_FAILED = _event(
    "handler-failed",
    "the handler has raised what is no refusal, or returned what cannot be sent",
    client=_CLIENT,
    traceback="the traceback, several lines",
    text="the handler of client {client} failed: {traceback}",
    level="error",
)
MESSAGE_UNFINISHED = _event(
    "message-unfinished",
    "a client has left in the middle of a message",
    client=_CLIENT,
    size="bytes of it that had come, and were discarded",
    text="client {client} left a message unfinished: {size} bytes discarded",
)
CLIENT_UNREAD = _event(
    "unread",
    "a client does not read, and is closed for it",
    client=_CLIENT,
    size="bytes that were held for it, and were dropped",
    text="client {client} does not read: {size} bytes of ours dropped",
)
THREADS_EXHAUSTED = _event(
    "threads-exhausted",
    "handlers that block have had all the threads for several seconds, and others wait",
    threads="threads there are",
    text="clients wait for a thread: all {threads} are busy with what blocks (--threads)",
    level="warn",
)
JOURNAL_COMMITTED = _event(
    "journal-committed",
    "the journal has stored messages, as durably as --ack says; told in the journal's own thread, if it has one",
    messages="messages stored together, those that were known already not counted",
    seconds="seconds that the commit has taken, or the stream to acknowledge them",
    text="the journal has committed {messages} messages in {seconds:.6f} s",
    level="debug",
)

# Authentication and TLS.

AUTHENTICATED = _event(
    "authenticated",
    "a client has shown who it is",
    client=_CLIENT,
    peer=_PEER,
    mechanism=_MECHANISM,
    identity="who it is",
    audit=True,
)
AUTHENTICATION_FAILED = _event(
    "authentication-failed",
    "a client has not, by what it said, in time, or at all",
    client=_CLIENT,
    peer=_PEER,
    mechanism=_MECHANISM,
    reason="why, in words that the client is not told",
    audit=True,
)
HANDSHAKE_FAILED = _event(
    "handshake-failed",
    "TLS was not agreed on, or not in time",
    peer=_PEER,
    reason="why, in our words or OpenSSL's",
    audit=True,
)
CERTIFICATE_RELOADED = _event(
    "certificate-reloaded",
    "a certificate, or whom to trust with one, was read anew: new connections have it",
    files=_FILES,
    audit=True,
)
CERTIFICATE_REFUSED = _event(
    "certificate-refused", "it could not be used; what was read before holds", files=_FILES, reason="why", audit=True
)
PASSWORDS_RELOADED = _event(
    "passwords-reloaded",
    "a file of password hashes was read anew",
    path="the file's path",
    users="users in it",
    audit=True,
)
PASSWORDS_REFUSED = _event(
    "passwords-refused",
    "it could not be read; what was read before holds",
    path="the file's path",
    reason="why",
    audit=True,
)
KEYS_RELOADED = _event(
    "keys-reloaded",
    "the keys that verify tokens were read or fetched anew",
    source="a path or a URL",
    keys="keys found there",
    audit=True,
)
KEYS_REFUSED = _event(
    "keys-refused",
    "their file could not be read; what was read before holds",
    source="the file's path",
    reason="why",
    audit=True,
)
KEYS_UNREACHABLE = _event(
    "keys-unreachable",
    "they could not be fetched; what was fetched before holds",
    source="the URL",
    reason="why",
    audit=True,
)
INTROSPECTION_FAILED = _event(
    "introspection-failed", "whether a token is good could not be asked", source="the URL", reason="why", audit=True
)

# The process.

START = _event(
    "start",
    "clients are served from now on",
    pid="the process's number",
    app="the app's name",
    ports="the addresses, separated by commas",
    audit=True,
)
ROOT = _event("root", "the server serves with root's privileges", pid="the process's number", audit=True)
DRAIN_BEGUN = _event(
    "drain-begun",
    "a stop has begun: the ports are closed, and what was received is answered",
    text="draining: the ports are closed, what was received is answered",
    level="debug",
)
DRAINED = _event(
    "drained",
    "the drain is over: the last handler is done, or its limit has cut off what was left",
    seconds="seconds since the drain began",
    text="drained in {seconds:.3f} s",
    level="debug",
)
STOP_CUT_OFF = _event(
    "stop-cut-off",
    "the drain limit was over before the drain",
    clients="clients that were not waited for",
    messages="messages of theirs that stay unanswered",
    text="the stop cut off {clients} clients, with {messages} messages unanswered",
    level="error",
)
STOP = _event(
    "stop",
    "the server has stopped",
    seconds="seconds that the stop has taken",
    cut_off="clients that were not waited for",
    audit=True,
)

# The audit log itself.

SUPPRESSED = _event(
    "suppressed",
    "more events of one kind than a minute may have; these were not recorded",
    kind="the name of the event",
    count="events not recorded",
    audit=True,
)
LOST = _event(
    "lost",
    "the file could not be written for a while; these were not recorded in it",
    count="events not recorded",
    audit=True,
)
