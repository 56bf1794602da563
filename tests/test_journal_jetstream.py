"""Envelopes, judgements, queues and publishing of the journal in a stream. Nothing is sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from nats.errors import NoRespondersError
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mtserver.acks import ACCEPTED, DURABLE, REPLICATED
from mtserver.errors import ConfigurationError, Unavailable
from mtserver.journal import Batch, Keep, Record, Stored, check_journal
from mtserver.journal.jetstream import reading
from mtserver.journal.jetstream.delivery import Delivery
from mtserver.journal.jetstream.envelope import (
    MESSAGE_ID,
    TOKEN_SIZE,
    Envelope,
    decode_header,
    encode_header,
    envelopes,
    record_of,
    size_of,
    source,
    subject_of,
    token,
)
from mtserver.journal.jetstream.health import Health
from mtserver.journal.jetstream.journal import JetStreamJournal
from mtserver.journal.jetstream.publishing import SLICE, Publisher
from mtserver.journal.jetstream.request import IN_PROCESS, NO_MESSAGE, Refused
from mtserver.journal.jetstream.stream import _AROUND, Judgement, Requirements, configuration, judge
from mtserver.journal.options import JetStreamOptions, best_level, parse_jetstream
from mtserver.nats import Address
from mtserver.settings import Settings
from tests.controls import ControlCase

from .logcase import LogCase

T = TypeVar("T")

TEXTS = st.one_of(st.text(max_size=300), st.text(max_size=6, alphabet="*>.=#%aA23DE é\r\n \ud800"))
SECOND = 1_000_000_000


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread, in an asyncio loop of its own: the tests' reactor may be one itself."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class Envelopes(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(TEXTS, TEXTS)
    def test_tokens(self, one: str, two: str) -> None:
        """Different texts have different tokens, and each is one token of a subject, and short."""
        self.assertEqual(token(one) == token(two), one == two)
        for each in (token(one), token(two)):
            self.assertRegex(each, r"\A[^\s.*>\x00-\x20\x7f-\U0010ffff]+\Z")
            self.assertLessEqual(len(each), TOKEN_SIZE)

    def test_plain_names(self) -> None:
        """Harmless characters stand for themselves; the others are escaped."""
        for text, wanted in (
            ("dev-1_a", "dev-1_a"),
            ("a@b", "a@b"),
            ("a.b", "a%2Eb"),
            ("*", "%2A"),
            (">", "%3E"),
            ("", "="),
        ):
            self.assertEqual(token(text), wanted)
        self.assertEqual(token("="), "%3D")
        self.assertTrue(token("x" * 201).startswith("#"))

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def test_headers(self, text: str) -> None:
        """Any text is one line of printable ASCII without spaces, and comes back as it was."""
        self.assertRegex(encode_header(text), r"\A[!-~]*\Z")
        self.assertEqual(decode_header(encode_header(text)), text)

    @settings(max_examples=300, deadline=None)
    @given(
        TEXTS, TEXTS, TEXTS, st.lists(st.tuples(TEXTS.filter(bool), st.binary(max_size=50)), max_size=4), st.booleans()
    )
    def test_round_trip(
        self, address: str, identity: str, name: str, messages: list[tuple[str, bytes]], has_ids: bool
    ) -> None:
        """A message is read as it was stored."""
        ids = [each for each, _ in messages] if has_ids else []
        batch = Batch(1.25, 7, address, [message for _, message in messages], identity, name, ids)
        found = [record_of(number, "", each.headers, each.message) for number, each in enumerate(envelopes("S", batch))]
        wanted = [
            Record(number, 1.25, 7, address, identity, name, each if has_ids else "", message)
            for number, (each, message) in enumerate(messages)
        ]
        self.assertEqual(found, wanted)

    @settings(max_examples=300, deadline=None)
    @given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
    def test_ids(self, one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
        """The server knows two messages for the same if identity, name and id are, and only then."""

        def known_by(identity: str, name: str, number: str) -> str:
            (envelope,) = envelopes("S", Batch(0, 1, "", [b""], identity, name, [number]))
            self.assertEqual(envelope.subject, subject_of("S", source(identity, name)))
            return envelope.headers[MESSAGE_ID]

        self.assertEqual(known_by(*one) == known_by(*two), one == two)

    def test_subjects(self) -> None:
        """Only what has ids has a subject of its own, so that nobody else makes the server keep one."""
        (plain,) = envelopes("S", Batch(0, 1, "", [b""], "alice", "dev"))
        (numbered,) = envelopes("S", Batch(0, 1, "", [b""], "alice", "dev.1", ["9"]))
        self.assertEqual((plain.subject, numbered.subject), ("S.plain", "S.from.alice.dev%2E1"))
        self.assertNotIn(MESSAGE_ID, plain.headers)

    def test_somebody_elses(self) -> None:
        """Messages of other programs are read as far as they can be."""
        self.assertEqual(
            record_of(3, "1970-01-01T00:00:02.500000001Z", {}, b"x"), Record(3, 2.5, 0, "", "", "", "", b"x")
        )
        odd = {"Mt-Time": "soon", "Mt-Client": "inf", "Mt-Address": "%zz%", "Mt-Name": "%ff"}
        self.assertEqual(record_of(3, "never", odd, b"x")[:4], (3, 0.0, 0, "%zz%"))
        self.assertEqual(record_of(3, "never", {}, b"x").time, 0.0)

    def test_size(self) -> None:
        """The size that counts against the server's limit is at least that which is sent."""
        (envelope,) = envelopes("S", Batch(1.5, 1, "192.0.2.1:5", [b"x" * 1000], "alice", "dev", ["1"]))
        more = {"Nats-Batch-Id": "x" * 24 + "-1000000", "Nats-Batch-Sequence": "1000", "Nats-Batch-Commit": "1"}
        lines = [f"{name}: {value}\r\n" for name, value in {**envelope.headers, **more}.items()]
        self.assertGreaterEqual(size_of(envelope), len("NATS/1.0\r\n" + "".join(lines) + "\r\n") + 1000)


def wanted(ack: str = DURABLE, *, syncs: bool = True, replicas: int = 0, **more: Any) -> Requirements:
    options = JetStreamOptions("S", replicas, syncs)
    return Requirements(options, ack, **{"window": 86400, "keep": Keep(), "size": 65536, "ids": True, **more})


def config(asked: Requirements, **more: Any) -> dict[str, Any]:
    return {**configuration(asked), "max_msg_size": -1, **more}


class Streams(SynchronousTestCase):
    def test_level(self) -> None:
        """Replicated takes three replicas and servers that sync; without the latter all is only accepted."""
        for replicas, syncs, more, level in (
            (3, True, {}, REPLICATED),
            (5, True, {}, REPLICATED),
            (2, True, {}, DURABLE),
            (1, True, {}, DURABLE),
            (3, False, {}, ACCEPTED),
            (1, False, {}, ACCEPTED),
            (3, True, {"storage": "memory"}, ACCEPTED),
            (1, True, {"persist_mode": "async"}, ACCEPTED),
        ):
            asked = wanted(ACCEPTED, syncs=syncs)
            found = judge(config(asked, num_replicas=replicas, **more), asked, 10**6, (2, 15))
            self.assertEqual(found.level, level, (replicas, syncs, more))
            self.assertEqual(found.trouble, "")

    def test_never_lowered(self) -> None:
        """A stream that promises less than --ack is not used, and why is said."""
        asked = wanted(REPLICATED)
        found = judge(config(asked, num_replicas=1), asked, 10**6, (2, 15))
        self.assertEqual(found.trouble, "it is durable at most (file storage, 1 replica), and --ack is replicated")
        self.assertEqual(judge(config(asked), asked, 10**6, (2, 15)).trouble, "")

    def test_made(self) -> None:
        """A new stream is judged to be as asked for, without notes and with replicas enough."""
        for asked, replicas in ((wanted(), 1), (wanted(REPLICATED), 3), (wanted(replicas=5), 5), (wanted(window=0), 1)):
            found = config(asked)
            self.assertEqual(found["num_replicas"], replicas)
            self.assertEqual(judge(found, asked, 10**6, (2, 15)).notes, ())
        kept = config(wanted(keep=Keep(3600, 10**9)))
        self.assertEqual((kept["max_age"], kept["max_bytes"]), (3600 * SECOND, 10**9))
        self.assertEqual(kept["duplicate_window"], 3600 * SECOND, "a server takes no longer one")

    def test_what_cannot_be_used(self) -> None:
        """Streams to which nothing of ours can be published."""
        asked = wanted()
        for more, why in (
            ({"no_ack": True}, "acknowledges nothing"),
            ({"sealed": True}, "nothing can be published"),
            ({"mirror": {"name": "T"}}, "nothing can be published"),
            ({"subjects": ["T.>"]}, "does not take the subjects S.>"),
            ({"subjects": ["S"]}, "does not take"),
            ({"subjects": ["S.plain"]}, "does not take"),
            ({"subjects": ["S.*"]}, "does not take"),
            ({"subjects": None}, "does not take"),
        ):
            self.assertIn(why, judge(config(asked, **more), asked, 10**6, (2, 15)).trouble)
        for subjects in (["S.>"], [">"], ["T", "S.plain", "S.from.*.*"], ["*.plain", "S.from.>"]):
            self.assertEqual(judge(config(asked, subjects=subjects), asked, 10**6, (2, 15)).trouble, "")

    def test_notes(self) -> None:
        """Each way in which a stream is not what was asked for is said."""
        asked = wanted(keep=Keep(3600, 10**9), window=600)
        for more, note in (
            ({"max_age": 0}, "it keeps messages for 0 s (0: for ever), and --keep says 3600 s"),
            ({"max_bytes": -1}, "it keeps 0 bytes (0: no limit), and --keep says 1000000000"),
            ({"allow_atomic": False}, "cannot store several messages all or none"),
        ):
            (found,) = judge(config(asked, **more), asked, 10**6, (2, 15)).notes
            self.assertIn(note, found)

    def test_kept_for_less(self) -> None:
        """A stream that keeps less than all is noted also where --keep says nothing, and not for saying the same."""
        asked = wanted(window=600)
        for more, note in (
            ({"max_age": 2 * SECOND}, "it keeps messages for 2 s (0: for ever), and --keep says nothing of that"),
            ({"max_bytes": 9}, "it keeps 9 bytes (0: no limit), and --keep says nothing of that"),
        ):
            self.assertEqual(judge(config(asked, **more), asked, 10**6, (2, 15)).notes, (note,))
        self.assertEqual(judge(config(asked, max_bytes=0), asked, 10**6, (2, 15)).notes, ())

    def test_dropped(self) -> None:
        """A stream that drops what it has acknowledged by rules that are nobody's here is not used."""
        asked = wanted()
        new: dict[str, object] = {"discard": "new"}
        each: dict[str, object] = {"max_msgs_per_subject": 1}
        wrong: list[tuple[dict[str, object], str]] = [
            ({"retention": "interest"}, "it drops what it has acknowledged (retention interest)"),
            ({"retention": "workqueue", **new}, "(retention workqueue)"),
            ({"max_msgs": 3}, "(max_msgs 3, discard old)"),
            (each, "(max_msgs_per_subject 1, without discard_new_per_subject)"),
            ({**each, **new}, "(max_msgs_per_subject 1, without discard_new_per_subject)"),
            ({"subject_transform": {"src": "S.>", "dest": "T.>"}}, "under other subjects"),
        ]
        for changed, why in wrong:
            self.assertIn(why, judge(config(asked, **changed), asked, 10**6, (2, 15)).trouble)
        for more in ({"max_msgs": 3, **new}, {**each, **new, "discard_new_per_subject": True}, {"max_msgs": -1}):
            self.assertEqual(judge(config(asked, **more), asked, 10**6, (2, 15)).trouble, "")

    def test_larger_messages(self) -> None:
        """A message of --max-message has to fit, with its headers."""
        asked = wanted(size=1000)
        for payload, most, size in ((10**6, -1, 10**6), (10**6, 20_000, 20_000), (17_384, 10**6, 17_384)):
            found = judge(config(asked, max_msg_size=most), asked, payload, (2, 15))
            self.assertEqual((found.size, found.trouble), (size, ""))
        for payload, most in ((17_383, -1), (10**6, 17_383)):
            found = judge(config(asked, max_msg_size=most), asked, payload, (2, 15))
            self.assertIn("a message may have 17383 bytes there", found.trouble)
            self.assertIn("--max-message is 1000", found.trouble)

    def test_largest_surroundings(self) -> None:
        """The room that is left for what is known of a message is enough for the largest there can be."""
        longest = "\N{GRINNING FACE}" * 1024
        (envelope,) = envelopes(
            "S" * 64, Batch(1e10 / 3, 2**64, "[" + "f" * 64 + "]:65535", [b""], longest, "*" * 64, ["*" * 64])
        )
        self.assertLess(size_of(envelope), _AROUND)

    def test_short_windows(self) -> None:
        """A stream that knows ids for less than --dedupe-window is not for messages that have any."""
        asked = wanted(window=600)
        short = {"duplicate_window": 599 * SECOND}
        self.assertIn("it knows ids for 599 s", judge(config(asked, **short), asked, 10**6, (2, 15)).trouble)
        self.assertEqual(judge(config(asked), asked, 10**6, (2, 15)).trouble, "")
        asked = wanted(window=600, ids=False)
        found = judge(config(asked, **short), asked, 10**6, (2, 15))
        self.assertEqual((found.trouble, found.knows_ids), ("", False))
        (note,) = found.notes
        self.assertIn("and --dedupe-window is 600: what a handler gives an id is refused", note)
        self.assertTrue(judge(config(asked), asked, 10**6, (2, 15)).knows_ids)

    def test_pages(self) -> None:
        """Pages are read at once only where the server knows how."""
        asked = wanted()
        self.assertTrue(judge(config(asked), asked, 1000, (2, 11)).is_direct)
        self.assertFalse(judge(config(asked), asked, 1000, (2, 10)).is_direct)
        self.assertFalse(judge(config(asked, allow_direct=False), asked, 10**6, (2, 15)).is_direct)


class Descriptions(SynchronousTestCase):
    def test_options(self) -> None:
        """A stream, how many replicas it is to have, and the operator's word."""
        self.assertEqual(parse_jetstream("S", ""), JetStreamOptions("S"))
        self.assertEqual(parse_jetstream("S_-9", "replicas=3&sync=always"), JetStreamOptions("S_-9", 3, True))

    def test_best(self) -> None:
        """The most that can be known before the stream is: nothing is promised without the operator's word."""
        for query, level in (
            ("", ACCEPTED),
            ("replicas=3", ACCEPTED),
            ("sync=always", REPLICATED),
            ("sync=always&replicas=2", DURABLE),
            ("sync=always&replicas=3", REPLICATED),
        ):
            self.assertEqual(best_level(parse_jetstream("S", query)), level)

    def test_wrong(self) -> None:
        """Mistakes in the options are named before anything is opened, and no password is repeated."""
        for journal, ack, reason in (
            ("nats://a", ACCEPTED, "--journal nats://a: not of the form nats://HOST"),
            ("nats:a/S", ACCEPTED, "--journal nats:a/S: not of the form nats://HOST"),
            ("nats://a/S.T", ACCEPTED, "the name 'S.T' is not made of"),
            ("nats://a/S?replicas=6", ACCEPTED, "behind the ? may stand"),
            ("nats://a/S?sync=sometimes", ACCEPTED, "behind the ? may stand"),
            ("nats://a/S", DURABLE, "--ack durable: --journal nats://a/S is accepted at most"),
            ("nats://a/S?sync=always&replicas=2", REPLICATED, "is durable at most; say ?replicas=3"),
            ("nats://me:secret@a/S?sync=always", DURABLE, "a user or password has no place there"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                check_journal(Settings(journal=journal, ack=ack))
            self.assertIn(reason, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))


class Healths(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.health = Health("S")

    @property
    def said(self) -> list[str]:
        return self.logged(LogLevel.warn, LogLevel.error, namespace="mtserver.journal")

    def test_refused_in_turn_with_others(self) -> None:
        """However often one is refused in turn with others who are not: a line, and one a minute while it goes on."""
        for minute in range(3):
            for _ in range(60):
                self.health.refused("full\nof it")
                self.assertEqual(self.health.trouble, "")
                self.health.stored()
                self.health.tick()
            self.assertEqual(len(self.said), minute + 2)
        self.assertEqual(self.said[0], r"the stream S has refused to store: full\nof it")
        self.assertEqual(self.said[-1], r"the stream S has refused to store 60 times more: full\nof it")
        for _ in range(120):
            self.health.tick()
        self.assertEqual(len(self.said), 4, "it is over")

    def test_seen_and_not_stored(self) -> None:
        """After an acknowledgement that did not come, it is back when something is stored, not when it can be seen."""
        self.health.lost("no acknowledgement", until_stored=True)
        for _ in range(3):
            self.health.back()
            self.health.lost("no acknowledgement", until_stored=True)
        self.assertEqual(self.health.trouble, "no acknowledgement")
        self.health.stored()
        self.assertEqual((self.health.trouble, len(self.said)), ("", 2))
        self.health.lost("the connection was lost")
        self.health.back()
        self.assertEqual((self.health.trouble, self.said[-1]), ("", "the stream S is back"))

    def test_everything_refused(self) -> None:
        """Refused, and nothing stored since: that is the trouble which is told, until something is stored."""
        self.health.refused("full")
        self.health.tick()
        self.assertEqual(self.health.trouble, "full")
        self.health.stored()
        self.assertEqual(self.health.trouble, "")

    def test_away(self) -> None:
        """Each reason is said once until it is back, however they take turns; and what is away is not well for that."""
        for _ in range(50):
            self.health.lost("one")
            self.health.lost("two")
        self.health.stored()
        self.assertEqual(self.health.trouble, "two")
        self.health.back()
        self.health.back()
        self.assertEqual((self.health.trouble, len(self.said)), ("", 3))
        self.assertEqual(self.said[1:], ["the stream S cannot store: two", "the stream S is back"])

    def test_words_without_end(self) -> None:
        """However many reasons a server gives, the lines in the log are few."""
        for number in range(1000):
            self.health.refused(f"number {number}")
            self.health.lost(f"number {number}")
        self.assertEqual(len(self.said), 40)


class Behind:
    """
    Servers as far as reading needs them: the leader of a stream, and a replica that has only its first messages.

    :param seen: how many the replica has.
    :param most: in one page of it.
    """

    is_connected = True

    def __init__(self, messages: list[bytes], seen: int, most: int = 100) -> None:
        #: How often the leader was asked.
        self.requests = 0
        self._most = most
        self._messages = messages
        self._seen = seen
        self._answers: list[Any] = []

    subject = "inbox"

    def new_inbox(self) -> str:
        return self.subject

    async def subscribe(self, _subject: str) -> Any:
        return self

    async def unsubscribe(self) -> None:
        self._answers.clear()

    async def next_msg(self, _timeout: float) -> Any:
        return self._answers.pop(0)

    async def publish(self, _subject: str, message: bytes, reply: str) -> None:
        asked = json.loads(message)
        numbers = range(asked["seq"], min(asked["seq"] + min(asked["batch"], self._most), self._seen + 1))
        for number in numbers:
            headers = {"Nats-Sequence": str(number), "Nats-Time-Stamp": ""}
            self._answers.append(SimpleNamespace(headers=headers, data=self._messages[number - 1]))
        pending = str(self._seen - numbers[-1]) if numbers else ""
        last = {"Status": "204", "Nats-Num-Pending": pending} if numbers else {"Status": "404"}
        self._answers.append(SimpleNamespace(headers=last, data=b""))

    async def request(self, _subject: str, message: bytes, **_: Any) -> Any:
        self.requests += 1
        number = json.loads(message)["seq"]
        answer: dict[str, Any] = {"error": {"err_code": NO_MESSAGE}}
        if number <= len(self._messages):
            data = base64.b64encode(self._messages[number - 1]).decode()
            answer = {"message": {"seq": number, "time": "", "data": data}}
        return SimpleNamespace(data=json.dumps(answer).encode())


class Reading(SynchronousTestCase):
    def test_behind(self) -> None:
        """Exactly the leader's messages are read, however far behind the replica of the pages is."""
        messages = [b"%d" % number for number in range(1, 8)]
        for seen in (0, 3, 7):
            for after, limit in ((0, 100), (0, 3), (2, 3), (5, 1), (7, 5), (6, 5)):
                servers: Any = Behind(messages, seen)
                found = run(reading.read(servers, "S", after, limit, is_direct=True))
                self.assertEqual([each.message for each in found], messages[after : after + limit])
                self.assertEqual([each.sequence for each in found], list(range(after + 1, 8))[:limit])

    def test_pages(self) -> None:
        """The leader is not asked as long as there are more pages."""
        servers: Any = Behind([b"x"] * 7, 7, most=2)
        found = run(reading.read(servers, "S", 0, 100, is_direct=True))
        self.assertEqual([each.sequence for each in found], list(range(1, 8)))
        self.assertEqual(servers.requests, 1)


class Memory:
    """A server as far as publishing needs one: nats-py's client in front of a list. Its `failures` say what fails."""

    is_connected = True

    def __init__(self, failures: dict[int, Exception] | None = None, most: int = 1000) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.known: dict[str, int] = {}
        self.requests = 0
        #: Ids that somebody else has on their way, and for how many requests yet; subjects that take no more.
        self.busy: dict[str, int] = {}
        self.full: set[str] = set()
        self._failures = failures or {}
        self._batches: dict[str, list[Envelope]] = {}
        self._most = most

    async def publish(self, subject: str, message: bytes, headers: dict[str, str]) -> None:
        self._batches.setdefault(headers["Nats-Batch-Id"], []).append(Envelope(subject, headers, message))

    async def request(self, subject: str, message: bytes, *, headers: dict[str, str], **_: float) -> Any:
        self.requests = number = self.requests + 1
        await asyncio.sleep(0)
        if number in self._failures:
            raise self._failures[number]
        envelope = Envelope(subject, headers, message)
        wrong = self._refusal([*self._batches.get(headers.get("Nats-Batch-Id", ""), []), envelope])
        answer: dict[str, Any]
        if wrong:
            answer = {"error": {"err_code": wrong, "description": f"number {wrong}"}}
        elif "Nats-Batch-Id" in headers:
            answer = self._go(headers["Nats-Batch-Id"], envelope)
        else:
            known = self.known.get(headers.get(MESSAGE_ID, ""))
            answer = {"seq": known, "duplicate": True} if known else {"seq": self._keep(envelope)}
        return SimpleNamespace(data=json.dumps({"stream": "S", **answer}).encode(), headers=None)

    def _refusal(self, envelopes: list[Envelope]) -> int:
        """The number with which they are refused, whatever else is with them; 0: they are not."""
        for each in envelopes:
            number = each.headers.get(MESSAGE_ID, "")
            if self.busy.get(number, 0) > 0:
                self.busy[number] -= 1
                return IN_PROCESS
            if each.subject in self.full and number not in self.known:
                return 10077
        return 0

    def _go(self, name: str, last: Envelope) -> dict[str, Any]:
        batch = [*self._batches.pop(name, []), last]
        ids = [each.headers[MESSAGE_ID] for each in batch if MESSAGE_ID in each.headers]
        assert [each.headers["Nats-Batch-Sequence"] for each in batch] == [str(n + 1) for n in range(len(batch))]
        if len(batch) > self._most:
            return {"error": {"err_code": 10199, "description": "too large"}}
        if len(set(ids)) != len(ids) or any(each in self.known for each in ids):
            return {"error": {"err_code": 10201, "description": "duplicate"}}
        return {"seq": [self._keep(each) for each in batch][-1], "batch": name, "count": len(batch)}

    def _keep(self, envelope: Envelope) -> int:
        self.stored.append((envelope.headers.get(MESSAGE_ID, ""), envelope.message))
        number = len(self.stored)
        if MESSAGE_ID in envelope.headers:
            self.known[envelope.headers[MESSAGE_ID]] = number
        return number


def publish(memory: Memory, *batches: Batch, is_atomic: bool = True) -> list[Stored | Exception]:
    async def work() -> list[Stored | Exception]:
        publisher = Publisher(cast("Any", memory), "S", is_atomic=is_atomic)
        pending = [Delivery(batch.client, envelopes("S", batch)) for batch in batches]
        outcomes = await publisher.store(pending)
        while None in outcomes:
            await publisher.store([each for each in pending if each.outcome is None])
            outcomes = [each.outcome for each in pending]
        return [outcome for outcome in outcomes if outcome is not None]

    return run(work())


def plain(*messages: bytes, client: int = 1) -> Batch:
    return Batch(0, client, "", messages)


def numbered(name: str, *ids: str, client: int = 1) -> Batch:
    return Batch(0, client, "", [f"{name}{each}".encode() for each in ids], "", name, ids)


class Publishing(SynchronousTestCase):
    def test_together(self) -> None:
        """Many batches are one go, acknowledged by one answer; each has its own numbers, in their order."""
        memory = Memory()
        outcomes = publish(memory, *[plain(b"%d" % number, b"x") for number in range(100)])
        self.assertEqual(memory.requests, 1)
        self.assertEqual([outcome.sequences for outcome in outcomes if isinstance(outcome, Stored)][99], [199, 200])
        self.assertEqual(memory.stored[198:], [("", b"99"), ("", b"x")])

    def test_few(self) -> None:
        """A few single messages go one by one; several of one client never do."""
        memory = Memory()
        publish(memory, plain(b"a"), plain(b"b"))
        self.assertEqual(memory.requests, 2)
        publish(memory, plain(b"c", b"d"))
        self.assertEqual(memory.requests, 3)

    def test_larger_than_a_go(self) -> None:
        """More than a server takes in one go are several, in their order."""
        memory = Memory()
        messages = [b"%d" % number for number in range(2500)]
        (outcome,) = publish(memory, plain(*messages))
        self.assertEqual((outcome, memory.requests), (Stored(list(range(1, 2501))), 3))
        self.assertEqual([message for _, message in memory.stored], messages)

    def test_known_and_new(self) -> None:
        """Sent again with more behind: the known have the numbers that they have, the rest goes together."""
        memory = Memory()
        publish(memory, numbered("a", "1", "2"))
        (outcome,) = publish(memory, numbered("a", "1", "2", "3", "4", "5"))
        self.assertEqual(outcome, Stored([1, 2, 3, 4, 5], frozenset({0, 1})))
        self.assertEqual(memory.requests, 1 + 1 + 3 + 1)

    def test_refused(self) -> None:
        """An atomic publish that is refused, or not answered, is no success for any client with messages in it."""
        for error in (NoRespondersError(), TimeoutError()):
            memory = Memory({1: error})
            outcomes = publish(memory, *[plain(b"x") for _ in range(20)])
            self.assertEqual(memory.stored, [])
            kinds = {type(outcome) for outcome in outcomes}
            self.assertEqual(kinds, {Refused if isinstance(error, NoRespondersError) else TimeoutError})

    def test_one_is_full(self) -> None:
        """A refusal of one client's messages is that client's alone: others in the atomic publish are stored."""
        memory = Memory()
        memory.full = {subject_of("S", source("", "s5"))}
        outcomes = publish(memory, *[numbered(f"s{client}", "1", "2", client=client) for client in range(12)])
        self.assertEqual(
            [type(each) for each in outcomes], [Refused if client == 5 else Stored for client in range(12)]
        )
        self.assertEqual(len(memory.stored), 22)

    def test_on_its_way_elsewhere(self) -> None:
        """An id that comes through another node at the same time: that client waits, and nobody is refused."""
        memory = Memory()
        (busy, _) = (each.headers[MESSAGE_ID] for each in envelopes("S", numbered("s5", "1", "2")))
        memory.busy = {busy: 6}
        outcomes = publish(memory, *[numbered(f"s{client}", "1", "2", client=client) for client in range(12)])
        self.assertEqual({type(each) for each in outcomes}, {Stored})
        self.assertEqual([message for _, message in memory.stored if message.startswith(b"s5")], [b"s51", b"s52"])
        self.assertEqual(memory.stored[-1][1], b"s52", "the others have waited for it")

    def test_one_client_after_another(self) -> None:
        """Where one client's batch is not stored, what it has sent behind that is not either, though others' is."""
        memory = Memory({1: Refused("no", 1), 2: TimeoutError()})
        sent = [numbered("a", "1", client=1), numbered("a", "2", client=1), numbered("b", "1", client=2)]
        outcomes = publish(memory, *sent)
        self.assertEqual([type(each) for each in outcomes[:2]], [Refused, Refused])
        memory = Memory()
        memory.full = {subject_of("S", source("", "a"))}
        outcomes = publish(memory, sent[0], plain(b"behind", client=1), sent[2])
        self.assertEqual([type(each) for each in outcomes], [Refused, Refused, Stored])
        self.assertEqual([message for _, message in memory.stored], [b"b1"])

    def test_slices(self) -> None:
        """Many that were stored before hold nobody up: all others are done after a slice of them."""
        memory = Memory()
        known = numbered("a", *map(str, range(500)))
        publish(memory, known)

        async def work() -> tuple[Any, int]:
            publisher = Publisher(cast("Any", memory), "S", is_atomic=True)
            slow, quick = (
                Delivery(each.client, envelopes("S", each)) for each in (known, numbered("b", "1", client=2))
            )
            outcomes = await publisher.store([slow, quick])
            again, later = memory.requests, Delivery(2, envelopes("S", plain(*[b"x"] * 20, client=2)))
            self.assertEqual((await publisher.store([slow, later]))[1], Stored(list(range(502, 522))))
            return outcomes, memory.requests - again

        (slow, quick), requests = run(work())
        self.assertEqual((slow, quick), (None, Stored([501])))
        self.assertEqual(requests, SLICE + 1)
        (outcome,) = publish(memory, known)
        self.assertEqual(outcome, Stored(list(range(1, 501)), frozenset(range(500))))

    def test_another_stream(self) -> None:
        """An acknowledgement of another stream, or of another number of messages, is none."""

        class Other(Memory):
            lie: ClassVar[dict[str, Any]]

            async def request(self, *args: Any, **more: Any) -> Any:
                answer = json.loads((await super().request(*args, **more)).data)
                return SimpleNamespace(data=json.dumps({**answer, **self.lie}).encode(), headers=None)

        for lie in ({"stream": "T"}, {"count": 1}, {"batch": "another"}, {"seq": 0}, {"seq": None}):
            Other.lie = lie
            memory = Other()
            (outcome,) = publish(memory, plain(b"a", b"b"))
            self.assertIsInstance(outcome, OSError, str(lie))

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from("123456"), min_size=1, max_size=5), min_size=1, max_size=8),
        st.lists(st.sampled_from("123456"), max_size=4),
        st.dictionaries(
            st.integers(1, 12), st.sampled_from([TimeoutError(), NoRespondersError(), Refused("no", 1)]), max_size=3
        ),
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from("123456"), st.integers(1, 3)), max_size=2),
        st.lists(st.integers(0, 2), min_size=8, max_size=8),
        st.booleans(),
    )
    def test_once_and_never_overtaken(  # noqa: PLR0917 - hypothesis gives them
        self,
        sent: list[list[str]],
        before: list[str],
        failures: dict[int, Exception],
        busy: list[tuple[int, str, int]],
        clients: list[int],
        is_atomic: bool,
    ) -> None:
        """Faults of any kind: an id is stored once, a success is true, a batch's stored part is its beginning."""
        memory = Memory()
        for number, each in enumerate(dict.fromkeys(before)):
            # Known already, of some of the sources.
            publish(memory, numbered(f"s{number % 3}", each))
        memory.busy = {f"=.s{place}.{number}": count for place, number, count in busy}
        memory._failures = {memory.requests + number: error for number, error in failures.items()}
        known = dict(memory.known)
        batches = [numbered(f"s{place}", *ids, client=clients[place]) for place, ids in enumerate(sent)]
        outcomes = publish(memory, *batches, is_atomic=is_atomic)
        self.assertEqual(len({number for number, _ in memory.stored}), len(memory.stored))
        for client in set(clients):
            theirs = [
                name in memory.known
                for batch in batches
                if batch.client == client
                for name in dict.fromkeys(each.headers[MESSAGE_ID] for each in envelopes("S", batch))
                if name not in known
            ]
            self.assertEqual(theirs, sorted(theirs, reverse=True), "a gap")
        for batch, outcome in zip(batches, outcomes, strict=True):
            names = [each.headers[MESSAGE_ID] for each in envelopes("S", batch)]
            new = [name in memory.known for name in dict.fromkeys(names) if name not in known]
            self.assertEqual(new, sorted(new, reverse=True), "overtaken")
            if isinstance(outcome, Stored):
                self.assertEqual(list(outcome.sequences), [memory.known[name] for name in names])
                fresh = [name for place, name in enumerate(names) if place not in outcome.duplicates]
                self.assertEqual(fresh, list(dict.fromkeys(name for name in names if name not in known)))


def journal_on(store: Any, *, ack: str = ACCEPTED, level: str = ACCEPTED) -> JetStreamJournal:
    """A journal that publishes with that and has found its stream, though there are no servers. In a running loop."""
    journal = JetStreamJournal(Address((("a", 4222),), name="S"), wanted(ack=ack))
    for task in journal._tasks:
        task.cancel()
    journal._examined.set()
    journal._judgement = Judgement(level, size=1000, knows_ids=True)
    journal._publisher = cast("Any", SimpleNamespace(store=store))
    return journal


class Queues(SynchronousTestCase):
    def test_given_up(self) -> None:
        """The connection is lost: what is under way is refused at once, also if nothing below it can be cancelled."""

        async def work() -> None:
            begun, let_go = asyncio.Event(), asyncio.Event()

            async def stubborn(_: object) -> list[Stored | Exception | None]:
                begun.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                await let_go.wait()
                return []

            journal = journal_on(stubborn)
            one = journal.append(plain(b"x"))
            await begun.wait()
            two = journal.append(plain(b"y"))
            journal._lost("the connection was lost")
            try:
                self.assertEqual((journal._under_way, journal._queue.size), (None, 0))
            finally:
                let_go.set()
            for each in (one, two):
                with self.assertRaises(Unavailable):
                    await each

        run(work())

    def test_less_than_asked_for(self) -> None:
        """A stream becomes less than --ack says while something is under way: that is not acknowledged, either."""

        async def work() -> None:
            begun, answered = asyncio.Event(), asyncio.Event()

            async def store(_: object) -> list[Stored | Exception | None]:
                begun.set()
                await answered.wait()
                return [Stored([1])]

            journal = journal_on(store, ack=DURABLE, level=DURABLE)
            journal._link = cast("Any", SimpleNamespace(connected=True))
            appended = journal.append(plain(b"x"))
            await begun.wait()
            journal._judged(cast("Any", None), Judgement(ACCEPTED, trouble="it is accepted at most"))
            answered.set()
            with self.assertRaises(Unavailable):
                await appended

        run(work())

    def test_behind_what_was_refused(self) -> None:
        """A client's batch is refused: what it has sent behind it meanwhile is too, and what others sent is not."""

        async def work() -> list[Any]:
            begun = asyncio.Event()
            answers: asyncio.Queue[Any] = asyncio.Queue()

            async def store(pending: list[Delivery]) -> list[Any]:
                begun.set()
                return [await answers.get() for _ in pending]

            journal = journal_on(store)
            first = journal.append(plain(b"x", client=1))
            await begun.wait()
            rest = [journal.append(plain(b"y", client=client)) for client in (1, 2)]
            for each in (Refused("full", 1), Stored([1]), Stored([2])):
                answers.put_nowait(each)

            async def outcome(awaitable: Any) -> Any:
                try:
                    return await awaitable
                except Unavailable as error:
                    return error

            found = [await outcome(each) for each in (first, *rest)]
            self.assertEqual(journal._queue.size, 0)
            return found

        refused, behind, other = run(work())
        self.assertEqual((type(refused), type(behind), other), (Unavailable, Unavailable, Stored([1])))


class Controls(ControlCase):
    def test_acknowledgement_of_another_stream(self) -> None:
        """P7: whatever is answered is an acknowledgement."""
        with self.noticed_by(Publishing, "test_another_stream"):
            self.patch(Publisher, "_number", lambda _publisher, answer: answer.get("seq") or 1)

    def test_less_than_asked_for(self) -> None:
        """P7: a stream that has become less than --ack asks for is trusted with what was under way."""
        with self.noticed_by(Queues, "test_less_than_asked_for"):
            self.ignore(Judgement, "trouble", "")

    def test_replicated_without_a_sync(self) -> None:
        """P1: what its servers have not synced is called durable."""
        with self.noticed_by(Streams, "test_level"):
            self.ignore(JetStreamOptions, "syncs", value=True)
