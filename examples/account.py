"""Exactly once: balances in the journal's own transaction, so that a deposit that is sent again is not made again.

cd examples && twistd -n mtserver --port 9999 --app account:app --message-ids

RESUME till-7
@1 deposit alice 10
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mtserver import App, BadMessage, Client


async def account(client: Client, message: str) -> str:
    match message.split():
        case ["deposit", owner, amount] if amount.isdecimal() and len(amount) < 10:
            async with client.transaction() as db:  # not entered for an id that is known: that is answered OK <seq> dup
                await db.execute("INSERT OR IGNORE INTO balances VALUES (?, 0)", (owner,))
                await db.execute("UPDATE balances SET balance = balance + ? WHERE owner = ?", (int(amount), owner))
                [(balance,)] = await db.execute("SELECT balance FROM balances WHERE owner = ?", (owner,))
            return f"OK {db.sequence} {owner} has {balance}"
    raise BadMessage("say deposit <owner> <amount>")


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    async with app.journal.transaction(None) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS balances (owner TEXT PRIMARY KEY, balance INTEGER NOT NULL)")
    yield


app = App(account, lifespan=lifespan, uses_journal=True)
