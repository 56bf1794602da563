"""
Failed handshakes, recorded once each in the audit log, which limits by itself how many it writes: a scanner makes
hundreds in a second.
"""

from __future__ import annotations

import ssl
from typing import Any

from mtserver.telemetry.events import HANDSHAKE_FAILED
from mtserver.transport.addresses import format_address


def record(address: Any, reason: str) -> None:
    """
    Record one.

    :param address: the client's Twisted address.
    :param reason: the server's words or OpenSSL's, never the client's.
    """
    HANDSHAKE_FAILED(peer=format_address(address), reason=reason)


def reason_of(error: BaseException | None) -> str:
    """Write OpenSSL's error in one line, without the place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    words = getattr(error, "reason", None) or str(error)
    return words.replace("_", " ").lower()
