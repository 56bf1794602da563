"""A node and NATS, for real: TLS, credentials, servers that are old, away, stopped, or back without what they had."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
from functools import partial
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from mtserver.groups.members import SHEET

from .certificates import SERVER, Made
from .nats import Nats, old_server
from .operator import Operator
from .server import Server, run_to_end, wait_until
from .streams import api, done
from .test_groups import MODULES, ask, knows, node, nodes

BUCKET = "KV_mtserver-presence"
#: A bucket as its operator might make it.
KEPT = {
    "name": BUCKET,
    "subjects": ["$KV.mtserver-presence.>"],
    "max_msgs_per_subject": 1,
    "discard": "new",
    "storage": "memory",
    "allow_rollup_hdrs": True,
    "allow_direct": True,
}
THERE, AWAY = "NATS is there: ", "NATS is away, and tried again: "


class NatsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="mtserver-nats-")))


class Refused(NatsCase):
    def refused(self, *options: str, twistd: tuple[str, ...] = ()) -> str:
        ended = run_to_end(self.folder, *options, twistd=twistd)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        return ended.stderr

    def test_mistakes(self) -> None:
        """A wrong address, a missing file and a reactor without asyncio are one line each, before any port is open."""
        self.assertIn("is not a server's HOST:PORT", self.refused("--groups", "nats://:4222"))
        missing = self.refused("--groups", "nats://127.0.0.1", "--nats-credentials", "none.creds")
        self.assertIn("--nats-credentials none.creds: No such file", missing)
        poll = self.refused("--groups", "nats://127.0.0.1", twistd=("--reactor=epoll",))
        self.assertIn("needs a reactor on asyncio, and EPollReactor is not", poll)


class Security(NatsCase):
    def test_tls(self) -> None:
        """Over TLS, with a server that the authority has signed for this name; with no other, and never without."""
        authority = Made.authority("ca")
        here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        Made("nats", here, by=authority, usage=[SERVER]).write(self.folder)
        (self.folder / "ca.pem").write_bytes(authority.pem)
        config = f'tls {{ cert_file: "{self.folder}/cert.pem", key_file: "{self.folder}/key.pem" }}\n'
        nats = self.stack.enter_context(Nats(config=config, scheme="tls"))
        trusting = self.stack.enter_context(node(nats, "--nats-ca", str(self.folder / "ca.pem")))
        self.assertEqual(ask(trusting, "connected"), "True")
        trusting.wait_for_log(f"{THERE}tls://")
        stranger = self.stack.enter_context(node(nats))
        stranger.wait_for_log(f"{AWAY}tls://.*(?i:certificate verify failed)")
        self.assertEqual(ask(stranger, "connected"), "False")
        # The name is another's.
        Made("nats", [x509.DNSName("nats.example")], by=authority, usage=[SERVER]).write(self.folder)
        nats.kill()
        nats.start()
        trusting.wait_for_log(f"{AWAY}tls://.*(?i:mismatch|not valid for)")
        # It speaks TLS no more, and is told nothing in clear text.
        nats.kill()
        nats.configure("")
        nats.start()
        trusting.wait_for_log(f"{AWAY}tls://.*the server does not speak TLS")
        self.assertEqual(ask(trusting, "connected"), "False")
        closed = nats.monitor(0, "connz?state=closed")["connections"]
        self.assertEqual({connection.get("lang") for connection in closed}, {None})

    def test_clear_text(self) -> None:
        """A server that wants TLS and is not asked for it is named."""
        Made("nats", by=None).write(self.folder)
        config = f'tls {{ cert_file: "{self.folder}/cert.pem", key_file: "{self.folder}/key.pem" }}\n'
        server = self.stack.enter_context(node(self.stack.enter_context(Nats(config=config))))
        server.wait_for_log(f"{AWAY}nats://.*the server speaks TLS only; say tls://")

    def test_credentials(self) -> None:
        """A node comes in with its credentials; new ones in the file are used from the next attempt on."""
        operator = Operator()
        nats = self.stack.enter_context(Nats(config=operator.config, jetstream=""))
        first, credentials = operator.user()
        file = self.folder / "node.creds"
        file.write_text(credentials)
        server = self.stack.enter_context(node(nats, "--nats-credentials", str(file)))
        without = self.stack.enter_context(node(nats))
        self.assertEqual((ask(server, "connected"), ask(without, "connected")), ("True", "False"))
        without.wait_for_log(f"{AWAY}.*Authorization Violation")
        operator.revoke(first)
        nats.kill()
        nats.configure(operator.config)
        nats.start()
        server.wait_for_log(f"{AWAY}.*Authorization Violation")
        self.assertEqual(ask(server, "connected"), "False")
        _, renewed = operator.user()
        file.write_text(renewed)
        wait_until(lambda: server.log.count(THERE) == 2, "a connection with new credentials")
        for line in (*credentials.splitlines(), *renewed.splitlines()):
            if line and not line.startswith("-"):
                self.assertNotIn(line, server.log)


class Servers(NatsCase):
    def test_old(self) -> None:
        """A server that is too old is told from one that is away."""
        with old_server() as port:
            options = ("--app", "rooms:Rooms", "--groups", f"nats://127.0.0.1:{port}")
            with Server(*options, modules=MODULES) as server:
                server.wait_for_log(rf"{AWAY}.*it is nats-server 2\.9\.0, and 2\.10 is the oldest that will do")
                self.assertEqual(ask(server, "connected"), "False")

    def test_away_at_first(self) -> None:
        """A node serves while NATS is away, and takes part when it is there; each is logged once."""
        with Nats() as nats:
            nats.kill()
            first, second = (self.stack.enter_context(node(nats)) for _ in range(2))
            with first.connect() as one, second.connect() as two:
                self.assertEqual(one.exchange(b"connected", b"join a x"), [b"False", b"ok"])
                self.assertEqual(
                    two.exchange(b"join a y", b"many a 1 3"), [b"ok", b"! a 1", b"! a 2", b"! a 3", b"ok"][:2]
                )
                self.assertEqual(two.lines(3), [b"! a 2", b"! a 3", b"ok"])
                nats.start()
                for server in (first, second):
                    wait_until(partial(knows, server, 2, "a"), "both")
                self.assertEqual(two.exchange(b"others a hello"), [b"ok"])
                self.assertEqual(one.line(), b"! a hello")
            for server in (first, second):
                self.assertEqual((server.log.count(THERE), server.log.count(AWAY)), (1, 1))
            second.wait_for_log("members on other nodes have missed 3 messages to groups")

    def test_forgotten(self) -> None:
        """After all of NATS has been away, and lost all it knew, nobody is missing and nobody is left over."""
        with Nats() as nats:
            first, second = nodes(self.stack, nats, 2)
            with first.connect() as one, second.connect() as two, second.connect() as three:
                for peer in (one, two, three):
                    peer.exchange(b"join a")
                wait_until(lambda: knows(first, 3, "a"), "all three")
                nats.kill()
                first.wait_for_log(AWAY)
                three.reset()
                self.assertEqual(one.exchange(b"join b"), [b"ok"])
                nats.start()
                for server in (first, second):
                    wait_until(partial(knows, server, 2, "a"), "two")
                wait_until(lambda: knows(second, 1, "b"), "one")
                # One that comes now reads it from the bucket.
                third = self.stack.enter_context(node(nats))
                wait_until(lambda: knows(third, 2, "a") and knows(third, 1, "b"), "a third node's view")

    def test_more_servers(self) -> None:
        """What was stored while there was one server gets its copies when there are three."""
        with Nats(3) as nats:
            with node(nats):
                wait_until(lambda: self.copies(nats) == 3, "three copies")
            bucket = done(api(nats, "STREAM.INFO.KV_mtserver-presence"))["config"]
            done(api(nats, "STREAM.UPDATE.KV_mtserver-presence", **{**bucket, "num_replicas": 1}))
            self.assertEqual(self.copies(nats), 1)
            self.stack.enter_context(node(nats))
            wait_until(lambda: self.copies(nats) == 3, "three copies again")

    def copies(self, nats: Nats) -> int:
        """Of the bucket; 0: there is none."""
        copies: int = api(nats, "STREAM.INFO.KV_mtserver-presence").get("config", {}).get("num_replicas", 0)
        return copies

    def test_bucket_deleted(self) -> None:
        """A bucket that is deleted while all are connected is made again, and all is in it that was."""
        with Nats() as nats, node(nats) as server, server.connect() as peer:
            peer.exchange(*(b"join %d" % number for number in range(SHEET + 1)))
            wait_until(lambda: self.sheets(nats) == 2, "two sheets stored")
            done(api(nats, f"STREAM.DELETE.{BUCKET}"))
            self.assertEqual(peer.exchange(b"join more"), [b"ok"])
            wait_until(lambda: self.sheets(nats) == 2, "both stored again, be it that one has not changed", 10)
            server.wait_for_log(
                "presence cannot be stored, and nodes that come now learn of it later: nobody answers: "
            )

    def test_bucket_refuses(self) -> None:
        """What the bucket refuses is said in the log, once, and tried until it is taken."""
        with Nats() as nats:
            done(api(nats, f"STREAM.CREATE.{BUCKET}", **{**KEPT, "max_msg_size": 4}))
            with node(nats) as server, server.connect() as peer:
                peer.exchange(b"join a")
                server.wait_for_log("presence cannot be stored.*: message size exceeds maximum allowed")
                refused = self.attempts(nats)
                wait_until(lambda: self.attempts(nats) > refused + 12, "more attempts")
                self.assertEqual(server.log.count("presence cannot be stored"), 1)
                done(api(nats, f"STREAM.UPDATE.{BUCKET}", **KEPT))
                wait_until(lambda: self.sheets(nats) == 1, "its sheet stored")

    def sheets(self, nats: Nats) -> int:
        """In the bucket; 0: there is none."""
        sheets: int = api(nats, f"STREAM.INFO.{BUCKET}").get("state", {}).get("num_subjects", 0)
        return sheets

    def attempts(self, nats: Nats) -> int:
        """Messages that the node has sent so far: signs of life, and at each of them an attempt."""
        count: int = nats.monitor(0, "varz")["in_msgs"]
        return count

    def test_without_jetstream(self) -> None:
        """Without JetStream nothing is stored, which is said once; nodes ask each other, and all is known."""
        with Nats(jetstream="") as nats:
            first = self.stack.enter_context(node(nats))
            with first.connect() as one:
                one.exchange(b"join a")
                second = self.stack.enter_context(node(nats))
                wait_until(lambda: knows(second, 1, "a"), "one")
                first.wait_for_log(
                    "presence cannot be stored, and nodes that come now learn of it later: nobody answers: "
                )
            wait_until(lambda: knows(second, 0, "a"), "none")
            self.assertEqual(first.log.count("presence cannot be stored"), 1)

    def test_largest(self) -> None:
        """What is larger than NATS takes is its sender's mistake; what is smaller arrives, however much it is."""
        with Nats(config="max_payload: 8192\n") as nats:
            first, second = nodes(self.stack, nats, 2)
            with first.connect() as one, second.connect() as two:
                two.exchange(b"join a")
                self.assertEqual(one.exchange(b"say a " + b"x" * 9000), [b"ERR internal the handler failed"])
                texts = [b"say a " + b"%d" % number * 7000 for number in range(1, 9)]
                self.assertEqual(one.exchange(*texts), [b"ok"] * 8)
                self.assertEqual([line[4:5] * 7000 for line in two.lines(8)], [text[6:] for text in texts])
            first.wait_for_log("a message to a group has 9004 bytes, and 8177 is what NATS takes")

    def test_goodbye(self) -> None:
        """A node that stops is gone at once, with its members, and leaves nothing behind."""
        with Nats() as nats:
            first, second = nodes(self.stack, nats, 2)
            with first.connect() as one, second.connect() as two:
                one.exchange(b"watch a")
                two.exchange(b"join a x")
                self.assertRegex(one.line(), rb"^\* a - \d+//x$")
                second.stop()
                two.rest()
                two.socket.close()
                self.assertRegex(one.line(), rb"^\* a \d+//x -$")
                self.assertEqual(second.wait(), 0)
            stored = nats.monitor(0, "jsz?streams=true")["account_details"][0]["stream_detail"][0]["state"]
            self.assertLessEqual(stored.get("num_subjects", 0), 1)
