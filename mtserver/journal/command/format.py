"""
What is in a journal, as lines: for people, or as JSON Lines. Pure: records in, text out.

Laws:

* One message is one line, whatever is in it; nothing in it reaches a terminal that a peer could drive it with.
* Each line of JSON is ASCII, and has all there is of a message.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from mtserver.journal.interface import Record
from mtserver.telemetry.escape import escape


def timestamp(seconds: float) -> str:
    """ISO 8601, UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return repr(seconds)  # no year of ours: a clock that was wrong, or damage
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def who(identity: str, name: str) -> str:
    """``identity/name``; what is missing is left out, and a hyphen stands for nobody."""
    return escape(f"{identity}/{name}" if name else identity) or "-"


def line(record: Record) -> str:
    """Number, time, client, who, id and message, with tabs between them."""
    sequence, time, client, _, identity, name, number, message = record
    return "\t".join(
        (str(sequence), timestamp(time), str(client), who(identity, name), escape(number) or "-", escape(message))
    )


def json_line(record: Record) -> str:
    """An object; the message is ``message`` where it is UTF-8, and ``message_base64`` where it is not."""
    fields: dict[str, Any] = {
        "seq": record.sequence,
        "time": timestamp(record.time),
        "client": record.client,
        "address": record.address,
    }
    said = {"identity": record.identity, "name": record.name, "id": record.id}
    fields.update({key: value for key, value in said.items() if value})
    try:
        fields["message"] = record.message.decode()
    except UnicodeDecodeError:
        fields["message_base64"] = base64.b64encode(record.message).decode()
    return json.dumps(fields)


def size_text(count: float) -> str:
    """Bytes, in the units that ``--keep`` knows."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
