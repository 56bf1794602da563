"""
What ``--tls-profile`` chooses from: Mozilla's recommendations for servers (wiki.mozilla.org/Security/Server_Side_TLS).

Stricter than *intermediate* in two things. DHE is not offered: everybody has ECDHE, and no parameters are to be kept.
And the one group is P-256, which every client has: OpenSSL's default has groups that the profile leaves out, and a
Python older than 3.15 can name no second one. The price is a round trip for a TLS 1.3 client that bets on another
group, and that the key of a client's certificate cannot be of P-384 under TLS 1.2, as it can under 1.3.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

#: AEAD with ephemeral keys only. TLS 1.3 has nothing else; this chooses among what TLS 1.2 offers.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: NIST's P-256, by OpenSSL's name.
GROUP = "prime256v1"


class Profile(NamedTuple):
    """One of them."""

    minimum: ssl.TLSVersion

    def context(self) -> ssl.SSLContext:
        """A context for servers that keeps it: no renegotiation, no compression; no certificate yet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.minimum
        context.set_ciphers(CIPHERS)
        context.set_ecdh_curve(GROUP)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        # A client that sends its last and closes never reads TLS 1.3's session tickets, which come after the
        # handshake. They would meet its closed socket, and the reset that answers them would discard what we have not
        # read yet.
        context.num_tickets = 0
        return context


PROFILES = {
    "intermediate": Profile(ssl.TLSVersion.TLSv1_2),
    "modern": Profile(ssl.TLSVersion.TLSv1_3),
}
