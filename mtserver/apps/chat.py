"""
``--app chat``: rooms in which people talk, with nothing but ``nc``. ``/help`` lists the commands.

A message is stored in the journal before others read it, so that a newcomer to a room reads the last ones. Each node
knows who is in a room, and who comes and goes (``--groups``).

A newcomer is a member of the room before the history is read, and so misses nothing said meanwhile. It may read such a
message twice, when it is said and again in the history, with its date: messages to a group do not pass by the handler,
which could otherwise leave out what was read already.

A name in a room is one person's. On one node that is certain. Where two take the same name on different nodes before
the nodes have told each other, the one that finds the other there gives way: both may, and in the worst case neither.
Equal names taken while the nodes could not reach each other both stay, until one of the two takes another.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mtserver import App, Change, Client, Handler, Unavailable, escape

#: Messages of a room that a newcomer reads.
HISTORY = 20
#: Last messages of all rooms, among which they are looked for.
LOOKED_AT = 2000
#: Most characters of a name.
NAME_SIZE = 32
#: Most rooms that one client is in at once.
ROOMS = 20
#: Mark in the names of this node's guests, since each node numbers its clients from 1.
NODE = secrets.token_hex(3)

#: Number and time of each record, with its message; None for a record of another app.
Recent = deque[tuple[tuple[int, float], dict[str, Any] | None]]

WELCOME = "Welcome, {name}. /join ROOM to talk, /nick NAME to be known by another name, /help for more."
HELP = """\
/join ROOM     come into a room; what you type is said there
/leave [ROOM]  go out of it
/who [ROOM]    who is in it
/rooms         the rooms you are in; the first is where you talk
/nick NAME     be known by another name
/me DOES       say what you do: /me waves
/quit          go
//TEXT         say something that begins with a slash"""


class Chat(Handler):
    """One person, and the person's rooms."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.name = client.identity or f"guest{client.id}-{NODE}"
        # Rooms, each with the function that ends the watch of its members; the last one is where the person talks.
        self.rooms: dict[str, Callable[[], None]] = {}

    async def connected(self) -> None:
        self.client.send(WELCOME.format(name=shown(self.name)))

    async def received(self, message: str) -> str | None:
        text = message.strip()
        if not text:
            return None
        if not text.startswith("/") or text.startswith("//"):
            return await self.say(text.removeprefix("/"))
        command, _, rest = text[1:].partition(" ")
        do = getattr(self, f"do_{command.lower()}", None) if command.isidentifier() else None
        if do is None:
            return f"There is no /{shown(command)}; /help lists what there is."
        answer: str | None = await do(rest.strip())
        return answer

    async def disconnected(self, _reason: str) -> None:
        for stop in self.rooms.values():
            stop()

    # Talking.

    async def say(self, text: str, form: str = "{name}: {text}") -> str | None:
        room = self.room()
        if room is None:
            return "You are in no room; /join one."
        said = {"room": room, "text": form.format(name=self.name, text=text)}
        await self.client.journal(json.dumps(said))
        await self.client.app.group(room).send(line(room, said["text"]))
        return None

    async def do_me(self, does: str) -> str | None:
        return await self.say(does, "* {name} {text}") if does else "What do you do? /me waves"

    # Rooms.

    def room(self) -> str | None:
        """Return the room where this person talks."""
        return next(reversed(self.rooms), None)

    async def do_join(self, room: str) -> str | None:
        room = room.removeprefix("#")
        if not is_name(room):
            return f"/join ROOM: a room's name has 1 to {NAME_SIZE} characters, none of them blank."
        group = self.client.app.group(room)
        if room not in self.rooms:
            if len(self.rooms) >= ROOMS:
                return f"You are in {ROOMS} rooms, which is enough; /leave one."
            taken = f"{shown(self.name)} is somebody else in {shown(room)}; be known by another /nick there."
            if self.called(room, self.name):
                return taken
            await self.client.join(room, label=self.name)
            if self.called(room, self.name) > 1:  # somebody on another node, at the same time
                await self.client.leave(room)
                return taken
            self.rooms[room] = group.watch(self.changed)
            await self.tell_history(room)
        self.rooms[room] = self.rooms.pop(room)  # the last one is where the person talks
        return await self.do_who(room)

    async def tell_history(self, room: str) -> None:
        try:
            for said in await history(self.client.app, room):
                self.client.send(said)
        except Unavailable:
            self.client.send("What was said before cannot be read now.")

    async def do_leave(self, room: str) -> str | None:
        room = room.removeprefix("#") or self.room() or ""
        stop = self.rooms.pop(room, None)
        if stop is None:
            return f"You are not in {shown(room)}." if room else "You are in no room."
        stop()
        await self.client.leave(room)
        now = self.room()
        return f"You have left {shown(room)}" + (f"; you talk in {shown(now)} now." if now else ".")

    async def do_who(self, room: str) -> str | None:
        room = room.removeprefix("#") or self.room() or ""
        if not is_name(room):
            return "/who ROOM: of which room?"
        names = [shown(member.label) for member in self.client.app.group(room).members()]
        return f"In {shown(room)}: {', '.join(names)}" if names else f"Nobody is in {shown(room)}."

    async def do_rooms(self, _rest: str) -> str | None:
        return f"You are in {', '.join(map(shown, reversed(self.rooms)))}." if self.rooms else "You are in no room."

    def changed(self, change: Change) -> None:
        """Tell who comes, goes or changes the name, in a form that no message can have."""
        before, after = change.before, change.after
        if before is None and after is not None:
            words = f"-- {after.label} has come"
        elif after is None and before is not None:
            words = f"-- {before.label} has gone"
        elif before is not None and after is not None:
            words = f"-- {before.label} is now known as {after.label}"
        self.client.send(line(change.group, words))

    # Names.

    def called(self, room: str, name: str) -> int:
        """Count the people of that name in a room."""
        return [member.label.casefold() for member in self.client.app.group(room).members()].count(name.casefold())

    async def do_nick(self, name: str) -> str | None:
        if self.client.identity is not None:
            return f"You are {shown(self.name)}: that is who you have logged in as."
        if not is_name(name):
            return f"/nick NAME: a name has 1 to {NAME_SIZE} characters, none of them blank."
        before = self.name
        own = int(name.casefold() == before.casefold())  # the same name, in another case
        for room in self.rooms:
            if self.called(room, name) > own:
                return f"{shown(name)} is somebody else in {shown(room)}."
        await self.be_called(name)
        for room in self.rooms:
            if self.called(room, name) > 1:  # somebody on another node, at the same time
                await self.be_called(before)
                return f"{shown(name)} is somebody else in {shown(room)}."
        return f"You are known as {shown(name)}."

    async def be_called(self, name: str) -> None:
        self.name = name
        # Changed in all rooms before anything is awaited, so that nobody on this node gets in between.
        for done in [self.client.join(room, label=name) for room in self.rooms]:
            await done

    # The rest.

    async def do_help(self, _rest: str) -> str | None:
        for command in HELP.splitlines():
            self.client.send(command)
        return None

    async def do_quit(self, _rest: str) -> str | None:
        # Left now, since the client may take long to end the connection.
        for room in list(self.rooms):
            await self.do_leave(room)
        self.client.close()
        return f"Goodbye, {shown(self.name)}."


def is_name(text: str) -> bool:
    """Whether a text may be the name of a person or a room."""
    return 1 <= len(text) <= NAME_SIZE and not any(character.isspace() for character in text)


def shown(text: str) -> str:
    """Escape a text, so that it has nothing that a terminal would obey."""
    return escape(text)


def line(room: str, words: str) -> str:
    """Write a line about a room."""
    return f"[{shown(room)}] {shown(words)}"


async def history(app: App, room: str) -> list[str]:
    """Write the last messages of a room, for a newcomer."""
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(at))} {line(room, said['text'])}"
        for (_, at), said in await recent(app)
        if said is not None and said["room"] == room
    ]
    return lines[-HISTORY:]


async def recent(app: App) -> Recent:
    """Return the journal's last messages; those read before are kept, and only new ones are read."""
    kept: Recent = app.state.__dict__.setdefault("recent", deque(maxlen=LOOKED_AT))
    if kept and not await is_there(app, kept[-1][0]):
        kept = app.state.recent = deque(maxlen=LOOKED_AT)
    position = await app.journal.position()
    while (known := kept[-1][0][0] if kept else 0) < position:
        records = await app.journal.read(max(known, position - LOOKED_AT), LOOKED_AT)
        if not records:
            break  # all that was there has been removed
        # Compared again, since another newcomer may have read some of them meanwhile.
        known = kept[-1][0][0] if kept else 0
        kept.extend(((each.sequence, each.time), said_in(each.message)) for each in records if each.sequence > known)
    return kept


async def is_there(app: App, last: tuple[int, float]) -> bool:
    """Whether the last message read is in the journal still; if not, it may be a new one, with numbers from 1 again."""
    return [(each.sequence, each.time) for each in await app.journal.read(last[0] - 1, 1)] == [last]


def said_in(message: bytes) -> dict[str, Any] | None:
    """Read the message in a record; None for a record of another app, which the journal may have too."""
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if isinstance(said, dict) and isinstance(said.get("room"), str) and isinstance(said.get("text"), str):
        return said
    return None


app = App(Chat, uses_journal=True)
