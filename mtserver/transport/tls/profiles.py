"""
Profiles for ``--tls-profile``: Mozilla's recommendations for servers (wiki.mozilla.org/Security/Server_Side_TLS).

Two things are stricter than in Mozilla's *intermediate*. DHE is not offered: all clients have ECDHE, and there are no
parameters to keep. And the one group is P-256, which every client has: OpenSSL's default has groups that the profile
leaves out, and a Python older than 3.15 can name no second one. The price is a round trip for a TLS 1.3 client that
bets on another group, and that the key of a client's certificate cannot be of P-384 under TLS 1.2, as it can under 1.3.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

#: Ciphers for TLS 1.2: AEAD with ephemeral keys only. TLS 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: OpenSSL's name of NIST's P-256.
GROUP = "prime256v1"


class Profile(NamedTuple):
    """One profile: the oldest version of TLS that it allows."""

    minimum: ssl.TLSVersion

    def context(self) -> ssl.SSLContext:
        """Make a server's context that keeps the profile, without renegotiation, compression or a certificate yet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.minimum
        context.set_ciphers(CIPHERS)
        context.set_ecdh_curve(GROUP)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        # No session tickets of TLS 1.3, which come after the handshake. A client that sends its last and closes never
        # reads them: they would meet its closed socket, and its reset would discard what the server has not read yet.
        context.num_tickets = 0
        return context


PROFILES = {
    "intermediate": Profile(ssl.TLSVersion.TLSv1_2),
    "modern": Profile(ssl.TLSVersion.TLSv1_3),
}
