"""
The C library's malloc, set for a server that reads and writes large pieces.

glibc takes blocks above 128 KiB from the kernel and returns them to it one by one, until it has learnt better from a
program that frees such blocks: a read, a joined batch of replies or a TLS record buffer of 256 KiB then costs two
system calls and 64 page faults. TLS on asyncio and on uvloop was three times as fast with these two thresholds.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
#: Larger than any block that is needed again and again here.
MMAP_THRESHOLD = 4 * 1024 * 1024
#: Free memory at the heap's end that glibc keeps; its own rule is twice the other.
TRIM_THRESHOLD = 2 * MMAP_THRESHOLD


def tune(library: Any = None) -> bool:
    """
    Set the thresholds, where the C library has them and nobody else has set them in the environment.

    :param library: what ``ctypes.CDLL(None)`` gives.
    :return: whether it was done.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys():
        return False
    try:
        if library is None:
            library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt of their own, or none
        return bool(library.mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)) and bool(
            library.mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        )
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows has no CDLL(None)
        return False
