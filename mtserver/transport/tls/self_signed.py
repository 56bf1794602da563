"""Certificates made on the spot, for a first try: a client can know one by its fingerprint only."""

from __future__ import annotations

import ipaddress
import socket
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtserver.transport.tls.certificates import Certificate, Files

#: Days until a certificate expires; each start makes a new one.
DAYS = 365


def certificate(pem: bytes, load: Callable[[Files], Certificate]) -> Certificate:
    """Load what :func:`make` made, by way of a file for a moment: Python takes keys from files only."""
    with tempfile.TemporaryDirectory(prefix="mtserver-") as folder:  # a folder that no other user may enter
        path = Path(folder, "both.pem")
        path.write_bytes(pem)
        return load(Files(str(path)))


def make() -> bytes:
    """Make a new key and a new certificate for this machine's names, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mtserver, self-signed")])
    hosts = [x509.DNSName(host) for host in dict.fromkeys(("localhost", _host_name())) if host]
    loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clients' clocks differ
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([*hosts, *loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain) + certificate.public_bytes(
        serialization.Encoding.PEM
    )


def _host_name() -> str:
    name = socket.gethostname()
    return name if name.isascii() and len(name) < 254 else ""
