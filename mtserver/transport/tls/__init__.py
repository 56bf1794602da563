"""
TLS, and the policy that all of a server's ports keep.

::

    policy = TLSPolicy(profile="intermediate", client_ca="ca.pem")
    served = policy.serve(Files("cert.pem", "key.pem"))  # ValueError or OSError if they cannot be used together
    factory = TLSFactory(served.context, wrapped)  # TLS under the protocols of another factory
    served.used_by(factory)

* ``protocol``: TLS on any stream transport.
* ``profiles``: versions, ciphers and groups.
* ``certificates``, ``trust``: what is in the files, and whether it can be used.
* ``policy``, ``sni``: who is shown which certificate.
* ``reload``, ``file_watch``, ``expiry``: files change, and end.
* ``identity``, ``handshake_failures``: who a peer is, and who did not get that far.

It knows nothing of clients and sessions. ``cryptography``, 40 ms of import, is imported where a file is read.
"""

from mtserver.transport.tls.certificates import Files, server_context
from mtserver.transport.tls.policy import Served, TLSPolicy
from mtserver.transport.tls.protocol import ANSWERS, TLSFactory
from mtserver.transport.tls.reload import Reload

__all__ = ["ANSWERS", "Files", "Reload", "Served", "TLSFactory", "TLSPolicy", "server_context"]
