"""
Start mtserver from an environment that a wheel was installed in: the plugin is listed, serves, and goes again.

    python .ci/try_wheel.py VENV
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(*words: str | Path) -> str:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True, timeout=120).stdout


def listed(bin_: Path) -> list[bool]:
    return ["mtserver" in run(bin_ / command, "--help") for command in ("twistd", "twist")]


def port_of(log: Path) -> int:
    for _ in range(200):
        found = re.search(r"Listening on 127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.1)
    raise SystemExit(f"it does not listen:\n{log.read_text()}")


def main() -> None:
    bin_ = Path(sys.argv[1]) / "bin"
    assert all(listed(bin_)), "twistd and twist list the plugin"
    assert run(bin_ / "twistd", "mtserver", "--version").startswith("mtserver ")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w") as out:
            words = [bin_ / "twistd", "-n", "--pidfile=", "mtserver", "--port", "tcp:0:interface=127.0.0.1"]
            server = subprocess.Popen(words, cwd=folder, stdout=out, stderr=out)
        try:
            with socket.create_connection(("127.0.0.1", port_of(log)), 10) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"OK 1\n", "collect answers"
        finally:
            server.terminate()
            status = server.wait(30)
    assert status == 0, f"a clean stop exits with 0, not {status}"
    run(bin_ / "pip", "uninstall", "--yes", "--quiet", "mtserver")
    assert not any(listed(bin_)), "uninstalling removes the plugin"
    print("the wheel serves, and goes without a trace")


main()
