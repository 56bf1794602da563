"""Arguments of ``python -m mtserver.journal``. A mistake is one line on standard error and exit status 2."""

from __future__ import annotations

import argparse
import math
import time
from datetime import UTC, datetime
from pathlib import Path

from mtserver.errors import ConfigurationError
from mtserver.journal.options import Keep, parse_keep, parse_sqlite
from mtserver.journal.sqlite.reading import Filter

#: Greatest integer of SQLite.
MAX_INTEGER = (1 << 63) - 1

_EXAMPLES = """\
examples:
  python -m mtserver.journal mtserver.db                       all messages: number, time, client, who, id, message
  python -m mtserver.journal mtserver.db --last 10 --follow    the last ten, and then each as it comes
  python -m mtserver.journal mtserver.db --identity alice --since 2h --json
  python -m mtserver.journal mtserver.db --stats
  python -m mtserver.journal mtserver.db --keep 30d,10GB       removes older messages, also while the server runs
"""


def parse(words: list[str] | None) -> argparse.Namespace:
    """Parse the arguments; ``wanted`` is the :class:`~mtserver.journal.sqlite.reading.Filter` made of them."""
    parser = argparse.ArgumentParser(
        "python -m mtserver.journal",
        description="Read, check and prune a journal of mtserver, also while the server runs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=_path, help="the file; also as --journal has it, sqlite:PATH")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--follow", "-f", action="store_true", help="go on with messages as they come")
    actions.add_argument("--stats", action="store_true", help="count: messages, by whom, since when, bytes")
    actions.add_argument("--verify", action="store_true", help="look for damage; exit status 1 if there is some")
    actions.add_argument("--keep", type=_keep, metavar="30d,10GB", help="remove older messages, by age, size or both")
    parser.add_argument("--json", action="store_true", help="JSON Lines; with --stats, one object")
    which = parser.add_argument_group("which messages")
    which.add_argument("--client", type=_number, metavar="NUMBER", help="of the client with that number")
    which.add_argument("--identity", metavar="TEXT", help="of that identity; '' for none")
    which.add_argument("--name", metavar="TEXT", help="of those that call themselves so (RESUME)")
    which.add_argument("--id", metavar="TEXT", help="with that id")
    which.add_argument(
        "--since", type=_moment, metavar="TIME", help="received then or later: ISO 8601 (UTC), or 2h ago"
    )
    which.add_argument("--until", type=_moment, metavar="TIME", help="received before then")
    which.add_argument("--after", type=_number, default=0, metavar="SEQ", help="with a greater number")
    which.add_argument("--to", type=_number, metavar="SEQ", help="with that number at most")
    which.add_argument("--last", type=_count, metavar="N", help="among the last so many")
    options = parser.parse_args(words)
    options.wanted = Filter(
        options.client, options.identity, options.name, options.id, options.since, options.until, options.to
    )
    narrowed = options.wanted != Filter() or options.after or options.last is not None
    if narrowed and (options.stats or options.verify or options.keep):
        parser.error("--stats, --verify and --keep are for all messages")
    if options.json and (options.verify or options.keep):
        parser.error("--json is for messages and --stats")
    if options.follow and options.to is not None:
        parser.error("--follow has no end, and --to is one")
    return options


def _path(text: str) -> Path:
    if not text.startswith("sqlite:"):
        return Path(text)
    try:
        return parse_sqlite(text).path
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _keep(text: str) -> Keep:
    try:
        keep = parse_keep(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not any(keep):
        raise argparse.ArgumentTypeError("how much? 30d, 10GB, or both")
    return keep


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages")
    return min(int(text), MAX_INTEGER)


def _number(text: str) -> int:
    try:
        return max(-MAX_INTEGER, min(int(text), MAX_INTEGER))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _moment(text: str) -> float:
    """Parse ISO 8601 (UTC without an offset), seconds since the epoch, or an age such as ``2h``; return seconds."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(seconds):
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    try:
        keep = parse_keep(text)
    except ConfigurationError:
        keep = Keep()
    if not keep.age or keep.size:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 2026-11-25T12:00, seconds since 1970, or 2h (ago)")
    return time.time() - keep.age
