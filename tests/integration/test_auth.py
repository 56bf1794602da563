"""Real clients, real hashes, and real tokens of a real authorization server."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.authcase import REFUSED, bearer, plain

from .certificates import write_certificate
from .issuer import Issuer
from .peer import DEADLINE
from .server import TCP, Server, needs, rows, run_to_end, wait_until

WHO = """
    async def who(client, message: bytes) -> bytes:
        return client.identity.encode()

    async def once(client, message: bytes) -> bytes:
        client.close()
        return client.identity.encode()
"""


class AuthCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def add(self, name: str, password: str) -> None:
        """By the command, as an operator would."""
        subprocess.run(
            [sys.executable, "-m", "mtserver.auth", "add", "users", name],
            cwd=self.folder,
            input=f"{password}\n",
            text=True,
            check=True,
            timeout=DEADLINE,
        )

    def says(self, server: Server, *messages: bytes) -> list[bytes]:
        """What one client reads to the end that has said this."""
        with server.connect() as peer:
            peer.send(b"".join(message + b"\n" for message in messages))
            peer.finish()
            return peer.rest().splitlines()


class TestPasswords(AuthCase):
    def test_collect(self) -> None:
        """With a file of passwords `collect` stores what its users send, and not a byte of anybody else's."""
        self.add("alice", "wonder land")
        with Server("--auth", "passwords:users", folder=self.folder) as server:
            good = plain("alice", "wonder land")
            self.assertEqual(self.says(server, good, b"one", b"two"), [b"OK", b"OK 1", b"OK 2"])
            self.assertEqual(self.says(server, plain("alice", "wrong"), b"canary"), [REFUSED])
            self.assertEqual(self.says(server, b"canary"), [REFUSED])
            self.assertEqual(self.says(server, good, b"three", good, b"canary"), [b"OK", b"OK 3", REFUSED])
            self.assertEqual([message for *_, message in rows(server.journal)], [b"one", b"two", b"three"])
            # The file is read again when it has changed.
            self.add("bob", "builder")
            self.assertEqual(self.says(server, plain("bob", "builder"), b"four"), [b"OK", b"OK 4"])
            server.stop()
            self.assertEqual(server.wait(), 0)
            for secret in ("wonder land", "builder", base64.b64encode(b"\0alice\0wonder land").decode()):
                self.assertNotIn(secret, server.log)

    def test_over_tls(self) -> None:
        """Openssl s_client logs in over TLS."""
        openssl = needs("openssl", "openssl")
        self.add("alice", "wonder")
        port = write_certificate(self.folder)
        modules = {"who": WHO}
        options = ("--auth", "passwords:users", "--app", "who:once")
        with Server(*options, folder=self.folder, ports=[port], modules=modules) as server:
            done = subprocess.run(
                [openssl, "s_client", "-quiet", "-connect", f"127.0.0.1:{server.port}"],
                input=plain("alice", "wonder") + b"\nhello\n",
                capture_output=True,
                timeout=DEADLINE,
                check=False,
            )
            self.assertEqual(done.stdout, b"OK\nalice\n")

    def test_a_flood_of_wrong_passwords(self) -> None:
        """While one host tries a thousand passwords, others log in, also for the first time."""
        self.add("alice", "wonder")
        ports = [TCP, r"tcp6:0:interface=\:\:1"]
        with Server("--auth", "passwords:users", "--app", "echo", folder=self.folder, ports=ports) as server:
            number = int(server.wait_for_log(r"Listening on \[::1\]:(\d+)")[1])
            wrong: list[bytes] = []
            flood = threading.Thread(target=self._guess, args=(number, 1000, wrong.append))
            flood.start()
            wait_until(lambda: wrong, "the first answer")
            self.assertEqual(self.says(server, plain("alice", "wonder"), b"hello"), [b"OK", b"hello"])
            flood.join(DEADLINE)
            self.assertEqual(len(wrong), 1000)
            limited = [answer for answer in wrong if answer != REFUSED + b"\n"]
            self.assertGreater(len(limited), 900)
            for answer in limited:
                self.assertRegex(answer, rb"\AERR busy retry-after=\d too many failed logins from your address\n\Z")

    @staticmethod
    def _guess(port: int, times: int, answered: Callable[[bytes], object]) -> None:
        import socket

        for number in range(times):
            with socket.create_connection(("::1", port), DEADLINE) as guess:
                guess.sendall(plain("alice", str(number)) + b"\n")
                guess.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := guess.recv(1000):
                    answer += piece
                answered(answer)

    def test_mistakes(self) -> None:
        """What --auth cannot be is one line and status 1, before a port is open; passwords are not in it."""
        self.add("alice", "wonder")
        (self.folder / "users").chmod(0o644)
        for description, problem in (
            ("passwords:users", "others may read or write"),
            ("passwords:nothing", "cannot be read"),
            ("memory:canary", "its argument cannot be used"),
            ("canary", "there is no such method"),
        ):
            done = run_to_end(self.folder, "--auth", description)
            self.assertEqual(done.returncode, 1)
            self.assertIn(problem, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.assertNotIn("memory:canary", done.stdout + done.stderr)


class TestTokens(AuthCase):
    def test_verified_here(self) -> None:
        """JSON Web Tokens of a real server, by the keys it publishes: good ones, rotated ones, and those of nobody."""
        with Issuer() as issuer:
            method = f"jwt:issuer={issuer.url}:audience=collector:key={issuer.url}/jwks"
            with Server("--auth", method, "--app", "who:who", folder=self.folder, modules={"who": WHO}) as server:
                token = issuer.token()
                self.assertEqual(self.says(server, bearer(token), b"?"), [b"OK", b"meter-7"])
                self.assertEqual(self.says(server, bearer(token, "n,a=meter-7,"), b"?"), [b"OK", b"meter-7"])
                self.assertEqual(self.says(server, bearer(token, "n,a=meter-8,"), b"?"), [REFUSED])
                self.assertEqual(self.says(server, bearer(token[:-4] + "AAAA"), b"?"), [REFUSED])
                self.assertEqual(self.says(server, bearer(issuer.token("opaque")), b"?"), [REFUSED])
            with Server("--auth", method, "--app", "who:who", folder=self.folder) as server:
                issuer.rotate()
                for text in (issuer.token(), token):
                    self.assertEqual(self.says(server, bearer(text), b"?"), [b"OK", b"meter-7"])
            other = method.replace("audience=collector", "audience=other")
            with Server("--auth", other, "--app", "who:who", folder=self.folder) as server:
                self.assertEqual(self.says(server, bearer(token), b"?"), [REFUSED])

    def test_outage(self) -> None:
        """Without the issuer those it knows come in by the keys that are known; before any are, waiting helps."""
        with Issuer() as issuer:
            token = issuer.token()
            method = f"jwt:issuer={issuer.url}:audience=collector:key={issuer.url}/jwks"
            with Server("--auth", method, "--app", "who:who", folder=self.folder, modules={"who": WHO}) as server:
                self.assertEqual(self.says(server, bearer(token), b"?"), [b"OK", b"meter-7"])
                issuer.__exit__(None, None, None)
                self.assertEqual(self.says(server, bearer(token), b"?"), [b"OK", b"meter-7"])
            with Server("--auth", method, "--app", "who:who", folder=self.folder) as server:
                (answer,) = self.says(server, bearer(token), b"?")
                self.assertRegex(answer, rb"^ERR unavailable retry-after=\d+ ")

    def test_asked_about(self) -> None:
        """Opaque tokens, which the server is asked about; the secret for that is in a file alone."""
        with Issuer() as issuer:
            (self.folder / "secret").write_text("ask-secret\n")
            method = (
                f"introspect:url={issuer.url}/token/introspection:client=mtserver:secret=secret"
                ":audience=collector:identity=client_id:cache=0"
            )
            with Server("--auth", method, "--app", "who:who", folder=self.folder, modules={"who": WHO}) as server:
                token = issuer.token("opaque")
                self.assertEqual(self.says(server, bearer(token), b"?"), [b"OK", b"meter-7"])
                issuer.revoke(token)
                self.assertEqual(self.says(server, bearer(token), b"?"), [REFUSED])
                self.assertEqual(self.says(server, bearer("made-up"), b"?"), [REFUSED])
                self.assertNotIn(b"ask-secret", Path(f"/proc/{server.pid}/cmdline").read_bytes())
                for secret in ("ask-secret", token):
                    self.assertNotIn(secret, server.log)
