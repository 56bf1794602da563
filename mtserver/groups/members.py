"""
Who is in which groups, as nodes tell each other: this node's members, and those of the others.

Pure, with the time passed in. A node's members stand in *sheets* of at most :data:`SHEET` each. A change writes the
sheet that it is on, with the next number of that sheet; the sum of the numbers of a node's sheets says how often it
has written, so that whoever hears the sum knows whether it has missed anything (a sheet's number is never higher
where it was received than where it was written: equal sums are equal sheets).

Laws:

* Whatever sheets arrive, however often and late, once the sums are equal the members are.
* A node's members are there from when it is heard of until it has been silent for :data:`SILENCE` seconds, or has
  said goodbye; of what is told of a node that is not heard of, nothing is shown.
* Each change of what :meth:`Others.members` shows is told, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mtserver.groups import Change, Member

#: Members on one sheet, at most: a change costs as much as so many, and ten thousand members cost 157 sheets.
SHEET = 64
#: Seconds after which a node that says nothing is taken to be gone.
SILENCE = 3.0

#: A member of a group, as it stands on a sheet: group, client, identity, label.
Entry = tuple[str, int, str, str]


class Sheet(NamedTuple):
    """Some of a node's members."""

    number: int
    #: How often it has been written.
    version: int
    entries: list[Entry]


class Own:
    """The members of this node, on their sheets."""

    def __init__(self) -> None:
        self._sheets: list[dict[tuple[str, int], Entry]] = []
        self._versions: list[int] = []
        self._place: dict[tuple[str, int], int] = {}
        self._with_room: set[int] = set()
        self._changed: dict[int, None] = {}
        #: Of the versions of all sheets.
        self.sum = 0

    def change(self, group: str, before: Member | None, after: Member | None) -> None:
        """Note it."""
        member = after or before
        if member is None:
            return
        key = group, member.client
        number = self._place.get(key)
        if after is None:
            if number is None:
                return
            del self._place[key], self._sheets[number][key]
            self._with_room.add(number)
        else:
            if number is None:
                number = self._place[key] = self._some_room()
            self._sheets[number][key] = (group, after.client, after.identity, after.label)
            if len(self._sheets[number]) >= SHEET:
                self._with_room.discard(number)
        self._changed[number] = None

    def _some_room(self) -> int:
        # The one that is written anyway, if there is one.
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
        """There is something that the others have not been told."""
        return bool(self._changed)

    def take(self) -> list[Sheet]:
        """The sheets that have changed since this was last asked."""
        taken, self._changed = self._changed, {}
        for number in taken:
            self._versions[number] += 1
        self.sum += len(taken)
        return [self.sheet(number) for number in taken]

    def sheet(self, number: int) -> Sheet:
        """One of them, as it is."""
        return Sheet(number, self._versions[number], list(self._sheets[number].values()))

    def versions(self) -> dict[int, int]:
        """Of each sheet that has been written."""
        return {number: version for number, version in enumerate(self._versions) if version}


class _Node:
    """Another node, as far as it has told us."""

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.alive = False
        self.sheets: dict[int, Sheet] = {}
        self.sum = 0
        #: How often in a row it has said a sum that is not ours.
        self.behind = 0


class Others:
    """The members of all other nodes."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        #: Of each group: where each member stands, and it.
        self._groups: dict[str, dict[tuple[str, int], tuple[int, Member]]] = {}

    def alive(self) -> set[str]:
        """The nodes that are there."""
        return {name for name, node in self._nodes.items() if node.alive}

    def members(self, group: str) -> list[Member]:
        """Who is in it, in no order. In any thread: what is there is copied before it is looked at."""
        return [member for _, member in list(self._groups.get(group, {}).values())]

    def versions(self, name: str) -> dict[int, int]:
        """What we have of a node."""
        node = self._nodes.get(name)
        return {} if node is None else {sheet.number: sheet.version for sheet in node.sheets.values()}

    def heard(self, name: str, total: int, now: float) -> Iterator[Change]:
        """A node has said that it is there, and how often it has written."""
        node = self._nodes.setdefault(name, _Node(now))
        node.heard_at = now
        node.behind = node.behind + 1 if node.sum != total else 0
        if not node.alive:
            node.alive = True
            for sheet in node.sheets.values():
                yield from self._show(name, sheet, ())

    def behind(self, name: str) -> int:
        """How often in a row this node has said that there is more than we have."""
        node = self._nodes.get(name)
        return 0 if node is None else node.behind

    def told(self, name: str, sheet: Sheet, now: float) -> Iterator[Change]:
        """A node's sheet has arrived, be it an old one."""
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
        stands, before = members.get((name, client), (number, None))
        # It may have moved to another sheet, which came first.
        if before is not None and stands == number:
            del members[name, client]
            if not members:
                del self._groups[group]
            yield Change(group, before, None)

    def gone(self, name: str) -> Iterator[Change]:
        """A node is not there any more."""
        node = self._nodes.pop(name, None)
        if node is not None and node.alive:
            for sheet in node.sheets.values():
                for group, client, *_ in sheet.entries:
                    yield from self._remove(name, sheet.number, group, client)

    def expire(self, now: float) -> Iterator[Change]:
        """Forget those that have been silent for too long."""
        for name in [name for name, node in self._nodes.items() if now - node.heard_at > SILENCE]:
            yield from self.gone(name)

    def excuse(self, seconds: float) -> None:
        """We have not listened for so long: nobody's silence counts."""
        for node in self._nodes.values():
            node.heard_at += seconds


def entries_of(found: Any) -> list[Entry]:
    """What msgpack has made of entries, as they were."""
    return [(str(group), int(client), str(identity), str(label)) for group, client, identity, label in found]
