"""Escaping of what a peer has sent, for whoever reads a log or a terminal."""

from __future__ import annotations


def escape(data: bytes | str) -> str:
    """
    Text for a log or a terminal: everything a peer could use to forge lines or drive a terminal becomes ``\\xNN``.

    Printable characters stay; a backslash is doubled, so that nobody can type what looks like an escape.

    :param data: bytes (shown as UTF-8 where they are) or a string from a peer.
    """
    text = data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
