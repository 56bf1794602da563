"""
Handshakes that failed, for the audit log: each once. How many of them it takes is its own concern, since a scanner has
hundreds in a second.
"""

from __future__ import annotations

import ssl
from typing import Any

from mtserver.telemetry.events import HANDSHAKE_FAILED
from mtserver.transport.addresses import format_address


def tell(address: Any, reason: str) -> None:
    """
    Record one.

    :param address: the peer's, as Twisted has it.
    :param reason: in our words or OpenSSL's; nothing that the peer has sent.
    """
    HANDSHAKE_FAILED(peer=format_address(address), reason=reason)


def reason_of(error: BaseException | None) -> str:
    """What OpenSSL says, in one line and without the place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    words = getattr(error, "reason", None) or str(error)
    return words.replace("_", " ").lower()
