"""
A secret that a server is given goes nowhere: neither to a log, a traceback or the audit log, nor to its command line.

Each secret is planted as a canary, and searched for wherever the server writes while it serves, refuses, raises, stops,
and fails to start. A new option that carries one gets a line in :data:`SECRETS`.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from .certificates import write_certificate
from .operator import Operator
from .peer import DEADLINE, Peer
from .server import TCP, Server, run_to_end

CANARY = "canary-7Kq2vXw9"
#: Each form in which it might turn up.
FORMS = [
    CANARY.encode(),
    base64.b64encode(CANARY.encode()).rstrip(b"="),
    base64.b64encode(f"\0operator\0{CANARY}".encode()).rstrip(b"="),
    base64.b64encode(f"n,,\1auth=Bearer {CANARY}\1\1".encode()).rstrip(b"="),
    CANARY.encode().hex().encode(),
]

HANDLERS = {
    "handlers": """
        async def raising(client, message: bytes) -> bytes:
            raise ValueError("no")

        async def telling(client, message: bytes) -> bytes:
            raise ValueError(message.decode())
    """
}


class Secret(NamedTuple):
    """One way in which a server is given a secret."""

    #: A line of the configuration file, with the canary in it or in a file that it names.
    configuration: str
    #: What a client says with it, if anything.
    says: bytes = b""
    #: Whether that lets its messages reach the handler, which raises then.
    is_right: bool = True
    #: Lines with which the server does not start.
    mistakes: tuple[str, ...] = ()


SECRETS = {
    "private key": Secret(
        'port = "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"',
        mistakes=(
            'port = "ssl:0:privateKey=half.pem:certKey=cert.pem"',
            'port = "ssl:0:privateKey=key.pem:certKey=key.pem"',
            'port = "ssl:0:privateKey=other.pem:certKey=cert.pem"',
        ),
    ),
    "password": Secret(
        f'port = "{TCP}"\nauth = "file:users"',
        says=b"AUTH PLAIN " + base64.b64encode(f"\0operator\0{CANARY}".encode()) + b"\n",
        mistakes=(
            f'auth = "memory:operator:{CANARY}:more"',
            f'auth = "nothing:operator:{CANARY}"',
            f'auth = ["memory:a:b", {{operator = "{CANARY}"}}]',
            f'autth = "memory:operator:{CANARY}"',
        ),
    ),
    "password of somebody else": Secret(
        f'port = "{TCP}"\nauth = "memory:operator:{CANARY}"',
        says=b"AUTH PLAIN " + base64.b64encode(f"\0{CANARY}\0{CANARY}".encode()) + b"\n",
        is_right=False,
    ),
    "token": Secret(
        f'port = "{TCP}"\nauth = "introspect:url=http://127.0.0.1:9/:client=mtserver:secret=secret.txt"',
        says=b"AUTH OAUTHBEARER " + base64.b64encode(f"n,,\1auth=Bearer {CANARY}\1\1".encode()) + b"\n",
        is_right=False,
    ),
    "credentials for NATS": Secret(
        f'port = "{TCP}"\ngroups = "nats://127.0.0.1:9"\nnats-credentials = "node.creds"',
        mistakes=(
            'groups = "nats://127.0.0.1:9"\nnats-credentials = "half.creds"',
            f'groups = "nats://operator:{CANARY}@127.0.0.1:9"',
            f'journal = "nats://operator:{CANARY}@127.0.0.1:9/J"',
        ),
    ),
    "what cannot be read": Secret(
        f'port = "{TCP}"', mistakes=(f'framing = "{CANARY}', f'"x\\{CANARY}" = 1', f"{CANARY} = = 1")
    ),
}


class TestSecrets(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        # Text may stand in front of a key, and this key is a secret with every line of it.
        write_certificate(self.folder)
        other = (self.folder / "key.pem").read_text()
        write_certificate(self.folder)
        key = (self.folder / "key.pem").read_text()
        self.forms = [*FORMS, *(line.encode() for line in key.splitlines()[1:-1])]
        (self.folder / "key.pem").write_text(f"{CANARY}\n{key}")
        (self.folder / "half.pem").write_text(f"{CANARY}\n{key[: len(key) // 2]}")
        (self.folder / "other.pem").write_text(f"{CANARY}\n{other}")
        _, credentials = Operator().user()
        self.forms += [line.encode() for line in credentials.splitlines() if line and not line.startswith("-")]
        (self.folder / "node.creds").write_text(f"{CANARY}\n{credentials}")
        (self.folder / "half.creds").write_text(f"{CANARY}\n{credentials[: len(credentials) // 2]}")
        (self.folder / "users").write_text(f"operator:{CANARY}\n")
        (self.folder / "secret.txt").write_text(CANARY)
        (self.folder / "secret.txt").chmod(0o600)
        self.given = {path.name for path in self.folder.iterdir()} | {"server.toml"}

    def leaks(self, *texts: bytes) -> list[bytes]:
        """Where one of the forms is found, of these texts and whatever file the server has made."""
        made = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in self.given]
        searched = [*texts, *(path.read_bytes() for path in made)]
        return [text for text in searched if any(form in text for form in self.forms)]

    def configure(self, *lines: str) -> None:
        (self.folder / "server.toml").write_text("\n".join([*lines, ""]))

    def serve(self, secret: Secret, handler: str = "raising") -> list[bytes]:
        """What a server gives away that is asked, refuses, raises and stops."""
        self.configure(secret.configuration)
        options = ("--config", "server.toml", "--app", f"handlers:{handler}", "--audit-log", "audit.log")
        with Server(*options, "--max-clients", "2", ports=[], modules=HANDLERS, folder=self.folder) as server:
            server.wait_for_log(r"Listening on 127\.0\.0\.1:\d+\n")
            cmdline = Path(f"/proc/{server.pid}/cmdline")
            if not cmdline.exists():
                raise SkipTest("needs Linux: command lines are read from /proc")
            command_line = cmdline.read_bytes()
            self.assertIn(b"server.toml", command_line)
            port = int(server.wait_for_log(r"Listening on 127\.0\.0\.1:(\d+)")[1])
            self.talk(port, secret)
            server.stop()
            self.assertEqual(server.wait(), 0)
            self.assertEqual("Traceback" in server.log, secret.is_right)
            recorded = [json.loads(line)["event"] for line in (self.folder / "audit.log").read_text().splitlines()]
            self.assertLessEqual({"start", "refused", "stop"}, set(recorded))
            return self.leaks(command_line)

    def talk(self, port: int, secret: Secret) -> None:
        def connect() -> Peer:
            connection = socket.create_connection(("127.0.0.1", port), DEADLINE)
            if "ssl:" in secret.configuration:
                context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
                connection = context.wrap_socket(connection, server_hostname="localhost")
            return Peer(connection)

        with connect() as one, connect() as two, connect() as refused:
            self.assertRegex(refused.rest(), rb"\AERR busy ")
            one.send(secret.says + b"question\n")
            self.assertRegex(one.line(), rb"\A(OK|ERR)\b")
            two.send(b"unfinished")

    def test_serving(self) -> None:
        """A server that serves gives nothing away."""
        for name, secret in SECRETS.items():
            self.assertEqual(self.serve(secret), [], name)

    def test_mistakes(self) -> None:
        """Nor does one that cannot start, whatever is wrong with the secret itself or beside it."""
        for name, secret in SECRETS.items():
            lines = [[line] for line in secret.mistakes] + [[secret.configuration, 'max-clients = "many"']]
            for mistake in lines:
                self.configure(*mistake)
                ended = run_to_end(self.folder, "--config", "server.toml")
                self.assertRegex(ended.stderr, r"\Amtserver: [^\n]+\n\Z", name)
                self.assertEqual(ended.returncode, 1)
                self.assertEqual(self.leaks(ended.stderr.encode(), ended.stdout.encode()), [], name)

    def test_search(self) -> None:
        """The search finds what is there to find: a handler that tells, and a secret on the command line."""
        plain = Secret(f'port = "{TCP}"', says=CANARY.encode())
        words = subprocess.run(["sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline", CANARY], capture_output=True, check=True)
        self.assertEqual(self.leaks(words.stdout), [words.stdout])
        self.assertEqual(len(self.serve(plain, "telling")), 1)
