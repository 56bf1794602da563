"""The table of a connection's states: whole, drawn in docs/states.md, and what the real session does by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mtserver import App, Client, Handler, Refusal
from mtserver.dispatch import CANCELLED
from mtserver.session import state
from mtserver.session.session import Session
from mtserver.session.state import MAY_SEND, TABLE, Fact, IllegalStep, Pause, State, Step, after
from mtserver.testing import Harness, HarnessClient

PAGE = Path(__file__).parent.parent / "docs" / "states.md"


def drawing() -> str:
    """The page that shows the table."""
    lines = [
        "# The states of a connection",
        "",
        "Drawn from the table in `mtserver/session/state.py` by `python -m tests.test_state`; a test holds it.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> handshake",
    ]
    for row in TABLE.values():
        lines += [f"    {row.name} --> {TABLE[to].name}: {_words(step)}" for step, to in row.steps.items()]
    lines += [
        "    ended --> [*]",
        "```",
        "",
        "| state | meaning | may be sent to | messages are handled |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.name} | {row.meaning} | {_yes(row.may_send)} | {_yes(row.may_handle)} |" for row in TABLE.values()
    ]
    lines += ["", "| step | what happens |", "| --- | --- |"]
    lines += [f"| {_words(step)} | {step.value} |" for step in Step]
    return "\n".join(lines) + "\n"


def _words(step: Step) -> str:
    return step.name.lower().replace("_", " ")


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


class Table(SynchronousTestCase):
    def test_every_state(self) -> None:
        """Each state has a row, a name of its own, and all but the first can be reached."""
        states = {value for name, value in vars(State).items() if name.isupper()}
        self.assertEqual(set(TABLE), states)
        self.assertEqual(len({row.name for row in TABLE.values()}), len(states))
        reached = {to for row in TABLE.values() for to in row.steps.values()}
        self.assertEqual(reached, states - {State.HANDSHAKE})

    def test_forward_only(self) -> None:
        """A step never leads back, so every walk ends."""
        for before, row in TABLE.items():
            for step, to in row.steps.items():
                self.assertGreater(to, before, step)

    def test_every_step(self) -> None:
        """Each step may happen somewhere, and a connection may be lost as long as there is one."""
        self.assertEqual({step for row in TABLE.values() for step in row.steps}, set(Step))
        for before, row in TABLE.items():
            self.assertEqual(Step.LOST in row.steps, before < State.GONE, row.name)

    def test_illegal(self) -> None:
        """A step that cannot happen is named, with the state."""
        error = self.assertRaises(IllegalStep, after, State.ENDED, Step.LOST)
        self.assertEqual(str(error), "LOST in the state 'ended'")

    def test_bits(self) -> None:
        """Pauses, and facts, are told apart by bits of their own; the dispatch knows one of them by its value."""
        for kind, derived in ((Pause, ()), (Fact, ("UNSETTLED",))):
            bits = [value for name, value in vars(kind).items() if name.isupper() and name not in derived]
            self.assertEqual(sum(bits), 2 ** len(bits) - 1, kind)
        self.assertEqual(Pause.CANCELLED, CANCELLED)

    def test_drawing(self) -> None:
        """docs/states.md shows the table as it is."""
        self.assertEqual(PAGE.read_text(), drawing(), "draw it anew: python -m tests.test_state")


#: What a client may say.
WORDS = [b"login", b"hello", b"close", b"wait", b"fail", b"refuse", b"large"]


class Talk(Handler):
    """A handler that does what it is told."""

    waiting: list[Deferred[None]]

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.told: list[str] = []

    async def authenticate(self, message: bytes) -> str | None:
        return "somebody" if message == b"login" else None

    async def received(self, message: bytes) -> bytes | None:
        match message:
            case b"close":
                self.client.close()
            case b"wait":
                waiting: Deferred[None] = Deferred()
                self.client.app.state.waiting.append(waiting)
                await waiting
            case b"fail":
                raise ValueError("on purpose")
            case b"refuse":
                raise Refusal("busy", "on purpose", closes=True)
            case b"large":
                return b"x" * 200_000
        return message

    async def disconnected(self, reason: str) -> None:
        assert not self.told, "told of the end twice"
        self.told.append(reason)


class Walk(RuleBasedStateMachine):
    """A client, a handler, a server and the clock do what they may, in any order; the session keeps the table."""

    def __init__(self) -> None:
        super().__init__()
        self.app = App(Talk)
        self.app.state.waiting = []
        self.harness = Harness(
            self.app,
            send_timeout=5,
            idle_timeout=60,
            message_timeout=5,
            auth_timeout=5,
            send_buffer=300_000,
            drain_timeout=5,
        )
        self.client: HarnessClient = self.harness.connect()
        self.session: Session = self.client.protocol
        self.steps: list[Step] = []
        self.seen = [self.session.state]
        self.stopped = False
        self.ended = False

    @initialize(first=st.sampled_from([b"login", b"login", b"nobody"]))
    def log_in(self, first: bytes) -> None:
        self.client.send(first)

    def is_connected(self) -> bool:
        return bool(self.client.transport.connected) and not self.ended

    @precondition(is_connected)
    @rule(
        messages=st.lists(
            st.sampled_from([b"login", b"hello", b"close", b"wait", b"fail", b"refuse", b"large"]), max_size=4
        )
    )
    def send(self, messages: list[bytes]) -> None:
        self.client.send(*messages)

    @precondition(is_connected)
    @rule()
    def send_part(self) -> None:
        self.client.send_raw(b"part")

    @precondition(is_connected)
    @rule(size=st.sampled_from([0, 1000, None]))
    def read(self, size: int | None) -> None:
        self.client.read(size)

    @precondition(is_connected)
    @rule()
    def half_close(self) -> None:
        self.client.half_close()
        self.ended = True

    @precondition(lambda self: self.client.transport.connected)
    @rule()
    def reset(self) -> None:
        self.client.reset()
        self.ended = True

    @precondition(lambda self: self.app.state.waiting)
    @rule()
    def go_on(self) -> None:
        waiting = self.app.state.waiting.pop()
        if not waiting.called:
            self.harness.fire(waiting)

    @precondition(lambda self: not self.stopped)
    @rule()
    def broadcast(self) -> None:
        self.app.broadcast(b"news")

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.harness.advance(seconds)

    @precondition(lambda self: not self.stopped)
    @rule()
    def stop(self) -> None:
        self.stopped = True
        self.harness.stop()

    @invariant()
    def keeps_the_table(self) -> None:
        session, row = self.session, TABLE[self.session.state]
        assert session.state >= self.seen[-1], "a step back"
        self.seen.append(session.state)
        if session.state < State.GONE:
            assert bool(session.pauses & Pause.STATE) is not row.may_handle, row.name
        if State.CLOSING <= session.state < State.GONE:
            assert session.inbox is None, row.name
        if session.state >= State.GONE:
            assert session.outbox is None, row.name
        outbox = session.outbox
        if outbox is not None:
            assert outbox.size or outbox.unread_since is not None, "an outbox that holds nothing"
            assert bool(session.pauses & Pause.UNREAD) is (outbox.unread_since is not None)
        if session.state not in MAY_SEND:
            assert not session.replies or session.busy, "replies that will never leave"

    @invariant()
    def ends(self) -> None:
        is_known = self.session in self.harness.server.sessions.values()
        assert is_known is (self.session.state != State.ENDED)

    def teardown(self) -> None:
        for waiting in self.app.state.waiting:
            if not waiting.called:
                self.harness.fire(waiting)
        if not self.stopped:
            self.harness.stop()
        self.harness.advance(100)
        assert self.session.state == State.ENDED, TABLE[self.session.state].name


class Walks(SynchronousTestCase):
    def test_walk(self) -> None:
        """Whatever happens in whatever order, no step is illegal, nothing is left over, and every walk ends."""
        run_state_machine_as_test(Walk, settings=settings(max_examples=80, stateful_step_count=25, deadline=None))
        self.flushLoggedErrors()

    def test_notices(self) -> None:
        """The control: a table in which an open connection cannot be lost is found out."""
        missing: Any = dict(TABLE[State.OPEN].steps)
        del missing[Step.LOST]
        broken = TABLE | {State.OPEN: TABLE[State.OPEN]._replace(steps=missing)}
        self.patch(state, "TABLE", broken)
        self.assertRaises(
            (IllegalStep, AssertionError),
            run_state_machine_as_test,
            Walk,
            settings=settings(max_examples=80, stateful_step_count=25, deadline=None),
        )
        self.flushLoggedErrors()


if __name__ == "__main__":
    PAGE.write_text(drawing())
