"""
Trust in clients' certificates: the authorities of ``--tls-client-ca``, without what ``--tls-crl`` revokes.

OpenSSL checks that a client shows a certificate, that an authority has signed it, that it has not expired, and that its
extended key usage, if it has one, is for clients (RFC 5280, 4.2.1.12). A revocation list that has itself expired lets
no client in.
"""

from __future__ import annotations

import math
import ssl
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from mtserver.transport.tls.pem import blocks


class Trust(NamedTuple):
    """The checked content of the files, kept since the files may be half-written by the time that it is used."""

    authorities: bytes
    revoked: bytes
    #: Expiry of the first revocation list to expire, in seconds since the epoch; infinite where none does.
    ends_at: float = math.inf

    def require(self, context: ssl.SSLContext) -> None:
        """Make a context ask each client for a certificate, and refuse clients without a good one."""
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.NamedTemporaryFile(suffix=".pem") as together:  # Python takes revocation lists from files only
            together.write(self.authorities + b"\n" + self.revoked)
            together.flush()
            context.load_verify_locations(together.name)
        if self.revoked:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        # No tickets, since a resumed session is not verified again and would outlive its certificate.
        context.options |= ssl.OP_NO_TICKET


def load(authorities: str, revoked: str | None = None) -> Trust:
    """
    Read and check the files.

    :param authorities: a PEM file with the certificates of the authorities.
    :param revoked: a PEM file with their revocation lists.

    Raises ``OSError`` or ``ValueError``, with the file's name.
    """
    from cryptography import x509

    signers, _ = _read(authorities, "CERTIFICATE", "certificate", x509.load_pem_x509_certificate)
    if revoked is None:
        return Trust(signers, b"")
    lists, parsed = _read(revoked, "X509 CRL", "revocation list", x509.load_pem_x509_crl)
    ends = [found.next_update_utc.timestamp() for found in parsed if found.next_update_utc is not None]
    return Trust(signers, lists, min(ends, default=math.inf))


def _read(path: str, label: str, what: str, parse: Callable[[bytes], Any]) -> tuple[bytes, list[Any]]:
    """Read the blocks of one kind, as text and parsed."""
    found = blocks(path, label, what)
    parsed = []
    for block in found:
        try:
            parsed.append(parse(block))
        except Exception:  # cryptography's errors have no common root
            raise ValueError(f"{path}: a {what} in it cannot be read") from None
    return b"\n".join(found), parsed
