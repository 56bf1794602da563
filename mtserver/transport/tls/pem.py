"""Blocks of a PEM file (RFC 7468), with a check that it is not being written at this moment."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(path: str, label: str, what: str) -> list[bytes]:
    """
    Find every block of one kind in a file, whatever stands between them.

    :param label: the kind, such as ``CERTIFICATE``.
    :param what: the word for it in ``ValueError``, which is raised where there is none, or one without its end.
    """
    content = Path(path).read_bytes()
    begin, end = (f"-----{word} {label}-----".encode() for word in ("BEGIN", "END"))
    found = re.findall(re.escape(begin) + b".+?" + re.escape(end), content, re.DOTALL)
    if not found:
        raise ValueError(f"{path} holds no {what} in PEM format")
    if content.count(begin) != len(found) or any(block.count(begin) != 1 for block in found):
        raise ValueError(f"{path} holds a {what} without its end: is it being written?")
    return found
