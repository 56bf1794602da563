"""
TLS, and the one policy for all ports of a server.

::

    policy = TLSPolicy(profile="intermediate", client_ca="ca.pem")
    served = policy.serve(Files("cert.pem", "key.pem"))  # ValueError or OSError if they cannot be used together
    factory = TLSFactory(served.context, wrapped)  # TLS under the protocols of another factory
    served.used_by(factory)

* ``factory``, ``protocol``: TLS on any stream transport.
* ``profiles``: versions, ciphers and groups.
* ``certificates``, ``trust``, ``pem``: files, read and checked.
* ``policy``, ``sni``, ``self_signed``: the certificate for each port and each name.
* ``reload``, ``file_watch``, ``expiry``: changes of the files, and their expiry.
* ``identity``, ``handshake_failures``: the identity in a client's certificate, and the record of failures.
* ``pyopenssl``: endpoints that need pyOpenSSL, by the same policy.

Nothing here knows clients and sessions. ``cryptography``, 40 ms of import, is imported where a file is read.
"""

from mtserver.transport.tls.certificates import Files
from mtserver.transport.tls.factory import TLSFactory
from mtserver.transport.tls.policy import Served, TLSPolicy
from mtserver.transport.tls.protocol import ANSWERS
from mtserver.transport.tls.reload import Reload

__all__ = ["ANSWERS", "Files", "Reload", "Served", "TLSFactory", "TLSPolicy"]
