"""
One client: one object from its first byte to its last.

Bytes come in by :meth:`Session.dataReceived`, messages go to the handler (:mod:`mtserver.dispatch`), and whatever is
said to the client leaves by :meth:`Session.flush`. Laws:

* One read leads to at most one write (but for more than :data:`~mtserver.session.sending.WRITE_SIZE` bytes).
* What is held for a client is in its inbox and its outbox, and both are bounded.
* What may happen when is for the table of :mod:`~mtserver.session.state` to say.
* Every wait has a deadline, looked at by one sweep over all clients (:mod:`mtserver.server.deadlines`), not by timers.

Each part of a life has a module of its own, of functions of a session: :mod:`~mtserver.session.opening`,
:mod:`~mtserver.session.receiving`, :mod:`~mtserver.session.sending`, :mod:`~mtserver.session.closing`.
"""

from __future__ import annotations

import contextvars
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtserver import refusals
from mtserver.app import App
from mtserver.client import Client
from mtserver.concurrency.coroutines import Running
from mtserver.dispatch import FREE, SMALL
from mtserver.errors import BadMessage, HandlerError, Refusal
from mtserver.session import closing, opening, receiving, sending
from mtserver.session.inbox import Inbox
from mtserver.session.limits import Streak, TokenBucket
from mtserver.session.outbox import Outbox
from mtserver.session.protocol import TransportSide
from mtserver.session.receiving import BATCH
from mtserver.session.sending import WRITE_SIZE
from mtserver.session.shared import Listener, Login
from mtserver.session.state import MAY_SEND, TABLE, Fact, Pause, State, Step, after

# The two that are looked at after each batch; a look at a module's name is faster than one at a class's.
_GONE = State.GONE
_UNSETTLED = Fact.UNSETTLED


@implementer(IProtocol, IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Session(TransportSide):
    """
    One client's session: the Twisted protocol of its connection, and the conversation with its handler.

    :param listener: what it shares with the other clients of its port.
    :param number: its number since the server's start.
    """

    # Not of Twisted's Protocol, whose instances have a __dict__: 300 bytes for each client.
    __slots__ = (
        "activity",
        "answered",
        "arrived_at",
        "bad",
        "busy",
        "client",
        "context",
        "deadline",
        "facts",
        "handler",
        "heard_at",
        "inbox",
        "listener",
        "login",
        "opened_at",
        "outbox",
        "pauses",
        "reason",
        "replies",
        "running",
        "state",
    )

    def __init__(self, listener: Listener, number: int) -> None:
        server = listener.server
        self.transport = None
        self.listener = listener
        self.client = Client(self, number)
        self.state = State.HANDSHAKE
        self.pauses = Pause.STATE
        self.facts = 0  # for these three see mtserver.session.state
        #: Input that has been read and not been handled; None while there is none.
        self.inbox: Inbox | None = None
        #: Output that could not be written yet; None while there is none.
        self.outbox: Outbox | None = None
        #: How the client says who it is, while it has to.
        self.login: Login | None = None
        # Attributes of mtserver.dispatch.conversation.
        self.handler: Any = None
        self.busy = FREE
        self.running: Running | None = None
        self.arrived_at = 0.0
        self.context: contextvars.Context | None = None
        self.replies: list[bytes] | None = None
        #: Messages answered so far, be it with nothing.
        self.answered = 0
        #: The client's bad messages; None while there were none.
        self.bad: Streak | None = None
        #: Why the connection ended, as far as that is known.
        self.reason = ""
        #: When what the state waits for is overdue; 0.0: it may take any time.
        self.deadline = 0.0
        self.opened_at = self.heard_at = server.seconds()
        #: Bytes received and messages answered at the last sweep; of one that lingers, the bytes received before.
        self.activity = 0
        if server.settings.message_rate:
            server.buckets[self] = TokenBucket(server.settings.message_rate, self.opened_at)

    def step(self, step: Step) -> None:
        """Change the state. The handler is given messages from OPEN on; in GONE still those that came before."""
        self.state = state = after(self.state, step)
        if state == State.OPEN:
            self.pauses &= ~Pause.STATE
        elif not TABLE[state].may_handle:
            self.pauses |= Pause.STATE

    # Twisted calls these.

    def makeConnection(self, transport: Any) -> None:
        self.connect(transport)
        self.connectionMade()

    def connectionMade(self) -> None:
        opening.connected(self)

    def handshakeCompleted(self) -> None:
        opening.handshake_completed(self)

    def dataReceived(self, data: bytes) -> None:
        client = self.client
        client.bytes_received += len(data)
        if self.inbox is None and not (self.pauses or self.busy):
            # The usual case: whole messages, and a handler that waits for them.
            listener = self.listener
            messages = listener.split_complete(data, listener.max_message, BATCH)
            if messages is not None:
                client.messages_received += len(messages)
                listener.dispatch.handle(self, messages)
                return
        receiving.collect(self, data)

    def readConnectionLost(self) -> None:
        closing.input_ended(self)

    def writeConnectionLost(self) -> None:
        closing.output_finished(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        closing.lost(self, reason)

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is written to."""
        outbox = sending.outbox_of(self)
        if outbox.unread_since is None:
            outbox.unread_since = self.listener.server.seconds()
            self.pauses |= Pause.UNREAD

    def resumeProducing(self) -> None:
        """The transport has room again."""
        outbox = self.outbox
        if outbox is None or outbox.unread_since is None:
            return
        outbox.unread_since = None
        self.pauses &= ~Pause.UNREAD
        self.flush()
        if self.pauses & Pause.UNREAD:
            return
        if self.state == State.CLOSING:
            closing.end_output(self, Step.FLUSHED)
        else:
            self.go_on()

    def stopProducing(self) -> None: ...  # connectionLost follows

    # The handler's side: see mtserver.dispatch.conversation.

    take = receiving.take
    give_back = receiving.give_back
    slice_over = receiving.slice_over

    def answer(self, reply: Any) -> None:
        """One message is answered; None: nothing is to be sent."""
        if reply is None or self.state not in MAY_SEND:
            self.answered += 1
            return
        try:
            data = self.listener.codec.encode_reply(reply)
        except HandlerError as error:
            self.failed(error)
            return
        if self.replies is None:
            self.replies = [data]
        else:
            self.replies.append(data)
        if len(data) > SMALL:
            self.flush_if_large()

    def failed(self, error: BaseException) -> None:
        """One message is not answered, for this reason: a refusal, or whatever the handler raised."""
        self.answered += 1
        if isinstance(error, Refusal):
            self.refuse(error)
            if isinstance(error, BadMessage):
                receiving.count_bad(self)
        else:
            sending.log_failure(self, error)
            self.refuse(refusals.INTERNAL)

    def start_failed(self, error: BaseException) -> None:
        """The handler cannot begin with this client."""
        sending.log_failure(self, error)
        self.refuse(refusals.INTERNAL)
        closing.close(self, "the handler could not begin")

    flush = sending.flush
    flush_now = sending.flush_now
    flush_if_large = sending.flush_if_large

    def idle(self) -> None:
        """The handler is free, and there was nothing to take."""
        if self.state < _GONE:
            if self.replies or self.outbox is not None:
                self.flush()
            self.replies = None
            if self.inbox is not None or self.pauses or self.facts & _UNSETTLED:
                closing.settle(self)
        elif self.state == State.GONE and not self.pauses & Pause.SLICE_OVER:
            closing.end(self)

    def finished(self) -> None:
        """The handler has been told of the end; nothing more will come."""
        self.listener.server.finished(self)

    # Calls of the rooms around.

    logged_in = opening.logged_in

    def wake(self) -> None:
        """Have the handler look for messages, if it is free."""
        self.listener.dispatch.wake(self)

    def go_on(self) -> None:
        """Have the handler look for messages, unless something forbids it."""
        if not self.pauses & ~Pause.CANCELLED:  # a handler that nobody waits for is told of the end, all the same
            self.wake()
            self.flush()

    pause = receiving.pause
    resume = receiving.resume
    unthrottle = receiving.unthrottle

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why it does not get what it wants; and close, if that is part of it."""
        if self.state >= State.CLOSING:
            return
        server = self.listener.server
        server.fan_out.catch_up(self)
        if not server.settings.quiet:
            sending.hold(self, sending.refusal_frame(self, refusal), 1)
        if refusal.closes:
            closing.audit_closed(self, refusal)
            closing.close(self, refusal.code)
        else:
            sending.flush_soon(self)

    def deliver(self, data: bytes, messages: int) -> None:
        """Send messages, in their framing, that others get as well."""
        if self.state not in (State.OPEN, State.ENDING):
            return
        if self.outbox is None and not self.replies and len(data) <= WRITE_SIZE:
            client = self.client
            client.messages_sent += messages
            client.bytes_sent += len(data)
            self.write(data)
        else:
            self._keep(data, messages)

    def _keep(self, frame: bytes, messages: int) -> None:
        """Hold a frame, and see that it leaves."""
        held = sending.hold(self, frame, messages)
        if self.pauses & Pause.UNREAD:
            if held > self.listener.server.settings.send_buffer:
                closing.drop_unread(self)
        elif held > WRITE_SIZE:
            self.flush()
        else:
            sending.flush_soon(self)

    @property
    def is_behind(self) -> bool:
        """Whether so much is unread by the client that a sender who can wait should."""
        outbox = self.outbox
        return outbox is not None and outbox.size > self.listener.server.settings.send_buffer // 2

    # The client's side: see mtserver.client.Connection.

    @property
    def app(self) -> App:
        return self.listener.app

    @property
    def bad_messages(self) -> int:
        return 0 if self.bad is None else self.bad.total

    @property
    def messages_cut_off(self) -> int:
        return 1 if self.facts & Fact.CUT_OFF else 0  # of a connection only the last can be

    @property
    def connected_at(self) -> float:
        return self.listener.server.epoch + self.opened_at

    @property
    def is_open(self) -> bool:
        return bool(self.facts & Fact.HANDLER_BEGUN) and self.state < State.GONE

    def encode(self, message: Any) -> bytes:
        return self.listener.codec.encode(message)

    def send(self, message: Any) -> None:
        self.send_frame(self.listener.encode([self.encode(message)]))

    def send_frame(self, frame: bytes) -> None:
        """Send a message that has its framing. Any thread may ask."""
        server = self.listener.server
        if not server.loop_calls.in_loop():
            self.listener.dispatch.before_sending()
            server.loop_calls.post(self.send_frame, frame)
            return
        server.fan_out.catch_up(self)
        if self.state in MAY_SEND:
            self._keep(frame, 1)

    def close(self) -> None:
        if not self.listener.server.loop_calls.in_loop():
            self.listener.dispatch.before_closing(self)
            self.listener.server.loop_calls.post(self.close)
        elif self.state == State.OPEN:
            # Not at once: the reply to the message being handled still belongs in front of the end.
            self.step(Step.CLOSE_ASKED)
            self.listener.server.soon(self.wake)
        else:
            self.facts |= Fact.CLOSE_ASKED
