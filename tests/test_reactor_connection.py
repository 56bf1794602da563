"""
An accepted connection over real sockets: what Twisted promises its protocols, and in which order.

The same tests run on Twisted's own epoll reactor. They would be wrong if they asked more of ours than of that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import ssl
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    ILoggingContext,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.trial.unittest import SynchronousTestCase

from mtserver.transport.reactor.accepted_socket import pack_address, unpack_address
from tests import DEADLINE
from tests.connectioncase import MORE_THAN_THE_KERNEL_TAKES, Case, Client, HalfCloseable, Producer, Server
from tests.integration.certificates import write_certificate
from tests.uvcase import OnUV


class Writing:
    """Promises of writing."""

    def test_when_made(self: Any) -> None:
        """Bytes written in connectionMade arrive, in order and as one segment."""

        def made(server: Server) -> None:
            server.transport.write(b"one ")
            server.transport.writeSequence([b"two ", b"three "])
            server.transport.write(b"")
            server.transport.write(b"four")

        _, client = self.pair(made=made)
        self.until(lambda: client.received == b"one two three four")
        self.assertEqual(client.segments(), 1)

    def test_when_received(self: Any) -> None:
        """Bytes written in dataReceived arrive, and more of them when those have."""
        _, client = self.pair(data=lambda server: server.transport.write(server.received))
        client.send(b"ab")
        self.until(lambda: client.received == b"ab")
        client.send(b"c")
        self.until(lambda: client.received == b"ababc")

    def test_text(self: Any) -> None:
        """Text is no bytes; nothing of it is sent, and the connection goes on."""
        server, client = self.pair()
        self.assertRaises(TypeError, server.transport.write, "text")
        self.assertRaises(TypeError, server.transport.writeSequence, ["text"])
        server.transport.write(b"bytes")
        self.until(lambda: client.received == b"bytes")

    def test_slow_reader(self: Any) -> None:
        """Ended by loseConnection, it ends when all is sent, however long that takes; and not by RST."""
        server, client = self.pair()
        client.reading = False
        server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))
        server.transport.loseConnection()
        self.turns()
        self.assertEqual(server.told, ["made"])
        self.assertTrue(server.transport.disconnecting)
        client.reading = True
        self.until(lambda: client.ended and server.lost)
        self.assertEqual(len(client.received), MORE_THAN_THE_KERNEL_TAKES)
        self.assertFalse(client.reset)
        self.assertEqual(server.told, ["made", "lost"])
        server.reasons[0].trap(ConnectionDone)

    def test_after_lose_connection(self: Any) -> None:
        """Bytes written after loseConnection, while others wait to be sent, are sent; later they are not."""

        def data(server: Server) -> None:
            server.transport.write(b"before ")
            server.transport.loseConnection()
            server.transport.write(b"after")
            server.transport.writeSequence([b" ", b"all"])

        server, client = self.pair(data=data, lost=lambda server: server.transport.write(b"too late"))
        client.send(b"x")
        self.until(lambda: client.ended)
        self.assertEqual(client.received, b"before after all")
        self.until(lambda: server.lost)
        server.transport.write(b"too late")
        server.transport.writeSequence([b"too late"])

    def test_lose_connection_when_made(self: Any) -> None:
        """Ended in connectionMade: what was written arrives, nothing is received."""

        def made(server: Server) -> None:
            server.transport.loseConnection()
            server.transport.write(b"full")

        self.listen(made=made)
        client = self.connect()
        client.send(b"hello")
        self.until(lambda: client.ended)
        self.assertEqual(client.received, b"full")
        self.until(lambda: self.servers[0].lost)
        self.assertEqual(self.servers[0].told, ["made", "lost"])

    def test_lose_connection_stops_reading(self: Any) -> None:
        """After loseConnection nothing is received any more, even if resumeProducing is called."""

        def data(server: Server) -> None:
            server.transport.loseConnection()
            server.transport.resumeProducing()

        server, client = self.pair(data=data)
        client.reading = False
        server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))
        client.send(b"one")
        self.until(lambda: server.received)
        client.send(b"two")
        self.turns()
        self.assertEqual(server.received, b"one")


def _switch(server: Server, calls: str) -> None:
    """Pause and resume in the order of letters."""
    for call in calls:
        {"p": server.transport.pauseProducing, "r": server.transport.resumeProducing}[call]()


class Reading:
    """Promises of being told what the peer sends, or not yet."""

    def _made(self: Any, **acts: Callable[[Server], object]) -> tuple[Server, Client]:
        """A connection to which "data" was sent before it was accepted."""
        self.listen(**acts)
        client = self.connect()
        client.send(b"data")
        self.until(lambda: self.servers and self.servers[0].told)
        self.turns()
        return self.servers.pop(), client

    def _goes_on(self: Any, server: Server, client: Client) -> None:
        self.until(lambda: server.received == b"data")
        client.send(b" and more")
        self.until(lambda: server.received == b"data and more")
        client.finish()
        self.until(lambda: server.lost)

    def test_paused_when_made(self: Any) -> None:
        """Paused in connectionMade, nothing is received until it is resumed; then all, in order, and the end."""

        def check(protocol: type[Server], end: str, *, early: bool) -> None:
            self.listen(protocol, made=lambda server: server.transport.pauseProducing())
            client = self.connect()
            if early:
                client.send(b"one ")
                client.send(b"two")
                client.finish()
            self.until(lambda: self.servers)
            server = self.servers.pop()
            self.turns()
            if not early:
                client.send(b"one ")
                self.turns()
                client.send(b"two")
                client.finish()
                self.turns()
            self.assertEqual(server.told, ["made"])
            server.transport.resumeProducing()
            self.until(lambda: server.told[-1] == end)
            self.assertEqual(server.received, b"one two")
            self.assertEqual(set(server.told[1:-1]), {"data"})

        for early in (True, False):
            check(Server, "lost", early=early)
            check(HalfCloseable, "read lost", early=early)

    def test_resumed_at_once(self: Any) -> None:
        """Paused and resumed in any way in connectionMade, it is what it was last."""
        for calls, reads in (("pr", True), ("r", True), ("prp", False), ("pprr", True)):
            server, client = self._made(made=lambda server, calls=calls: _switch(server, calls))
            self.assertEqual(server.received, b"data" if reads else b"", calls)
            _switch(server, "r")
            self._goes_on(server, client)

    def test_resumed_later(self: Any) -> None:
        """The same for a connection that was paused in connectionMade, and has been held for a while."""
        for calls, reads in (("r", True), ("rp", False), ("rpr", True), ("prrpr", True), ("rr", True), ("rprp", False)):
            server, client = self._made(made=lambda server: _switch(server, "p"))
            _switch(server, calls)
            self.assertEqual(server.received, b"", "not from within")
            self.turns()
            self.assertEqual(server.received, b"data" if reads else b"", calls)
            _switch(server, "r")
            self._goes_on(server, client)

    def test_paused_again(self: Any) -> None:
        """Paused in dataReceived, each time, it goes on where it was; nothing is lost."""

        def data(server: Server) -> None:
            server.transport.pauseProducing()

        server, client = self.pair(made=data, data=data)
        for number in range(1, 4):
            client.send(b"x" * 10)
            self.turns()
            server.transport.resumeProducing()
            self.until(lambda size=10 * number: len(server.received) == size)
        client.finish()
        self.turns()
        self.assertFalse(server.lost)
        server.transport.resumeProducing()
        self.until(lambda: server.lost)

    def test_reset_while_paused(self: Any) -> None:
        """A peer that resets a connection which nobody reads is noticed when somebody does."""
        server, client = self.pair(made=lambda server: server.transport.pauseProducing())
        client.send(b"data")
        self.turns()
        client.send_reset()
        self.turns()
        server.transport.resumeProducing()
        self.until(lambda: server.lost)
        server.reasons[0].trap(ConnectionLost, ConnectionDone)  # the latter on uvloop 0.21

    def test_ended_while_paused(self: Any) -> None:
        """A connection that is paused can be ended by us, in both ways, and receives nothing then."""
        for end in ("loseConnection", "abortConnection"):
            server, _ = self._made(made=lambda server: _switch(server, "p"))
            _switch(server, "r")
            getattr(server.transport, end)()
            self.until(lambda server=server: server.lost)
            self.until(lambda: self.clients[-1].ended)
            self.assertEqual(server.told, ["made", "lost"])

    def test_large(self: Any) -> None:
        """A stream larger than any buffer comes whole and in order."""
        whole = bytes(range(256)) * 8192
        self.listen()
        client = self.connect()
        rest = memoryview(whole)
        while rest or not self.servers or len(self.servers[0].received) < len(whole):
            with contextlib.suppress(BlockingIOError):
                while rest:
                    rest = rest[client.socket.send(rest[:100_000]) :]
            self.turn()
        self.assertEqual(self.servers[0].received, whole)


class Ending:
    """Promises of how a connection ends."""

    def test_peer_finishes(self: Any) -> None:
        """A protocol that knows no half-close loses its connection when the peer finishes."""
        server, client = self.pair()
        client.send(b"last words")
        client.finish()
        self.until(lambda: client.ended and server.lost)
        self.assertEqual([server.received, server.told], [b"last words", ["made", "data", "lost"]])
        server.reasons[0].trap(ConnectionDone)
        self.assertTrue(server.transport.disconnected)
        self.assertFalse(server.transport.connected)

    def test_peer_half_closes(self: Any) -> None:
        """A protocol that knows half-close is told that the peer has finished, and can still write."""
        server, client = self.pair(HalfCloseable)
        client.send(b"question")
        client.finish()
        self.until(lambda: "read lost" in server.told)
        server.transport.write(b"answer")
        self.until(lambda: client.received == b"answer")
        server.transport.loseConnection()
        self.until(lambda: client.ended and server.lost)
        self.assertEqual(server.told, ["made", "data", "read lost", "lost"])

    def test_half_close(self: Any) -> None:
        """Half-closed, our side ends when all is sent; the protocol is told, and still receives."""
        server, client = self.pair(HalfCloseable)
        client.reading = False
        server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))
        server.transport.loseWriteConnection()
        server.transport.write(b"in time")
        self.turns()
        self.assertEqual(server.told, ["made"])
        client.reading = True
        self.until(lambda: client.ended)
        self.assertEqual(len(client.received), MORE_THAN_THE_KERNEL_TAKES + len(b"in time"))
        self.until(lambda: "write lost" in server.told)
        server.transport.write(b"too late")
        server.transport.writeSequence([b"too late"])
        client.send(b"answer")
        self.until(lambda: server.received == b"answer")
        server.transport.loseConnection()
        self.until(lambda: server.lost)
        self.assertEqual(server.told, ["made", "write lost", "data", "lost"])
        server.reasons[0].trap(ConnectionDone)

    def test_half_close_from_both_sides(self: Any) -> None:
        """Closed by half and half, it is not yet lost; loseConnection does that."""
        server, client = self.pair(HalfCloseable, made=lambda server: server.transport.loseWriteConnection())
        self.until(lambda: client.ended)
        client.finish()
        self.until(lambda: "read lost" in server.told)
        self.turns()
        self.assertEqual(server.told, ["made", "write lost", "read lost"])
        server.transport.loseConnection()
        self.until(lambda: server.lost)

    def test_abort(self: Any) -> None:
        """Wherever abortConnection is called, that ends it by RST, with what is unsent; and not from within."""

        def act(server: Server) -> None:
            server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))
            server.transport.abortConnection()
            server.transport.abortConnection()
            server.transport.write(b"too late")
            server.transport.loseConnection()
            self.assertFalse(server.lost)

        def check(told: list[str], **acts: Callable[[Server], object]) -> None:
            self.listen(**acts)
            client = self.connect()
            client.send(b"x")
            self.until(lambda: self.servers and self.servers[0].told[: len(told)] == told)
            server = self.servers.pop()
            if not acts:
                act(server)
            self.until(lambda: client.ended and server.lost)
            self.assertTrue(client.reset)
            self.assertEqual(server.told, [*told, "lost"])
            server.reasons[0].trap(ConnectionAborted)

        check(["made"], made=act)
        check(["made", "data"], data=act)
        check(["made", "data"])

    def test_peer_resets(self: Any) -> None:
        """RST from the peer: the reason is another."""
        server, client = self.pair()
        client.send_reset()
        self.until(lambda: server.lost)
        server.reasons[0].trap(ConnectionLost)

    def test_peer_resets_before_it_is_accepted(self: Any) -> None:
        """A peer that has gone before its connection was accepted: the protocol is told both, and written to nobody."""
        self.listen(made=lambda server: server.transport.write(b"hello"))
        self.connect().send_reset()
        self.until(lambda: self.servers and self.servers[0].lost)
        self.assertEqual(self.servers[0].told, ["made", "lost"])

    def test_writing_to_nobody(self: Any) -> None:
        """Writing to a peer that reset the connection ends it, though nobody reads."""
        server, client = self.pair()
        server.transport.pauseProducing()
        client.send_reset()
        self.turns()
        server.transport.write(b"x")
        self.until(lambda: server.lost)
        server.reasons[0].trap(ConnectionLost)

    def test_stop(self: Any) -> None:
        """When the reactor stops, each open connection is told once, and its peer sees the end."""
        self.pair()
        self.connect()
        self.until(lambda: len(self.servers) == 2)
        self.servers[1].transport.loseWriteConnection()
        self.turns()
        self.reactor.stop()
        self.until(lambda: not self.reactor.running)
        for each in self.clients:
            each.socket.settimeout(DEADLINE)
            self.assertEqual(each.socket.recv(1), b"")
        self.assertEqual([each.told for each in self.servers], [["made", "lost"]] * 2)
        for each in self.servers:
            each.reasons[0].trap(ConnectionLost)

    def test_stop_at_once(self: Any) -> None:
        """The same for a connection that is made in the last iteration."""
        self.listen(made=lambda _: self.reactor.stop())
        client = self.connect()
        self.until(lambda: not self.reactor.running)
        self.assertEqual(self.servers[0].told, ["made", "lost"])
        client.socket.settimeout(DEADLINE)
        self.assertEqual(client.socket.recv(1), b"")

    def test_addresses(self: Any) -> None:
        """Each end's address; the peer's can be asked for when it has gone."""
        server, client = self.pair()
        host, peer = server.transport.getHost(), server.transport.getPeer()
        self.assertEqual((host.type, host.host, host.port), ("TCP", *client.socket.getpeername()))
        self.assertEqual((peer.type, peer.host, peer.port), ("TCP", *client.socket.getsockname()))
        server.transport.loseConnection()
        self.until(lambda: server.lost)
        self.assertEqual(server.transport.getPeer(), peer)
        self.assertEqual(server.transport.fileno(), -1)

    def test_nothing_is_left(self: Any) -> None:
        """However it ends, nothing holds the protocol or the transport, and the descriptor is free."""

        def end(server: Server, client: Client, how: str) -> None:
            if how == "finish":
                client.finish()
            elif how == "reset":
                client.send_reset()
            else:
                getattr(server.transport, how)()
            self.until(lambda: server.lost)

        self.listen()
        idle = self.reactor.getReaders()
        for how in ("finish", "reset", "loseConnection", "abortConnection"):
            client = self.connect()
            self.until(lambda: self.servers)
            self.turns()
            server = self.servers.pop()
            descriptor = server.transport.fileno()
            self.assertIn(server.transport, self.reactor.getReaders())
            kind = type(server.transport)
            gc.collect()
            before = sum(type(each) is kind for each in gc.get_objects()) - 1
            end(server, client, how)
            self.assertEqual(self.reactor.getReaders(), idle)
            self.turns()
            self.assertRaises(OSError, os.fstat, descriptor)
            gone = weakref.ref(server)
            del server
            gc.collect()
            self.assertIsNone(gone(), how)
            self.assertEqual(sum(type(each) is kind for each in gc.get_objects()), before, how)


class Raising:
    """A protocol that raises is logged, and nobody else pays for it."""

    def _raises(
        self: Any, place: str, protocol: type[Server] = Server, done: Callable[[Client], object] = id
    ) -> Server:
        def act(_: object) -> None:
            raise ZeroDivisionError

        self.listen(protocol, **{place: act})
        client = self.connect()
        self.until(lambda: self.servers)
        done(client)
        server: Server = self.servers[0]
        self.until(lambda: place.replace("_", " ") in server.told)
        self.turns()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        return server

    def _costs_the_connection(self: Any, server: Server) -> None:
        self.until(lambda: server.lost)
        server.reasons[0].trap(ZeroDivisionError)
        self.assertEqual(server.told.count("lost"), 1)
        self.until(lambda: self.clients[0].ended)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_data_received(self: Any) -> None:
        self._costs_the_connection(self._raises("data", done=lambda client: client.send(b"x")))

    def test_read_connection_lost(self: Any) -> None:
        self._costs_the_connection(self._raises("read_lost", HalfCloseable, lambda client: client.finish()))

    def test_write_connection_lost(self: Any) -> None:
        self._costs_the_connection(
            self._raises("write_lost", HalfCloseable, lambda _: self.servers[0].transport.loseWriteConnection())
        )

    def test_connection_lost(self: Any) -> None:
        """Raised where it is lost, it is lost."""
        server = self._raises("lost", done=lambda client: client.finish())
        self.assertEqual(server.told, ["made", "lost"])
        self.assertTrue(server.transport.disconnected)

    def test_connection_made(self: Any) -> None:
        """Raised where it is made, it is open nonetheless, as ever in Twisted; others are accepted."""
        server = self._raises("made")
        self.connect()
        self.until(lambda: len(self.servers) == 2)
        self.turns()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clients[0].send(b"x")
        self.until(lambda: server.received == b"x")


class Producing:
    """Promises to producers."""

    def test_push(self: Any) -> None:
        """A push producer is paused when the peer does not read, and resumed when it has; again and again."""
        server, client = self.pair()
        client.reading = False
        producer = Producer()
        server.transport.registerProducer(producer, True)
        for rounds in range(1, 4):
            written = 0
            # Bytes that the kernel takes pause the producer for a moment at most.
            while producer.told[-1:] != ["pause"] and written < 2 * MORE_THAN_THE_KERNEL_TAKES:
                server.transport.write(bytes(1_000_000))
                written += 1_000_000
                self.turns()
            self.assertEqual(producer.told[-1], "pause", rounds)
            client.reading = True
            self.until(lambda: producer.told[-1] == "resume")
            client.reading = False
        self.assertEqual(producer.told, ["pause", "resume"] * (len(producer.told) // 2))
        server.transport.unregisterProducer()
        server.transport.loseConnection()
        client.reading = True
        self.until(lambda: server.lost)
        self.assertNotIn("stop", producer.told)

    def test_push_when_made(self: Any) -> None:
        """A producer that writes until it is paused, in connectionMade, is paused there, and then resumed."""
        producer = Producer()

        def made(server: Server) -> None:
            server.transport.registerProducer(producer, True)
            for _ in range(100):
                if not producer.told:
                    server.transport.write(bytes(10_000))

        _, client = self.pair(made=made)
        self.assertEqual(producer.told[:1], ["pause"])
        self.until(lambda: "resume" in producer.told)
        self.assertEqual(producer.told, ["pause", "resume"])
        self.assertLess(len(client.received), 100_000)

    def test_push_when_full(self: Any) -> None:
        """A producer that comes when more is unsent than the transport likes is paused as soon as it writes."""
        server, client = self.pair()
        client.reading = False
        server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))
        self.turns()
        first, second = Producer(), Producer()
        server.transport.registerProducer(first, True)
        server.transport.write(b"x")
        self.assertEqual(first.told, ["pause"])
        server.transport.unregisterProducer()
        server.transport.registerProducer(second, True)
        server.transport.write(b"x")
        self.assertEqual(second.told, ["pause"])
        client.reading = True
        self.until(lambda: len(second.told) > 1)
        self.assertEqual([first.told, second.told], [["pause"], ["pause", "resume"]])

    def test_pull(self: Any) -> None:
        """A pull producer is asked for more whenever what it gave is sent, and for nothing after its end."""
        server, client = self.pair()
        pieces = [b"%d " % number for number in range(20)]

        def give() -> None:
            server.transport.write(pieces.pop(0))
            if not pieces:
                server.transport.unregisterProducer()
                server.transport.loseConnection()

        producer = Producer(give)
        server.transport.registerProducer(producer, False)
        self.assertEqual(producer.told, ["resume"])
        self.until(lambda: client.ended)
        self.assertEqual(client.received, b"".join(b"%d " % number for number in range(20)))
        self.assertEqual(producer.told, ["resume"] * 20)

    def test_pull_when_made(self: Any) -> None:
        """The same in connectionMade."""
        pieces = [b"a", b"b", b"c"]

        def made(server: Server) -> None:
            def give() -> None:
                server.transport.write(pieces.pop(0))
                if not pieces:
                    server.transport.unregisterProducer()

            server.transport.registerProducer(Producer(give), False)

        _, client = self.pair(made=made)
        self.until(lambda: client.received == b"abc")

    def test_pull_from_slow_reader(self: Any) -> None:
        """A pull producer is not asked for more before the peer has read."""
        server, client = self.pair()
        client.reading = False
        producer = Producer(lambda: server.transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES)))
        server.transport.registerProducer(producer, False)
        self.turns()
        self.assertEqual(producer.told, ["resume"])
        client.reading = True
        self.until(lambda: producer.told == ["resume", "resume"])

    def test_pull_that_takes_its_time(self: Any) -> None:
        """A pull producer that has nothing to give yet is asked again when it has given something, not before."""
        server, client = self.pair()
        producer = Producer()
        server.transport.registerProducer(producer, False)
        self.turns()
        self.assertEqual(producer.told, ["resume"])
        server.transport.write(b"by now")
        self.until(lambda: client.received == b"by now")
        self.turns()
        self.assertEqual(producer.told, ["resume", "resume"])

    def test_two(self: Any) -> None:
        """A second producer at a time is refused."""
        server, _ = self.pair()
        server.transport.registerProducer(Producer(), True)
        self.assertRaises(RuntimeError, server.transport.registerProducer, Producer(), True)
        server.transport.unregisterProducer()
        server.transport.registerProducer(Producer(), True)

    def test_stopped(self: Any) -> None:
        """When the connection is lost its producer is told to stop, and so is one that comes later."""
        server, client = self.pair()
        for streaming in (True, False):
            late = Producer()
            producer = Producer()
            if streaming:
                server.transport.registerProducer(producer, True)
                client.finish()
                self.until(lambda: server.lost)
                self.assertEqual(producer.told, ["stop"])
            server.transport.registerProducer(late, streaming)
            self.assertEqual(late.told, ["stop"])

    def test_aborted(self: Any) -> None:
        """After abortConnection a producer is told to stop, and not asked for more."""
        server, _ = self.pair()
        producer = Producer(lambda: server.transport.write(b"x"))
        server.transport.registerProducer(producer, False)
        server.transport.abortConnection()
        self.until(lambda: server.lost)
        self.assertEqual(producer.told, ["resume", "stop"])

    def test_raising(self: Any) -> None:
        """A producer that raises when it is resumed costs the connection."""
        server, _ = self.pair()
        data = iter([b"x"])
        producer = Producer(lambda: server.transport.write(next(data)))
        server.transport.registerProducer(producer, False)
        self.until(lambda: server.lost)
        self.assertEqual(len(self.flushLoggedErrors(StopIteration)), 1)
        self.assertEqual(producer.told, ["resume", "resume", "stop"])

    def test_ended_by_its_consumer(self: Any) -> None:
        """A connection is a producer too: stopProducing ends it."""
        server, client = self.pair()
        server.transport.write(b"bye")
        server.transport.stopProducing()
        self.until(lambda: client.ended and server.lost)
        self.assertEqual(client.received, b"bye")


class Layers:
    """TLS begun later, and what a transport says that it is."""

    def test_interfaces(self: Any) -> None:
        """The interfaces that are asked for: twisted.web leaves out back-pressure where there is no IPushProducer."""
        server, _ = self.pair()
        for interface in (IConsumer, ILoggingContext, IPushProducer, ISystemHandle, ITCPTransport, ITLSTransport):
            self.assertTrue(interface.providedBy(server.transport), interface)
        self.assertFalse(ISSLTransport.providedBy(server.transport))

    def test_options(self: Any) -> None:
        """TCP options can be set and read."""
        server, _ = self.pair()
        for name in ("TcpNoDelay", "TcpKeepAlive"):
            for value in (True, False):
                getattr(server.transport, f"set{name}")(value)
                self.assertEqual(getattr(server.transport, f"get{name}")(), value)
        self.assertEqual(server.transport.getHandle().fileno(), server.transport.fileno())

    def test_start_tls(self: Any) -> None:
        """STARTTLS after a line in clear: both directions, the certificate's methods, and the end."""
        folder = Path(self.mktemp())
        folder.mkdir()
        write_certificate(folder)
        context = DefaultOpenSSLContextFactory(str(folder / "key.pem"), str(folder / "cert.pem"))

        def data(server: Server) -> None:
            if server.received == b"STARTTLS\n":
                server.transport.write(b"go on\n")
                server.transport.startTLS(context)
                server.received = b""
            else:
                server.transport.write(server.received)

        seen: list[Any] = []
        server, client = self.pair(
            data=data,
            lost=lambda server: seen.append((server.transport.getPeerCertificate(), server.transport.write(b"late"))),
        )
        client.send(b"STARTTLS\n")
        self.until(lambda: client.received == b"go on\n")
        self.assertTrue(ISSLTransport.providedBy(server.transport))
        client.received = b""
        trusting = ssl.create_default_context(cafile=folder / "cert.pem")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def drive(call: Callable[[], Any]) -> Any:
            end = time.monotonic() + DEADLINE
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    assert time.monotonic() < end
                finally:
                    client.send(outgoing.read()) if outgoing.pending else None
                    self.turn()
                    client.read()
                    incoming.write(client.received)
                    client.received = b""

        drive(tls.do_handshake)
        drive(lambda: tls.write(b"secret"))
        self.assertEqual(drive(lambda: tls.read(100)), b"secret")
        server.transport.loseConnection()
        self.assertEqual(drive(lambda: tls.read(100)), b"", "close_notify")
        with contextlib.suppress(ssl.SSLZeroReturnError):
            tls.unwrap()
        client.send(outgoing.read())
        self.until(lambda: server.lost and client.ended)
        self.assertEqual(seen, [(None, None)])
        self.assertEqual(server.told.count("lost"), 1)


class Addresses(SynchronousTestCase):
    def test_packed(self) -> None:
        """A peer's address comes back as it was."""
        for name in (
            ("0.0.0.0", 0),
            ("127.0.0.1", 65535),
            ("255.255.255.254", 1),
            ("::1", 9999, 0, 0),
            ("fe80::1", 1, 0, 3),
        ):
            self.assertEqual(unpack_address(pack_address(name)), name)


class _Promises(Writing, Reading, Ending, Raising, Producing, Layers):
    pass


class OnUs(OnUV, Case, _Promises, SynchronousTestCase):
    """The uv reactor's connections, and what they do better."""

    def turn(self) -> None:
        self.reactor.loop.call_later(0.001, self.reactor.loop.stop)
        self.reactor.loop.run_forever()

    def test_stop_while_paused(self) -> None:
        """Paused connections are told that the reactor stops, too. Twisted's own reactors forget them."""
        server, client = self.pair(made=lambda server: server.transport.pauseProducing())
        self.reactor.stop()
        self.until(lambda: not self.reactor.running)
        client.socket.settimeout(DEADLINE)
        self.assertEqual(client.socket.recv(1), b"")
        self.assertEqual(server.told, ["made", "lost"])
        self.assertEqual(self.reactor.connections, {})

    def test_end_is_told_once(self) -> None:
        """The client's end of input is told once, whatever is resumed then. Twisted's own tell it again."""
        server, client = self.pair(HalfCloseable)
        client.finish()
        self.until(lambda: "read lost" in server.told)
        server.transport.resumeProducing()
        self.turns()
        self.assertEqual(server.told, ["made", "read lost"])

    def test_never_ready(self) -> None:
        """Where uvloop cannot take the socket, at once or in the end, the protocol is told and the socket closed."""

        class Loop:
            """A loop that does not."""

            def __init__(self, loop: Any, *, at_once: bool) -> None:
                self._loop = loop
                self._at_once = at_once

            def __getattr__(self, name: str) -> Any:
                return getattr(self._loop, name)

            async def connect_accepted_socket(self, _: object, __: object) -> None:
                if not self._at_once:
                    waiter = self._loop.create_future()
                    self._loop.call_soon(waiter.set_result, None)
                    await waiter
                raise OSError(22, "Invalid argument")

        loop = self.reactor.loop
        for at_once in (True, False):
            self.reactor.loop = Loop(loop, at_once=at_once)
            self.addCleanup(setattr, self.reactor, "loop", loop)
            self.listen(made=lambda server: server.transport.write(b"hello"))
            self.connect()
            self.until(lambda: self.servers)
            self.until(lambda: self.servers[-1].lost)
            self.until(lambda: self.clients[-1].ended)
            server = self.servers.pop()
            self.assertEqual(server.told, ["made", "lost"])
            server.reasons[0].trap(ConnectionLost)
            self.assertEqual(self.reactor.connections, {})

    def test_too_many_files(self) -> None:
        """A client at the limit of descriptors is turned away, and the next is served when there is room."""
        self.listen()
        self.turns()
        turned_away = self.connect()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(0)]
        self.addCleanup(lambda: list(map(os.close, taken)))
        highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - of names, not of paths
        while taken[-1] <= highest:
            taken.append(os.dup(0))

        def look() -> None:
            # In one run of the loop: each would begin by making descriptors.
            turned_away.read()
            if turned_away.ended:
                self.reactor.loop.stop()
            else:
                self.reactor.loop.call_later(0.001, look)

        self.reactor.loop.call_soon(resource.setrlimit, resource.RLIMIT_NOFILE, (taken[-1] + 1, limits[1]))
        self.reactor.loop.call_soon(look)
        stop = self.reactor.loop.call_later(DEADLINE, self.reactor.loop.stop)
        try:
            self.reactor.loop.run_forever()
        finally:
            stop.cancel()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertTrue(turned_away.ended)
        self.assertEqual(self.servers, [])
        client = self.connect()
        self.until(lambda: self.servers)
        client.send(b"data")
        self.until(lambda: self.servers[0].received)


class OnTwisted(Case, _Promises, SynchronousTestCase):
    """Twisted's."""

    def reactorFactory(self) -> Any:
        from twisted.internet.pollreactor import PollReactor

        return PollReactor()

    def turn(self) -> None:
        self.reactor.iterate(0.001)
