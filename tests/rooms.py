"""
An app for the tests of groups: its clients say what they want done with groups, a line each, and are answered in one.

What a client hears of its groups begins with ``!``, and what it is told of their members with ``*``. No import of the
tests, so that a server of its own can run it.
"""

from __future__ import annotations

from mtserver import Client, Handler, Refusal
from mtserver.groups import Change, Member


def shown(member: Member | None) -> str:
    return "-" if member is None else f"{member.client}/{member.identity}/{member.label}"


class Rooms(Handler):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.stops: list[object] = []

    async def received(self, message: str) -> str:
        verb, _, rest = message.partition(" ")
        try:
            return await getattr(self, f"do_{verb}")(*rest.split(" ")) or "ok"
        except Refusal as refusal:
            return f"{refusal.code} {refusal.text}"

    async def do_join(self, room: str, label: str = "") -> None:
        await self.client.join(room, label=label)

    async def do_leave(self, room: str) -> None:
        await self.client.leave(room)

    async def do_rooms(self, *_words: str) -> str:
        return " ".join(sorted(self.client.groups))

    async def do_say(self, room: str, *words: str) -> None:
        self.client.app.group(room).send(f"! {room} {' '.join(words)}")

    async def do_others(self, room: str, *words: str) -> None:
        await self.client.app.group(room).send(f"! {room} {' '.join(words)}", self.client)

    async def do_wait(self, room: str, size: str) -> None:
        sent = self.client.app.group(room).send("!" * int(size), full="wait")
        waiting = self.client.app.state.__dict__.setdefault("waiting", set())
        waiting.add(self.client.id)
        await sent
        waiting.discard(self.client.id)

    async def do_waiting(self, *_words: str) -> str:
        return f"{len(self.client.app.state.__dict__.get('waiting', ()))} wait"

    async def do_many(self, room: str, first: str, count: str) -> None:
        for number in range(int(first), int(first) + int(count)):
            self.client.app.group(room).send(f"! {room} {number}")

    async def do_who(self, room: str) -> str:
        return " ".join(["who", *map(shown, self.client.app.group(room).members())])

    async def do_watch(self, room: str) -> None:
        def changed(change: Change) -> None:
            self.client.send(f"* {change.group} {shown(change.before)} {shown(change.after)}")

        self.stops.append(self.client.app.group(room).watch(changed))

    async def do_unwatch(self, *_words: str) -> None:
        for stop in self.stops:
            stop()  # type: ignore[operator]

    async def do_connected(self, *_words: str) -> str:
        return str(self.client.app.groups.connected)

    async def do_broadcast(self, *words: str) -> None:
        self.client.app.broadcast(f"! {' '.join(words)}")


class Blocking(Handler):
    """The same from threads, as far as it goes."""

    def received(self, message: str) -> str:
        verb, _, rest = message.partition(" ")
        room, _, text = rest.partition(" ")
        try:
            if verb == "join":
                self.client.join(room)
            elif verb == "leave":
                self.client.leave(room)
            else:
                self.client.app.group(room).send(text, full="wait" if verb == "wait" else "drop")
        except Refusal as refusal:
            return refusal.text
        return "ok"
