"""
``--tls-sni``: a folder of certificates, chosen by the name that a client asks for (SNI, RFC 6066, 3).

Each is a file ``NAME.pem`` with certificate, chain and key. It is for NAME, and for the DNS names in it;
``*.example.com`` is for each name one level below ``example.com``, and a certificate of the name itself comes first.
Who asks for another name, or for none, gets the certificate of its port.
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
    The folder.

    :param load: reads a certificate.

    Raises ``OSError`` or ``ValueError`` for what cannot be used.
    """

    def __init__(self, folder: str, load: Load) -> None:
        self._folder = folder
        self._load = load
        self._files: dict[str, Watched[Certificate]] = {path: self._watch(path) for path in self._listed()}
        if not self._files:
            raise ValueError(f"{folder} holds no NAME.pem")
        #: What could not be read when it was new, and is not to be told again.
        self._bad: dict[str, str] = {}
        self._table: dict[str, ssl.SSLContext] = {}
        self._order()

    def choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """OpenSSL asks for the certificate of this name."""
        if name is None:
            return
        name = name.lower()
        found = self._table.get(name) or self._table.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            tls.context = found

    def certificates(self) -> Iterator[tuple[str, Certificate]]:
        """Each with its file."""
        for path, watched in self._files.items():
            yield path, watched.value

    def look(self, *, anyway: bool) -> Iterator[None]:
        """What is new in the folder is taken up, what has gone is let go; a step for each that was read."""
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
                changed |= self._take_up(path)
            else:
                changed |= watched.look(anyway=anyway)
            yield
        gone = self._files.keys() - set(listed)
        for path in gone:
            del self._files[path]
        if changed or gone:
            self._order()

    def _take_up(self, path: str) -> bool:
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
