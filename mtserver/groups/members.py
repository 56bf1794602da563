"""
Members of groups, as nodes tell each other: this node's members, and those of the others.

Pure, with the time passed in. A node writes its members on *sheets* of at most :data:`SHEET` each. A change writes its
sheet anew, with the sheet's next version. The sum of the versions of a node's sheets says how often it has written, so
that a node which hears the sum knows whether it has missed anything: a version is never higher where it was received
than where it was written, so equal sums mean equal sheets.

Laws:

* Whatever sheets arrive, however often and late, once the sums are equal the members are.
* A node's members are shown from its first sign of life until it has been silent for :data:`SILENCE` seconds, or has
  said goodbye. Sheets of a node without a sign of life are kept, but not shown.
* Each change of what :meth:`OtherNodes.members` shows is reported once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mtserver.groups.groups import Change, Member

#: Most members on one sheet: a change sends as many, and ten thousand members are 157 sheets.
SHEET = 64
#: Seconds of silence after which a node counts as gone.
SILENCE = 3.0

#: Line of a sheet: group, client, identity and label of one member.
Entry = tuple[str, int, str, str]


class Sheet(NamedTuple):
    """Some of a node's members, in one version."""

    number: int
    #: Count of the times that the sheet has been written.
    version: int
    entries: list[Entry]


class OwnMembers:
    """The members of this node, on their sheets."""

    def __init__(self) -> None:
        self._sheets: list[dict[tuple[str, int], Entry]] = []
        self._versions: list[int] = []
        self._sheet_of: dict[tuple[str, int], int] = {}
        self._with_room: set[int] = set()
        self._changed: dict[int, None] = {}
        #: Sum of the versions of all sheets.
        self.sum = 0

    def change(self, group: str, before: Member | None, after: Member | None) -> None:
        """Write a change on its sheet; `before` or `after` is None where the member is new or gone."""
        member = after or before
        if member is None:
            return
        key = group, member.client
        number = self._sheet_of.get(key)
        if after is None:
            if number is None:
                return
            del self._sheet_of[key], self._sheets[number][key]
            self._with_room.add(number)
        else:
            if number is None:
                number = self._sheet_of[key] = self._sheet_with_room()
            self._sheets[number][key] = (group, after.client, after.identity, after.label)
            if len(self._sheets[number]) >= SHEET:
                self._with_room.discard(number)
        self._changed[number] = None

    def _sheet_with_room(self) -> int:
        # A sheet that is written anyway, if there is one.
        for number in self._changed:
            if number in self._with_room:
                return number
        if not self._with_room:
            self._sheets.append({})
            self._versions.append(0)
            self._with_room.add(len(self._sheets) - 1)
        return next(iter(self._with_room))

    @property
    def changed(self) -> bool:
        """Whether a sheet has changed since :meth:`take`."""
        return bool(self._changed)

    def take(self) -> list[Sheet]:
        """Return the sheets that have changed since the last call, each in its next version."""
        taken, self._changed = self._changed, {}
        for number in taken:
            self._versions[number] += 1
        self.sum += len(taken)
        return [self.sheet(number) for number in taken]

    def sheet(self, number: int) -> Sheet:
        """Return one sheet."""
        return Sheet(number, self._versions[number], list(self._sheets[number].values()))

    def versions(self) -> dict[int, int]:
        """Return the version of each sheet that has been written, by its number."""
        return {number: version for number, version in enumerate(self._versions) if version}


class _Node:
    """One other node, as far as its messages have arrived."""

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.alive = False
        self.sheets: dict[int, Sheet] = {}
        self.sum = 0
        #: Count of the signs of life in a row with another sum than that of the received sheets.
        self.behind = 0


class OtherNodes:
    """The members of all other nodes."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        #: Members of each group, by node and client, with the number of the sheet that shows them.
        self._groups: dict[str, dict[tuple[str, int], tuple[int, Member]]] = {}

    def alive(self) -> set[str]:
        """Return the names of the nodes that have given a sign of life lately."""
        return {name for name, node in self._nodes.items() if node.alive}

    def members(self, group: str) -> list[Member]:
        """Return a group's members in no order. Any thread may call: the dictionary is copied before it is read."""
        return [member for _, member in list(self._groups.get(group, {}).values())]

    def versions(self, name: str) -> dict[int, int]:
        """Return the version of each sheet received from a node, by its number."""
        node = self._nodes.get(name)
        return {} if node is None else {sheet.number: sheet.version for sheet in node.sheets.values()}

    def receive_beat(self, name: str, total: int, now: float) -> Iterator[Change]:
        """Take a node's sign of life, which has the sum of its versions."""
        node = self._nodes.setdefault(name, _Node(now))
        node.heard_at = now
        node.behind = node.behind + 1 if node.sum != total else 0
        if not node.alive:
            node.alive = True
            for sheet in node.sheets.values():
                yield from self._show(name, sheet, ())

    def behind(self, name: str) -> int:
        """Count the signs of life in a row by which sheets of this node are missing here."""
        node = self._nodes.get(name)
        return 0 if node is None else node.behind

    def receive_sheet(self, name: str, sheet: Sheet, now: float) -> Iterator[Change]:
        """Take a node's sheet; one that is older than the present version changes nothing."""
        node = self._nodes.setdefault(name, _Node(now))
        had = node.sheets.get(sheet.number)
        if had is not None and had.version >= sheet.version:
            return
        node.sheets[sheet.number] = sheet
        node.sum += sheet.version - (had.version if had else 0)
        if node.alive:
            yield from self._show(name, sheet, had.entries if had else ())

    def _show(self, name: str, sheet: Sheet, had: Iterable[Entry]) -> Iterator[Change]:
        entries = {(entry[0], entry[1]): entry for entry in sheet.entries}
        for group, client, *_ in had:
            if (group, client) not in entries:
                yield from self._remove(name, sheet.number, group, client)
        for (group, client), (_, _, identity, label) in entries.items():
            members = self._groups.setdefault(group, {})
            _, before = members.get((name, client), (0, None))
            after = Member(name, client, identity, label)
            members[name, client] = sheet.number, after
            if before != after:
                yield Change(group, before, after)

    def _remove(self, name: str, number: int, group: str, client: int) -> Iterator[Change]:
        members = self._groups.get(group, {})
        shown_by, before = members.get((name, client), (number, None))
        # A member that has moved to another sheet, which came first, stays.
        if before is not None and shown_by == number:
            del members[name, client]
            if not members:
                del self._groups[group]
            yield Change(group, before, None)

    def remove_node(self, name: str) -> Iterator[Change]:
        """Forget a node that is gone."""
        node = self._nodes.pop(name, None)
        if node is not None and node.alive:
            for sheet in node.sheets.values():
                for group, client, *_ in sheet.entries:
                    yield from self._remove(name, sheet.number, group, client)

    def expire(self, now: float) -> Iterator[Change]:
        """Forget the nodes that have been silent for too long."""
        for name in [name for name, node in self._nodes.items() if now - node.heard_at > SILENCE]:
            yield from self.remove_node(name)

    def excuse_silence(self, seconds: float) -> None:
        """Discount so many seconds of every node's silence, in which this node did not listen."""
        for node in self._nodes.values():
            node.heard_at += seconds


def entries_of(found: Any) -> list[Entry]:
    """Restore the entries of a sheet from msgpack's lists; ``ValueError`` or ``TypeError`` if they are none."""
    return [(str(group), int(client), str(identity), str(label)) for group, client, identity, label in found]
