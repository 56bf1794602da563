"""
``--tls-sni``: a folder of certificates, chosen by the name that a client asks for (SNI, RFC 6066, 3).

Each is a file ``NAME.pem`` with certificate, chain and key. It is for NAME, and for the DNS names in it;
``*.example.com`` is for each name one level below ``example.com``, and a certificate of the name itself comes first.
Clients that ask for another name, or for none, get the certificate of the port.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from mtserver.telemetry.escape import escape
from mtserver.transport.tls.certificates import Certificate, Files
from mtserver.transport.tls.file_watch import Watched, refused

Load = Callable[[Files], Certificate]


class Names:
    """
    The names that the certificates of a folder are for.

    :param load: reads a certificate.

    Raises ``OSError`` or ``ValueError`` for a folder that cannot be used.
    """

    def __init__(self, folder: str, load: Load) -> None:
        self._folder = folder
        self._load = load
        self._files: dict[str, Watched[Certificate]] = {path: self._watch(path) for path in self._listed()}
        if not self._files:
            raise ValueError(f"{folder} holds no NAME.pem")
        #: Errors, by path, of files that could not be read when they were new: each is logged once.
        self._bad: dict[str, str] = {}
        self._table: dict[str, ssl.SSLContext] = {}
        self._order()

    def choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Give OpenSSL the certificate of a name, in its callback of a handshake."""
        if name is None:
            return
        name = name.lower()
        found = self._table.get(name) or self._table.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            tls.context = found

    def certificates(self) -> Iterator[tuple[str, Certificate]]:
        """List the certificates, each with its path."""
        for path, watched in self._files.items():
            yield path, watched.value

    def look(self, *, force: bool) -> Iterator[None]:
        """Follow the folder: read new and changed files, forget those that have gone; in steps of one file."""
        try:
            listed = self._listed()
        except OSError as error:
            if self._bad.get(self._folder) != str(error):
                self._bad[self._folder] = str(error)
                refused("certificate", escape(self._folder), error)
            return
        self._bad = {path: why for path, why in self._bad.items() if path in listed}
        changed = False
        for path in listed:
            watched = self._files.get(path)
            if watched is None:
                changed |= self._add(path)
            else:
                changed |= watched.look(force=force)
            yield
        gone = self._files.keys() - set(listed)
        for path in gone:
            del self._files[path]
        if changed or gone:
            self._order()

    def _add(self, path: str) -> bool:
        try:
            self._files[path] = self._watch(path)
        except (OSError, ValueError) as error:
            if self._bad.get(path) != str(error):
                self._bad[path] = str(error)
                refused("certificate", escape(path), error)
            return False
        self._bad.pop(path, None)
        return True

    def _watch(self, path: str) -> Watched[Certificate]:
        return Watched("certificate", (path,), lambda: self._load(Files(path)))

    def _listed(self) -> list[str]:
        return sorted(str(path) for path in Path(self._folder).iterdir() if path.suffix == ".pem")

    def _order(self) -> None:
        table: dict[str, ssl.SSLContext] = {}
        for watched in self._files.values():
            for name in watched.value.names:
                table.setdefault(name, watched.value.context)
        for path, watched in self._files.items():
            table[Path(path).stem.lower()] = watched.value.context
        self._table = table
