"""A real OAuth 2 authorization server for a test: oidc-provider, on Node.js, as ``.ci/setup test`` puts it there."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from unittest import SkipTest

from .peer import DEADLINE
from .server import needs

#: Where ``.ci/setup test`` installs it.
PLACE = Path(sys.prefix) / "oidc"


class Issuer:
    """
    Runs for as long as its block.

    ``meter-7`` is a client that gets tokens for the audience ``collector``, ``mtserver`` one that may ask about them.
    """

    def __enter__(self) -> Self:
        node = needs("node", "nodejs")
        if not (PLACE / "node_modules" / "oidc-provider").is_dir():
            text = "needs npm's oidc-provider: sh .ci/setup test"
            raise AssertionError(text) if os.environ.get("CI") else SkipTest(text)
        self._process = subprocess.Popen(
            [node, str(Path(__file__).with_name("issuer.mjs")), str(PLACE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = self._line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)
        for pipe in (self._input, self._output):
            pipe.close()

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _line(self) -> str:
        return self._output.readline().strip()

    def rotate(self) -> None:
        """Sign with a new key from now on; the old ones are still published."""
        self._input.write("\n")
        self._input.flush()
        self._line()

    def token(self, kind: str = "jwt") -> str:
        """A new access token of `meter-7`'s: ``jwt`` or ``opaque``."""
        answer = self._post("token", grant_type="client_credentials", scope="collect", resource=f"urn:collector:{kind}")
        token: str = json.loads(answer)["access_token"]
        return token

    def revoke(self, token: str) -> None:
        """It is good no longer."""
        self._post("token/revocation", token=token)

    def _post(self, path: str, **fields: str) -> Any:
        request = urllib.request.Request(f"{self.url}/{path}", urllib.parse.urlencode(fields).encode())
        request.add_header("Authorization", "Basic " + base64.b64encode(b"meter-7:meter-secret").decode())
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.read()
