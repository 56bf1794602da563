"""
Format of a journal's messages: lines for people, or JSON Lines. Pure: records in, text out.

Laws:

* One message is one line, whatever is in it, and is escaped: no peer can send control sequences to a terminal.
* Each line of JSON is ASCII, and has all fields of a message.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from mtserver.journal.interface import Record
from mtserver.telemetry.escape import escape


def timestamp(seconds: float) -> str:
    """Format a time as ISO 8601, UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return repr(seconds)  # out of range: a clock that was wrong, or damage
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def who(identity: str, name: str) -> str:
    """Format a source as ``identity/name``, without the part that is missing; ``-`` for an anonymous client."""
    return escape(f"{identity}/{name}" if name else identity) or "-"


def line(record: Record) -> str:
    """Format a message as number, time, client, source, id and message, with tabs between them."""
    sequence, time, client, _, identity, name, number, message = record
    return "\t".join(
        (str(sequence), timestamp(time), str(client), who(identity, name), escape(number) or "-", escape(message))
    )


def json_line(record: Record) -> str:
    """Format a message as JSON: its text is ``message`` if it is UTF-8, and ``message_base64`` if not."""
    fields: dict[str, Any] = {
        "seq": record.sequence,
        "time": timestamp(record.time),
        "client": record.client,
        "address": record.address,
    }
    optional = {"identity": record.identity, "name": record.name, "id": record.id}
    fields.update({key: value for key, value in optional.items() if value})
    try:
        fields["message"] = record.message.decode()
    except UnicodeDecodeError:
        fields["message_base64"] = base64.b64encode(record.message).decode()
    return json.dumps(fields)


def size_text(count: float) -> str:
    """Format a number of bytes in the units of ``--keep``."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
