"""Accounts, keys, sign-ins, tickets, and how they stand to threads, in PostgreSQL."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from m3.access.principals import Kind
from m3.access.rules import Role, Visibility
from m3.store.postgres import Store


@dataclass(frozen=True, slots=True)
class Somebody:
    """Who has an account or a key."""

    kind: Literal["person", "operator", "program"]
    tenant: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A producer key, as far as the room knows it."""

    key_id: UUID
    tenant: str
    name: str
    secret_hash: bytes


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whose a ticket is. ``expires``: when their authority does, in seconds since the epoch, as in Principal."""

    principal_id: UUID
    sign_in: UUID | None
    expires: float | None


@dataclass(frozen=True, slots=True)
class Stance:
    """How a principal stands to a thread: what ``kind`` it is, None if it is nobody any more; the thread's
    ``visibility``, None where there is no such thread; and its ``role`` there."""

    kind: Kind | None
    visibility: Visibility | None
    role: Role | None


class Directory:
    """Who there is. Every method raises StoreUnavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def who(self, principal_id: UUID, sign_in: UUID | None) -> Somebody | None:
        """Who has the account or the key, as long as that is good, and so is the sign-in where one is named."""
        rows = await self._store.ask("who", principal_id, sign_in)
        return Somebody(**rows[0]) if rows else None

    async def key(self, prefix: str) -> StoredKey | None:
        rows = await self._store.ask("key_of_prefix", prefix)
        return StoredKey(**rows[0]) if rows else None

    async def stances(self, asked: Sequence[tuple[UUID | None, UUID | None, str]]) -> list[Stance]:
        """How each principal, with its sign-in where it has one, stands to the thread of that key."""
        principals, sign_ins, keys = zip(*asked, strict=True) if asked else ((), (), ())
        return [Stance(**row) for row in await self._store.ask("stances", principals, sign_ins, keys)]

    async def add_ticket(
        self, hashed: bytes, principal_id: UUID, sign_in: UUID | None, expires: float | None, *, ttl: float
    ) -> None:
        """Keep a ticket for ``ttl`` seconds."""
        whose = {"id": str(principal_id), "sign_in": sign_in and str(sign_in), "expires": expires}
        await self._store.ask("add_ticket", hashed, json.dumps(whose), timedelta(seconds=ttl))

    async def take_ticket(self, hashed: bytes) -> Ticket | None:
        """Whose the ticket is, which nobody else is told any more; None where there is none, or it is too late."""
        rows = await self._store.ask("take_ticket", hashed)
        if not rows or not rows[0]["good"]:
            return None
        whose = json.loads(rows[0]["principal"])
        return Ticket(UUID(whose["id"]), whose["sign_in"] and UUID(whose["sign_in"]), whose["expires"])
