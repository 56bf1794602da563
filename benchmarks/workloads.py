"""
What is measured: the servers, the workloads, and the bars that mtserver has set itself.

Tables only. A command is a template: :data:`PORTS` and what :func:`benchmarks.servers.find_tools` has found are put
in; it runs in an empty folder of its own, with the certificate and :data:`benchmarks.protocols.FILES` one folder up.
"""

from __future__ import annotations

import shlex
import string
from dataclasses import dataclass, replace

#: Free ones, for a server and for what runs beside it.
PORTS = ("port", "other_port", "nats_port")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a new server is asked before it is measured, and how its answer begins."""

    question: bytes
    answer: bytes
    tls: bool = False


LINE = Probe(b"are you there\n", b"are you there\n")
TLS = replace(LINE, tls=True)
STORED = Probe(b"are you there\n", b"OK 1\n")
PING = Probe(b"PING\r\n", b"+PONG\r\n")


@dataclass(frozen=True, slots=True)
class Beside:
    """What a server does not work without, on the same core."""

    command: str
    #: The one of :data:`PORTS` at which it takes connections once it is ready.
    port: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One server in one workload."""

    server: str
    command: str
    probe: Probe | None = LINE
    #: More options for the load generator, a template too; they win over the workload's.
    load: str = ""
    #: What a reader should know of this one.
    note: str = ""
    #: Started before it, in this order, and ended after it.
    beside: tuple[Beside, ...] = ()

    def tools(self) -> set[str]:
        """The names in the templates that something must be found for."""
        commands = "".join([self.command, *(beside.command for beside in self.beside)])
        return {name for _, name, _, _ in string.Formatter().parse(commands) if name} - set(PORTS)


def words(command: str, values: dict[str, str]) -> list[str]:
    """A template with its values."""
    return [word.format_map(values) for word in shlex.split(command)]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a workload is judged by."""

    #: The name in the load generator's report.
    key: str
    unit: str
    less_is_better: bool = False
    #: Further values worth a column: (name in the report, heading).
    more: tuple[tuple[str, str], ...] = ()
    #: Compared with the first server by what is more, not by a ratio.
    by_difference: bool = False


RATE = Metric("rate", "messages/s", more=(("p50", "p50, µs"), ("p99", "p99, µs")))
DELIVERIES = Metric("rate", "deliveries/s", more=(("p50", "p50, µs"), ("p99", "p99, µs")))
CONNECTIONS = Metric("rate", "connections/s")
DELIVERED = Metric(
    "p50",
    "p50, µs",
    less_is_better=True,
    more=(("p99", "p99, µs"), ("rate", "deliveries/s"), ("server_cpu", "of its core")),
    by_difference=True,
)
MEMORY = Metric("bytes", "bytes per client", less_is_better=True, more=(("clients", "clients"),))
LATENCY = Metric(
    "p99",
    "p99, µs",
    less_is_better=True,
    more=(("p50", "p50, µs"), ("p999", "p99.9, µs"), ("rate", "messages/s"), ("server_cpu", "of its core")),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """
    A load, and the servers that it is put on.

    The first entry is the one of mtserver that the others are compared with.
    """

    name: str
    title: str
    #: The load generator's options; ``{seconds}``, ``{warmup}`` and ``{rate}`` are put in.
    load: str
    metric: Metric
    entries: tuple[Entry, ...]
    #: Waits for the disk: needs a real one.
    durable: bool = False

    @property
    def baseline(self) -> str:
        return self.entries[0].server

    @property
    def at_half_rate(self) -> bool:
        """Offered half of what the first entry reaches when nothing but its replies holds the load back."""
        return "{rate}" in self.load


@dataclass(frozen=True, slots=True)
class Bar:
    """
    A promise about `server` in one workload: its value divided by that of `than`, or the value itself.

    `wanted` is the least, or the most where the workload's metric is better small.
    """

    workload: str
    server: str
    than: str | None
    wanted: float


#: Names of servers in tables, and the module that each needs beside the standard library, if any.
SERVERS = {
    "mtserver": ("mtserver", ""),
    "mtserver-epoll": ("mtserver, `--reactor=epoll`", ""),
    "mtserver-async": ("mtserver, `async def`", ""),
    "mtserver-def": ("mtserver, `def` in threads", ""),
    "mtserver-batch": ("mtserver, `received_batch`", ""),
    "mtserver-group": ("mtserver, a group", ""),
    "mtserver-broadcast": ("mtserver, `broadcast`", ""),
    "mtserver-node": ("mtserver, all on one of two nodes", "nats"),
    "mtserver-nodes": ("mtserver, from one node to the other", "nats"),
    "go": ("Go, a goroutine per client", ""),
    "c": ("C, epoll", ""),
    "redis": ("Redis, AOF `always`", ""),
    "nats": ("nats-server", ""),
    "mosquitto": ("mosquitto, QoS 0", ""),
    "twisted": ("Twisted `LineReceiver`, epoll", "twisted"),
    "asyncio-streams": ("asyncio streams", ""),
    "uvloop-streams": ("asyncio streams, uvloop", "uvloop"),
    "asyncio-protocol": ("asyncio Protocol", ""),
    "asyncio-protocol-malloc": ("asyncio Protocol, malloc tuned", ""),
    "uvloop-protocol": ("asyncio Protocol, uvloop", "uvloop"),
    "gevent": ("gevent", "gevent"),
    "threads": ("a thread per client", ""),
    "socketserver": ("`socketserver`, threads", ""),
}

_TWISTD = "{twistd} -n --pidfile= mtserver --port tcp:{port}:interface=127.0.0.1"
_EPOLL = _TWISTD.replace("--pidfile=", "--pidfile= --reactor=epoll")
_PEER = "{python} -m benchmarks.peers"
_CERTIFICATE = "--cert ../cert.pem --key ../key.pem"

_GO = Entry("go", "{go} echo {port}")
_C = Entry("c", "{echo_epoll} {port}")
_TWISTED = Entry("twisted", f"{_PEER}.twisted_lines {{port}}")
_STREAMS = Entry("asyncio-streams", f"{_PEER}.asyncio_streams {{port}}")
_UVLOOP_STREAMS = Entry("uvloop-streams", f"{_PEER}.asyncio_streams {{port}} --uvloop")
_PROTOCOL = Entry("asyncio-protocol", f"{_PEER}.asyncio_protocol {{port}}")
_UVLOOP_PROTOCOL = Entry("uvloop-protocol", f"{_PEER}.asyncio_protocol {{port}} --uvloop")
_GEVENT = Entry("gevent", f"{_PEER}.gevent_sockets {{port}}")
_THREADS = Entry("threads", f"{_PEER}.threads {{port}}")
_MTSERVER = Entry("mtserver", f"{_TWISTD} --app echo")
_MTSERVER_EPOLL = Entry("mtserver-epoll", f"{_EPOLL} --app echo")

ECHO = (
    _MTSERVER,
    _MTSERVER_EPOLL,
    _GO,
    _C,
    _UVLOOP_PROTOCOL,
    Entry("asyncio-protocol-malloc", f"{_PEER}.asyncio_protocol {{port}} --malloc"),
    _PROTOCOL,
    _UVLOOP_STREAMS,
    _STREAMS,
    _TWISTED,
    _GEVENT,
    _THREADS,
    Entry("socketserver", f"{_PEER}.threading_server {{port}}"),
)
_BATCH = Entry("mtserver-batch", f"{_TWISTD} --app benchmarks.handlers:EchoBatch")
ASYNC = (
    Entry("mtserver-async", f"{_TWISTD} --app benchmarks.handlers:echo"),
    _BATCH,
    _GO,
    _UVLOOP_STREAMS,
    _STREAMS,
    _GEVENT,
)
DEF = (Entry("mtserver-def", f"{_TWISTD} --app benchmarks.handlers:echo_in_thread"), _GO, _THREADS)
ENCRYPTED = (
    Entry(
        "mtserver",
        "{twistd} -n --pidfile= mtserver --app echo"
        " --port ssl:{port}:interface=127.0.0.1:privateKey=../key.pem:certKey=../cert.pem",
        TLS,
    ),
    Entry("go", "{go} tls {port} ../cert.pem ../key.pem", TLS),
    Entry("uvloop-protocol", f"{_UVLOOP_PROTOCOL.command} {_CERTIFICATE}", TLS),
    Entry("asyncio-protocol", f"{_PROTOCOL.command} {_CERTIFICATE}", TLS),
    Entry("twisted", f"{_TWISTED.command} {_CERTIFICATE}", TLS),
)
SLEEPING = (
    Entry("mtserver-async", f"{_TWISTD} --app benchmarks.handlers:sleep"),
    Entry(
        "mtserver-def",
        f"{_TWISTD} --app benchmarks.handlers:sleep_in_thread --threads 64",
        note="`--threads 64`: 64 at once can sleep, 1,280 messages/s at most",
    ),
    Entry("go", "{go} sleep {port} 0.05"),
    Entry("uvloop-streams", f"{_UVLOOP_STREAMS.command} --sleep 0.05"),
    Entry("asyncio-streams", f"{_STREAMS.command} --sleep 0.05"),
    Entry("gevent", f"{_GEVENT.command} --sleep 0.05"),
    Entry("threads", f"{_THREADS.command} --sleep 0.05"),
)
DURABLE = (
    Entry("mtserver", _TWISTD, STORED, load="--expect OK"),
    Entry(
        "redis",
        "{redis} --bind 127.0.0.1 --port {port} --save '' --appendonly yes --appendfsync always --dir .",
        PING,
        load="--request rpush.resp --expect :",
    ),
)
_GROUP = Entry("mtserver-group", f"{_TWISTD} --app benchmarks.handlers:Room", None)
FAN_OUT = (
    _GROUP,
    Entry("mtserver-broadcast", f"{_TWISTD} --app benchmarks.handlers:broadcast", None),
    Entry("go", "{go} fanout {port}", None),
    Entry("uvloop-protocol", f"{_PEER}.asyncio_fanout {{port}} --uvloop", None),
    Entry("asyncio-protocol", f"{_PEER}.asyncio_fanout {{port}}", None),
    Entry(
        "nats",
        "{nats_server} --addr 127.0.0.1 --port {port}",
        None,
        load="--prelude nats.subscribe --prelude-end nats.ready"
        " --publisher-prelude nats.publisher --publisher-prelude-end nats.ready"
        " --request nats.publish --delivery nats.delivery",
    ),
    Entry(
        "mosquitto",
        "{mosquitto} -c ../mosquitto.conf -p {port}",
        None,
        load="--prelude mqtt.subscribe --prelude-end mqtt.subscribed"
        " --publisher-prelude mqtt.publisher --publisher-prelude-end mqtt.connected --request mqtt.publish",
    ),
)
# Two nodes and what connects them. What runs is the same; where the publisher is differs.
_ON_NATS = f"{_GROUP.command} --groups nats://127.0.0.1:{{nats_port}}"
_NODE = Entry(
    "mtserver-node",
    _ON_NATS,
    None,
    beside=(
        Beside("{nats_server} --addr 127.0.0.1 --port {nats_port} --jetstream --store_dir jetstream", "nats_port"),
        Beside(_ON_NATS.replace("{port}", "{other_port}"), "other_port"),
    ),
)
NODES = (_NODE, replace(_NODE, server="mtserver-nodes", load="--publisher-port {other_port}"))
IDLE = (
    _MTSERVER,
    _MTSERVER_EPOLL,
    _GO,
    _C,
    _UVLOOP_PROTOCOL,
    _PROTOCOL,
    _STREAMS,
    _TWISTED,
    _GEVENT,
    replace(_THREADS, load="--clients 2000", note="2,000 clients: a thread each"),
)
CONNECTING = (_MTSERVER, _MTSERVER_EPOLL, _GO, _C, _UVLOOP_PROTOCOL, _STREAMS, _TWISTED, _GEVENT, _THREADS)
WAITING = (
    _MTSERVER,
    _MTSERVER_EPOLL,
    _GO,
    _C,
    _UVLOOP_PROTOCOL,
    _PROTOCOL,
    _UVLOOP_STREAMS,
    _STREAMS,
    _TWISTED,
    _GEVENT,
    _THREADS,
)
_TIMED = "--seconds {seconds} --warmup {warmup}"
#: A second, where latency is compared: so few that it is not that of a queue.
BURSTS = 50


def _closed(name: str, what: str, clients: int, depth: int, entries: tuple[Entry, ...], *more: str) -> Workload:
    """A closed loop: each client has `depth` messages under way and sends one for each reply."""
    plural = "s" if clients > 1 else ""
    load = " ".join([f"echo --clients {clients} --depth {depth}", _TIMED, *more])
    title = f"{what}, {clients:,} client{plural}, {depth} in flight"
    return Workload(f"{name}-{clients}x{depth}", title, load, RATE, entries)


def _fan_out(burst: int) -> Workload:
    what = f"bursts of {burst}" if burst > 1 else "one message in a burst"
    load = f"fanout --subscribers 1000 --burst {burst} {_TIMED}"
    return Workload(f"fanout-1000x{burst}", f"Fan-out to 1,000 clients, {what}", load, DELIVERIES, FAN_OUT)


def _nodes(burst: int) -> Workload:
    what = f"a burst of {burst}" if burst > 1 else "a message"
    title = f"Latency across two nodes, {what} to 1,000 clients, {BURSTS} times a second"
    load = f"fanout --subscribers 1000 --burst {burst} --rate {burst * BURSTS} {_TIMED}"
    return Workload(f"nodes-latency-1000x{burst}", title, load, DELIVERED, NODES)


def _durable(depth: int) -> Workload:
    return replace(_closed("collect", "Durable `collect`", 100, depth, DURABLE), durable=True)


WORKLOADS = (
    *(_closed("echo", "Echo", clients, depth, ECHO) for clients in (1, 50, 1000) for depth in (1, 16)),
    *(_closed("tls", "Echo over TLS", 50, depth, ENCRYPTED, "--tls") for depth in (1, 16)),
    *(_closed("async", "`async def` handler", 50, depth, ASYNC) for depth in (1, 16)),
    *(_closed("def", "`def` handler in threads", 50, depth, DEF) for depth in (1, 16)),
    _closed("sleep", "A handler that waits 50 ms", 1000, 1, SLEEPING),
    _durable(1),
    _durable(16),
    _fan_out(1),
    _fan_out(16),
    Workload(
        "nodes-1000x16",
        "Fan-out across two nodes to 1,000 clients, bursts of 16",
        f"fanout --subscribers 1000 --burst 16 {_TIMED}",
        DELIVERIES,
        NODES,
    ),
    _nodes(1),
    _nodes(16),
    Workload("idle", "Memory of an idle client, 9,000 of them", "idle --clients 9000", MEMORY, IDLE),
    Workload("connect", "New connections", f"connect --clients 50 {_TIMED}", CONNECTIONS, CONNECTING),
    Workload(
        "latency",
        "Latency at half load, 50 clients",
        f"echo --clients 50 --depth 1 --rate {{rate}} {_TIMED}",
        LATENCY,
        WAITING,
    ),
)

BARS = (
    Bar("echo-50x1", "mtserver", "go", 0.90),
    Bar("echo-50x1", "mtserver", "c", 0.65),
    Bar("echo-50x1", "mtserver", "twisted", 3),
    Bar("echo-50x16", "mtserver", "go", 0.70),
    Bar("echo-50x16", "mtserver", "asyncio-streams", 5),
    Bar("async-50x16", "mtserver-async", "go", 0.50),
    Bar("def-50x16", "mtserver-def", "go", 0.40),
    Bar("tls-50x1", "mtserver", "go", 0.75),
    Bar("tls-50x1", "mtserver", "twisted", 3),
    Bar("collect-100x16", "mtserver", "redis", 0.60),
    Bar("fanout-1000x16", "mtserver-group", "go", 1),
    Bar("fanout-1000x16", "mtserver-broadcast", "go", 1),
    Bar("idle", "mtserver", None, 2000),
    Bar("latency", "mtserver", "go", 1.5),
)


def names_in_bars(workload: str) -> set[str]:
    """The servers of a workload that a bar speaks of."""
    return {name for bar in BARS if bar.workload == workload for name in (bar.server, bar.than) if name}


def choose(only: list[str], servers: list[str], *, quick: bool = False) -> list[Workload]:
    """
    The workloads to run, each with the servers to run in it.

    :param only: names of workloads or of their families (``echo`` for ``echo-50x1``); empty: all.
    :param servers: names of servers; empty: all. A workload that none of them is in is left out.
    :param quick: of each workload only the first server, Go or Redis, and those that a bar speaks of.
    """
    for name in only:
        if not any(_is_called(workload, name) for workload in WORKLOADS):
            raise ValueError(f"no workload is called {name}")
    for name in servers:
        if name not in SERVERS:
            raise ValueError(f"no server is called {name}")
    chosen = []
    for workload in WORKLOADS:
        if only and not any(_is_called(workload, name) for name in only):
            continue
        wanted = set(servers) or {entry.server for entry in workload.entries}
        if quick and not servers:
            wanted &= {workload.baseline, "go", "redis"} | names_in_bars(workload.name)
        entries = tuple(entry for entry in workload.entries if entry.server in wanted)
        if entries:
            chosen.append(replace(workload, entries=entries))
    return chosen


def _is_called(workload: Workload, name: str) -> bool:
    return workload.name == name or workload.name.startswith(f"{name}-")
