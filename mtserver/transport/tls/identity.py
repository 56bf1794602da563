"""
The identity of a client in its certificate.

The identity is a subject alternative name (RFC 5280, 4.2.1.6): the first URI, or else the first e-mail address, or
else the first DNS name. A common name does not count: no form tells its kind of name, and RFC 9525 does without it. The
three kinds cannot be mistaken for each other: a URI begins with its scheme and a colon, an e-mail address has an @ and
no colon, a DNS name has neither.
"""

from __future__ import annotations

import re
import warnings

#: Most characters of a name that can be an identity.
LONGEST = 1024

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
_EMAIL = re.compile(r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)@([A-Za-z0-9.-]+)")
# Wildcards do not match: they are not one name but many.
_DNS = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def identity_of(certificate: bytes) -> str | None:
    """
    Read the identity in a verified certificate; None where it has none.

    :param certificate: the certificate as DER.
    """
    from cryptography import x509

    try:
        # Warnings of cryptography are for the signer of the certificate; nobody here could mend it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            extensions = x509.load_der_x509_certificate(certificate).extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # cryptography's errors have no common root, and each means the same here
        return None
    for kind, usable in ((x509.UniformResourceIdentifier, _uri), (x509.RFC822Name, _email), (x509.DNSName, _dns)):
        for name in names.get_values_for_type(kind):
            identity = usable(name) if len(name) <= LONGEST else None
            if identity is not None:
                return identity
    return None


def _uri(name: str) -> str | None:
    return name if _URI.fullmatch(name) else None


def _email(name: str) -> str | None:
    """Lower the case of the host, which does not count; that of the mailbox does (RFC 5280, 7.5)."""
    found = _EMAIL.fullmatch(name)
    return f"{found[1]}@{found[2].lower()}" if found else None


def _dns(name: str) -> str | None:
    return name.lower() if _DNS.fullmatch(name) else None
