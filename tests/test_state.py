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

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "states.md", DOCS / "states.svg"


def page() -> str:
    """The page that shows the table."""
    lines = [
        "# The states of a connection",
        "",
        "Drawn from the table in `mtserver/session/state.py` by `python -m tests.test_state`; a test holds it.",
        "",
        "![The states of a connection, and the steps between them](states.svg)",
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


#: Pixels from one state to the next, and from one rail to the next.
ROW, RAIL = 60, 70


def picture() -> str:
    """The table as a picture: a state below the other, and on the right a rail for each step that skips some."""
    shapes = []
    for place, row in TABLE.items():
        shapes.append(f'<rect x="20" y="{place * ROW + 35}" width="130" height="30" rx="6"/>')
        shapes.append(f'<text x="85" y="{place * ROW + 55}" text-anchor="middle">{row.name}</text>')
        if next_ := [_words(step) for step, to in row.steps.items() if to == place + 1]:
            shapes.append(f'<path d="M60,{place * ROW + 65} v28" marker-end="url(#head)"/>')
            shapes.append(f'<text class="step" x="66" y="{place * ROW + 83}">{", ".join(next_)}</text>')
    skipping = {(step, to) for place, row in TABLE.items() for step, to in row.steps.items() if to > place + 1}
    for column, (step, to) in enumerate(sorted(skipping, key=lambda each: each[1])):
        shapes += _rail(190 + column * RAIL, step, to)
    width, height = 190 + len(skipping) * RAIL, len(TABLE) * ROW + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
            "<style>text { font: 13px sans-serif; fill: #333 } .step { font-size: 11px; fill: #00695c }",
            "rect, path { fill: none; stroke: #00897b; stroke-width: 1.3 } rect { fill: #e0f2f1 }",
            "circle { fill: #00897b }</style>",
            '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">',
            '<path d="M0,0 L7,3 L0,6" /></marker></defs>',
            f'<rect x="0" y="0" width="{width}" height="{height}" style="fill: white; stroke: none"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def _rail(x: int, step: Step, to: int) -> list[str]:
    """The line down which a step leads from each of its states to one that is further below."""
    sources = [place for place, row in TABLE.items() if row.steps.get(step) == to and to > place + 1]
    top, bottom = sources[0] * ROW + 50, to * ROW + 50
    shapes = [f'<text class="step" x="{x}" y="{top - 8}" text-anchor="middle">{_words(step)}</text>']
    shapes += [f'<path d="M150,{place * ROW + 50} H{x}"/>' for place in sources]
    shapes += [f'<circle cx="{x}" cy="{place * ROW + 50}" r="3"/>' for place in sources]
    return [*shapes, f'<path d="M{x},{top} V{bottom} H151" marker-end="url(#head)"/>']


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
        """docs/states.md and its picture show the table as it is."""
        self.assertEqual(PAGE.read_text(), page(), "draw it anew: python -m tests.test_state")
        self.assertEqual(PICTURE.read_text(), picture(), "draw it anew: python -m tests.test_state")


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
    PAGE.write_text(page())
    PICTURE.write_text(picture())
