"""
Command that makes and changes a file of passwords for ``--auth passwords:PATH``::

    python -m mtserver.auth add PATH NAME       asks for the password, or reads it as a line of standard input
    python -m mtserver.auth remove PATH NAME
    python -m mtserver.auth list PATH
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
from pathlib import Path

from mtserver.auth.passwords import HASHER, read
from mtserver.errors import ConfigurationError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m mtserver.auth", description="a file of passwords for --auth passwords:")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, meaning in (
        ("add", "add a user, or change the password of one"),
        ("remove", "remove a user"),
        ("list", "list the users"),
    ):
        words = commands.add_parser(command, help=meaning)
        words.add_argument("path", type=Path, help="the file; add makes it")
        if command != "list":
            words.add_argument("name", type=_name, help="of the user")
    given = parser.parse_args(arguments)
    try:
        hashes = read(given.path) if given.path.exists() or given.command != "add" else {}
        if given.command == "list":
            print("\n".join(sorted(hashes)))  # noqa: T201 - a program for a terminal
            return
        if given.command == "add":
            hashes[given.name] = HASHER.hash(_password())
        elif hashes.pop(given.name, None) is None:
            raise ConfigurationError(f"{given.path} has no user {given.name}")
        write(given.path, hashes)
    except (ConfigurationError, OSError) as error:
        raise SystemExit(f"mtserver.auth: {error}") from None


def write(path: Path, hashes: dict[str, str]) -> None:
    """Replace the file atomically by one with these hashes, readable by its owner only."""
    path = path.resolve()  # a symbolic link stays, its target is replaced
    text = "".join(f"{name}:{hashed}\n" for name, hashed in hashes.items())
    # A file of mkstemp has the mode 0600 from the first moment on.
    number, made = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(number, "w") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            os.fsync(number)
        if path.exists():
            status = path.stat()
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(made, status.st_uid, status.st_gid)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def _name(text: str) -> str:
    if not text or ":" in text or not text.isprintable() or text.startswith("#") or text != text.strip():
        raise argparse.ArgumentTypeError("a name is printable, without colons, and does not begin with #")
    return text


def _password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise ConfigurationError("these are two different passwords")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or "\0" in password:
        raise ConfigurationError("there is no password without characters, or with NUL")
    return password


if __name__ == "__main__":
    main()
