"""
Tables of the reference, made from the code when the site is built.

A line ``<!-- table: options -->`` in a page is replaced by that table. All that the documentation takes from the code
by import stands at the top of this file; mkdocs loads it as a hook (``mkdocs.yml``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

from mtserver.refusals import CODES
from mtserver.settings import Settings
from mtserver.telemetry.events import EVENTS

#: Settings that are tables of a configuration file, and no options.
TABLES_OF_PORTS = {"listen"}
#: What becomes of a connection after each code of the wire.
THEN = {
    "busy": "closed; where only one request was too much (a group too many), it stays",
    "too-long": "closed",
    "bad-message": "stays; closed where the framing is lost, and after `--max-bad-messages` in a row",
    "auth": "closed",
    "timeout": "closed",
    "idle": "closed",
    "slow": "closed, and aborted if it still does not read",
    "closing": "closed",
    "unavailable": "stays; closed where a login could not be checked",
    "internal": "stays",
}


def _rows(*rows: Iterable[str]) -> str:
    return "".join("| " + " | ".join(map(_cell, row)) + " |\n" for row in rows)


def _cell(text: str) -> str:
    # A bar would begin another cell, and `<id>` outside of code would be taken for HTML.
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def options() -> str:
    """Every option, with its default, unit and meaning."""
    rows = []
    for field in dataclasses.fields(Settings):
        about = field.metadata
        if field.name in TABLES_OF_PORTS:
            continue
        name = f"`--{field.name.replace('_', '-')}`" + (f", `-{about['short']}`" if about["short"] else "")
        rows.append([name, about["shown"], about["unit"], about["meaning"]])
    rows.append(["`--config`, `-c`", "none", "", "a TOML file with these options"])
    return _rows(["option", "default", "unit", "meaning"], ["---"] * 4, *rows)


def codes() -> str:
    """Every code that the server itself sends."""
    rows = [[f"`{code}`", meaning, THEN[code]] for code, meaning in CODES.items()]
    return _rows(["code", "when", "the connection"], ["---"] * 3, *rows)


def audit_events() -> str:
    """Every event of the audit log, with its fields."""
    rows = [
        [f"`{event.name}`", ", ".join(f"`{field}`" for field in event.fields), event.meaning]
        for event in EVENTS.values()
        if event.audit
    ]
    return _rows(["event", "fields", "when"], ["---"] * 3, *rows)


def events() -> str:
    """Every event, with its fields and their units."""
    rows = [
        [
            f"`{event.name}`",
            event.meaning,
            "; ".join(f"`{field}`: {meaning}" for field, meaning in event.fields.items()),
            event.level if event.text else "no line",
        ]
        for event in EVENTS.values()
    ]
    return _rows(["event", "when", "fields", "in the log"], ["---"] * 4, *rows)


TABLES: dict[str, Callable[[], str]] = {
    "options": options,
    "codes": codes,
    "audit-events": audit_events,
    "events": events,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in; a name that is none fails the build."""
    return re.sub(r"^<!-- table: ([\w-]+) -->$", lambda found: TABLES[found[1]](), markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Show reStructuredText's roles in docstrings as the code that they name, and drop its mark before a block."""
    html = re.sub(r":\w+:<code>~?(?:[\w.]+\.)?(\w+)</code>", r"<code>\1</code>", html)
    return re.sub(r"<p>::</p>|(?<=:):(?=</p>)", "", html)


def on_post_page(output: str, **_: Any) -> str:
    """Refuse a page for which a reader's browser would fetch a script, a style or a picture from elsewhere."""
    elsewhere = re.search(
        r"""<(?:script|img|iframe|link rel="?stylesheet)[^>]*(?:src|href)="?https?://[^ >]*""", output
    )
    if elsewhere:
        raise ValueError(f"{elsewhere[0]}: the site is to be whole by itself")
    return output
