"""Certificates that nobody should trust, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Made:
    """
    A certificate and its key, and whatever it signs.

    :param names: its subject alternative names; without any it has no such extension.
    :param by: who signs it; it signs itself otherwise.
    :param days: when it begins and ends, from now.
    :param usage: its extended key usage; none if empty.
    """

    def __init__(
        self,
        common_name: str,
        names: Sequence[x509.GeneralName] = (),
        *,
        by: Made | None = None,
        days: tuple[float, float] = (-1, 90),
        usage: Sequence[x509.ObjectIdentifier] = (),
        is_ca: bool = False,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = by or self
        now = datetime.now(UTC)
        public = self.key.public_key()
        signer = issuer.key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        )
        if is_ca:
            signs: dict[str, Any] = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
            others = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
            others += ["key_agreement", "encipher_only", "decipher_only"]
            builder = builder.add_extension(x509.KeyUsage(**signs, **dict.fromkeys(others, False)), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    @classmethod
    def authority(cls, name: str, by: Made | None = None, *, days: tuple[float, float] = (-1, 90)) -> Self:
        """One that may sign others."""
        return cls(name, by=by, days=days, is_ca=True)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(PEM, form, plain)

    @property
    def fingerprint(self) -> str:
        """As ``openssl x509 -fingerprint -sha256`` writes it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def revoke(self, *others: Made, days: tuple[float, float] = (-1, 90)) -> bytes:
        """A revocation list with these, as PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now + timedelta(days=days[0]))
            .next_update(now + timedelta(days=days[1]))
        )
        for other in others:
            entry = x509.RevokedCertificateBuilder().serial_number(other.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(hours=1)).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    def write(self, folder: Path, name: str = "cert.pem", key: str = "key.pem") -> str:
        """Put certificate and key there; the ``--port`` string of a TLS port that uses them."""
        (folder / key).write_bytes(self.key_pem)
        (folder / name).write_bytes(self.pem)
        return f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={name}"

    def write_together(self, path: Path, *chain: Made) -> None:
        """Certificate, chain and key in one file."""
        path.write_bytes(self.pem + b"".join(other.pem for other in chain) + self.key_pem)


def write_certificate(folder: Path) -> str:
    """Put ``key.pem`` and ``cert.pem`` for localhost there; the ``--port`` string of a TLS port that uses them."""
    return Made("localhost", [x509.DNSName("localhost")], days=(-1, 1)).write(folder)
