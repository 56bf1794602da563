"""
A server's certificate: its files, read and checked.

Key, certificate and chain are checked before anything is served with them: the key is that of the certificate, and
each certificate of the chain has issued one in front of it. Errors are ``OSError`` or ``ValueError``, one line with
the file's name.
"""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mtserver.transport.tls.pem import blocks
from mtserver.transport.tls.profiles import Profile
from mtserver.transport.tls.trust import Trust

if TYPE_CHECKING:
    from cryptography import x509


class Files(NamedTuple):
    """
    The files of one certificate.

    :param certificate: a PEM file with the certificate; the intermediate ones may follow it.
    :param private_key: a PEM file; None: the first file has the key too.
    :param chain: a PEM file with the intermediate certificates, where they have one of their own.
    """

    certificate: str
    private_key: str | None = None
    chain: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the files, each once."""
        return tuple(dict.fromkeys(filter(None, self)))


class Certificate(NamedTuple):
    """A certificate that can be served."""

    context: ssl.SSLContext
    #: SHA-256 of the certificate, as ``openssl x509 -fingerprint`` writes it.
    fingerprint: str
    #: DNS names of the certificate in lower case, wildcards among them.
    names: tuple[str, ...]
    #: Expiry of the first certificate of the chain to expire, in seconds since the epoch.
    ends_at: float


def load(files: Files, profile: Profile, trust: Trust | None = None) -> Certificate:
    """
    Read and check a certificate and make a context that serves it.

    :param trust: authorities for clients' certificates; None: clients are not asked for one.
    """
    context = profile.context()
    certificates = blocks(files.certificate, "CERTIFICATE", "certificate")
    if files.chain is not None:
        certificates += blocks(files.chain, "CERTIFICATE", "certificate")
    _use(context, files, certificates)
    parsed = [_parsed(pem, files) for pem in certificates]
    _check_chain(parsed, files)
    if trust is not None:
        trust.require(context)
    return Certificate(context, fingerprint_of(parsed[0]), _names_of(parsed[0]), _end_of(parsed))


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Write a certificate's SHA-256 as ``openssl x509 -fingerprint -sha256`` does."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex(":").upper()


def _use(context: ssl.SSLContext, files: Files, certificates: list[bytes]) -> None:
    """Give the context its certificate and key. OpenSSL's own errors name no file."""
    private_key = files.private_key or files.certificate
    if b"PRIVATE KEY-----" not in Path(private_key).read_bytes():
        raise ValueError(f"{private_key} holds no private key in PEM format")

    def no_password() -> str:
        # Called where OpenSSL would else ask at the terminal, in the middle of a start.
        raise ValueError(f"the private key in {private_key} is encrypted; nobody is asked for its password")

    with tempfile.NamedTemporaryFile(suffix=".pem") as together:
        together.write(b"\n".join(certificates))
        together.flush()
        try:
            context.load_cert_chain(together.name, private_key, password=no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ValueError(f"{private_key} is not the private key of {files.certificate}") from None
            raise _damaged(files, (error.reason or "damaged").replace("_", " ").lower()) from None


def _parsed(pem: bytes, files: Files) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception:  # cryptography's errors have no common root
        raise _damaged(files, "a certificate in it cannot be read") from None


def _damaged(files: Files, reason: str) -> ValueError:
    names = ", ".join(filter(None, (files.certificate, files.chain, files.private_key)))
    return ValueError(f"{names}: {reason}")


def _check_chain(certificates: list[x509.Certificate], files: Files) -> None:
    for number, issuer in enumerate(certificates[1:], 1):
        if not any(_has_issued(issuer, earlier) for earlier in certificates[:number]):
            path = files.chain or files.certificate
            raise ValueError(f"{path}: certificate {number + 1} of the chain has issued none in front of it")


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):  # another name, an unknown kind of key, another signature
        return False
    return True


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # cryptography's errors have no common root; one of them: there is no such extension
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _end_of(certificates: list[x509.Certificate]) -> float:
    return min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)
