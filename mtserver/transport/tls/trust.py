"""
Whose certificates clients may show: ``--tls-client-ca``, and what ``--tls-crl`` takes back.

OpenSSL checks the rest: a client's certificate must be there, signed by one of these, not expired, and its extended
key usage, if it has one, must be for clients (RFC 5280, 4.2.1.12). A revocation list that has itself expired lets
nobody in.
"""

from __future__ import annotations

import math
import ssl
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from mtserver.transport.tls.pem import blocks


class Trust(NamedTuple):
    """What was in the files, checked: not the files, which may be half-written by the time that it is used."""

    authorities: bytes
    revoked: bytes
    #: When the first of the revocation lists expires, in seconds since the epoch; infinite where none does.
    ends_at: float = math.inf

    def require(self, context: ssl.SSLContext) -> None:
        """Have the context ask each client for a certificate, and refuse those without a good one."""
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.NamedTemporaryFile(suffix=".pem") as together:  # Python takes revocation lists from files only
            together.write(self.authorities + b"\n" + self.revoked)
            together.flush()
            context.load_verify_locations(together.name)
        if self.revoked:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        # A ticket is not verified again, and would live on where a certificate does not.
        context.options |= ssl.OP_NO_TICKET


def load(authorities: str, revoked: str | None = None) -> Trust:
    """
    Read and check.

    :param authorities: a PEM file with the certificates of those who may sign.
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
    """The text, and what it says."""
    found = blocks(path, label, what)
    parsed = []
    for block in found:
        try:
            parsed.append(parse(block))
        except Exception:  # cryptography's errors have no root in common
            raise ValueError(f"{path}: a {what} in it cannot be read") from None
    return b"\n".join(found), parsed
