"""
TLS, and the policy that all of a server's ports keep.

::

    posture = Posture(profile="intermediate", client_ca="ca.pem")
    served = posture.serve(Files("cert.pem", "key.pem"))  # ValueError or OSError if they cannot be used together
    factory = TLSFactory(served.context, wrapped)  # TLS under the protocols of another factory
    served.used_by(factory)

* :mod:`~mtserver.tls.protocol`: TLS on any stream transport.
* :mod:`~mtserver.tls.profiles`: versions, ciphers and groups.
* :mod:`~mtserver.tls.certificates`, :mod:`~mtserver.tls.trust`: what is in the files, and whether it can be used.
* :mod:`~mtserver.tls.posture`, :mod:`~mtserver.tls.names`: who is shown which certificate.
* :mod:`~mtserver.tls.reload`, :mod:`~mtserver.tls.watched`, :mod:`~mtserver.tls.expiry`: files change, and end.
* :mod:`~mtserver.tls.identity`, :mod:`~mtserver.tls.failures`: who a peer is, and who did not get that far.

It knows nothing of clients and sessions. ``cryptography``, 40 ms of import, is imported where a file is read.
"""

from mtserver.tls.certificates import Files, server_context
from mtserver.tls.posture import Posture, Served
from mtserver.tls.protocol import ANSWERS, TLSFactory
from mtserver.tls.reload import Reload

__all__ = ["ANSWERS", "Files", "Posture", "Reload", "Served", "TLSFactory", "server_context"]
