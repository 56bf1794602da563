"""The house: which module may import which. Each arrow of the design is allowed, and none runs back."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mtserver

PACKAGE = Path(mtserver.__file__).parent

#: From the ground up. A module may import from its own layer and those below, nothing above.
LAYERS: list[set[str]] = [
    {"errors", "acks"},
    {"framing", "messages", "limits", "threads", "handoff", "reactor", "malloc", "privileges", "notify"},
    {"audit", "outbox", "refusals", "logs", "addresses", "settings", "offload", "coroutines"},
    {"supervision", "tls", "openssl", "keeping"},
    {"app", "client", "author"},  # each is what the other shows its user
    {"handlers", "broadcasts"},
    {"message_ids"},
    {"loading", "dispatch", "asyncapi"},
    {"sending"},
    {"receiving"},
    {"session"},
    {"protocol", "refusing"},
    {"factory"},
    {"ports"},
    {"options", "service"},
    {"testing"},
    {"pytest_plugin"},
]
#: No Twisted, no clock, no I/O: what is decided here is decided by the bytes alone.
PURE = {
    "framing",
    "messages",
    "limits",
    "refusals",
    "outbox",
    "errors",
    "settings",
    "app",
    "client",
    "acks",
    "handlers",
    "asyncapi",
}
#: Written against the public API alone, as a user would.
PUBLIC_ONLY = {"apps": {"mtserver"}}
#: Packages behind a small interface: who may use them, and they import nothing but these.
SEALED = {
    "journal": {"errors", "acks", "limits", "messages", "nats", "offload", "settings", "threads", "journal"},
    "nats": {"errors", "settings", "messages", "limits", "logs", "nats"},
    "groups": {"errors", "settings", "offload", "limits", "logs", "messages", "nats", "groups"},
    "reactor": {"reactor"},
    "auth": {"errors", "audit", "limits", "framing", "messages", "refusals", "logs", "auth"},
}

#: Of whose insides nobody else imports anything.
INTERFACES = {"apps", "journal", "groups", "auth", "nats"}
#: Who may import the interfaces.
USERS = {"loading", "options", "testing", "app", "client", "author", "session", "factory", "keeping", "service"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it; ``from mtserver import offload`` as ``mtserver.offload``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            for alias in node.names:
                inside = PACKAGE / alias.name
                is_module = node.module == "mtserver" and (inside.is_dir() or inside.with_suffix(".py").exists())
                found.add(f"mtserver.{alias.name}" if is_module else str(node.module))
    return found


def part(module: str) -> str:
    """``framing`` of ``mtserver.framing.line``; an empty text for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def rank(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def reversed_imports(root: Path) -> list[str]:
    """Every import below `root` that the house does not allow, in words."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        own = path.relative_to(root).with_suffix("").parts[0]
        ours = {name for name in imports(path) if name == "mtserver" or name.startswith("mtserver.")}
        if own in ("__init__", "apps"):
            if own == "apps":
                wrong += [f"{path.name} imports {name}" for name in ours - PUBLIC_ONLY["apps"]]
            continue
        for name in ours:
            target = part(name)
            if own in SEALED:
                allowed = target in SEALED[own] and (
                    target == own or target not in INTERFACES or name == f"mtserver.{target}"
                )
            elif target in INTERFACES:
                # The interface alone, and only those who compose, or stand between it and a handler.
                allowed = own in USERS and name == f"mtserver.{target}"
            else:
                allowed = (target == "" and own == "options") or (target != "" and rank(target) <= rank(own))
            if not allowed:
                wrong.append(f"{path.relative_to(root)} imports {name}")
    return wrong


class Layering(SynchronousTestCase):
    def test_every_module_has_its_place(self) -> None:
        """No module stands outside the house."""
        modules = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
        placed = set().union(*LAYERS) | INTERFACES | {"__init__"}
        self.assertEqual(modules, placed)

    def test_no_import_runs_back(self) -> None:
        """Bytes flow one way, and so do imports."""
        self.assertEqual(reversed_imports(PACKAGE), [])

    def test_pure_core(self) -> None:
        """The core imports neither Twisted nor anything that does I/O or knows the time."""
        forbidden = {"twisted", "asyncio", "socket", "time", "select", "threading"}
        for path in sorted(PACKAGE.rglob("*.py")):
            if path.relative_to(PACKAGE).with_suffix("").parts[0] in PURE:
                roots = {name.partition(".")[0] for name in imports(path)}
                self.assertEqual(roots & forbidden, set(), str(path))

    def test_no_global_reactor(self) -> None:
        """Nobody imports the reactor at module level."""
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    self.assertNotIn("reactor", {alias.name for alias in node.names}, str(path))

    def test_a_reversed_import_is_found(self) -> None:
        """The negative control: a framing that imports the protocol is named."""
        root = Path(self.mktemp()) / "mtserver"
        (root / "framing").mkdir(parents=True)
        (root / "framing" / "odd.py").write_text("from mtserver.protocol import MtserverProtocol\n")
        (root / "apps").mkdir()
        (root / "apps" / "cheat.py").write_text("from mtserver.factory import MtserverFactory\n")
        self.assertEqual(
            reversed_imports(root),
            ["cheat.py imports mtserver.factory", "framing/odd.py imports mtserver.protocol"],
        )
