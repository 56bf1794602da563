"""
Users: who the process is, and who it will be once ``twistd --uid`` and ``--gid`` have been obeyed.

Ports are opened by root, files by whom they will belong to. A file that root opens in a folder of somebody else's can
be any file of the system, by a link that was laid there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_root() -> bool:
    """Whether the process has root's rights now."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def as_user(uid: int | None, gid: int | None) -> Iterator[None]:
    """
    Inside, root has the rights that are left when twistd has given up its own. No one else is changed.

    Before there are threads: the process is changed, not the caller.

    :param uid: as given to twistd; None: not given.
    :param gid: likewise; by default the user's own.
    """
    if not is_root() or (uid is None and gid is None):
        yield
        return
    import pwd

    from twisted.python.util import initgroups

    group, groups = os.getegid(), os.getgroups()
    if gid is None and uid is not None:
        gid = pwd.getpwuid(uid).pw_gid
    try:
        if gid is not None:
            os.setegid(gid)
        if uid is not None:
            initgroups(uid, gid)
            os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
