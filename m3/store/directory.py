"""Accounts, keys, sign-ins, tickets, and how they stand to threads, in PostgreSQL."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from m3.access.principals import Kind, Principal
from m3.access.rules import Role, Visibility
from m3.store.changes import Change, User
from m3.store.postgres import Store, speaking_for
from m3.tenants import thread_id_of


@dataclass(frozen=True, slots=True)
class Somebody:
    """Who has an account."""

    kind: Literal["person", "operator"]
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
class Account:
    """``password_hash`` is None for who signs in elsewhere; ``one_time``: it is to be changed at the first sign-in."""

    account_id: UUID
    tenant: str
    name: str
    operator: bool
    password_hash: str | None
    one_time: bool


@dataclass(frozen=True, slots=True)
class OutsidersAccount:
    """An account of somebody who signs in elsewhere."""

    account_id: UUID
    tenant: str
    name: str
    kind: Literal["person", "operator"]
    revoked: bool


@dataclass(frozen=True, slots=True)
class KeyOfProgram:
    """A producer key as others see it, with the ids of the threads that it is for; ``reads``: whether it may."""

    prefix: str
    name: str
    created_at: datetime
    threads: list[str]
    reads: bool


@dataclass(frozen=True, slots=True)
class OwnThread:
    """A thread that somebody finds, by its id; ``role`` is None where it is only open."""

    thread_id: str
    visibility: Visibility
    role: Role | None


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as operators see it, with the names of its owners and how many members it has; ``role``: their own."""

    thread_id: str
    visibility: Visibility
    role: Role | None
    owners: list[str]
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    kind: Literal["person", "program"]
    role: Role


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

    async def who(self, account_id: UUID, sign_in: UUID) -> Somebody | None:
        """Who has the account, as long as that is good, and so is the sign-in."""
        rows = await self._store.ask("who", account_id, sign_in)
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
        """Keep a ticket for ``ttl`` seconds. No tenant sees to tickets: whoever redeems one is nobody yet."""
        whose = {"id": str(principal_id), "sign_in": sign_in and str(sign_in), "expires": expires}
        with speaking_for(None):
            await self._store.ask("add_ticket", hashed, json.dumps(whose), timedelta(seconds=ttl))

    async def take_ticket(self, hashed: bytes) -> Principal | None:
        """Whose the ticket is, which nobody else is told any more; None where there is none, it is too late, or they
        are signed out or revoked by now."""
        rows = await self._store.ask("take_ticket", hashed)
        return Principal(**rows[0]) if rows else None

    async def any_operator(self) -> bool:
        """Whether there has been one."""
        return bool(await self._store.ask("any_operator"))

    async def account(self, account_id: UUID) -> Account | None:
        rows = await self._store.ask("account", account_id)
        return Account(**rows[0]) if rows else None

    async def outsider(self, subject: str) -> OutsidersAccount | None:
        """The account of whom an issuer knows so, even if it is revoked."""
        rows = await self._store.ask("outsider", subject)
        return OutsidersAccount(**rows[0]) if rows else None

    async def account_of_name(self, tenant: str, name: str) -> Account | None:
        rows = await self._store.ask("account_of_name", tenant, name)
        return Account(**rows[0]) if rows else None

    async def whose_sign_in(self, sign_in: UUID) -> tuple[str, str] | None:
        """The tenant and the name of whoever signed in so, even if that has ended."""
        rows = await self._store.ask("sign_in", sign_in)
        return (rows[0]["tenant"], rows[0]["name"]) if rows else None

    async def users(self, tenant: str, after: str, limit: int) -> list[User]:
        return [User(**row) for row in await self._store.ask("accounts", tenant, after, limit)]

    async def keys(self, tenant: str, after: str, limit: int) -> list[KeyOfProgram]:
        rows = await self._store.ask("keys", tenant, after, limit)
        return [
            KeyOfProgram(
                row["prefix"],
                row["name"],
                row["created_at"],
                [thread_id_of(key) for key in row["threads"] or ()],
                bool(row["reads"]),
            )
            for row in rows
        ]

    async def threads_of(
        self, tenant: str, principal_id: UUID, after: str, limit: int, *, and_open_ones: bool
    ) -> list[OwnThread]:
        """Those whose keys come after that one."""
        rows = await self._store.ask("threads_of", tenant, principal_id, and_open_ones, after, limit)
        return [OwnThread(thread_id_of(row["thread_id"]), row["visibility"], row["role"]) for row in rows]

    async def threads(self, tenant: str, principal_id: UUID | None, after: str, limit: int) -> list[Thread]:
        """Those whose keys come after that one."""
        rows = await self._store.ask("threads_of_tenant", tenant, after, limit, principal_id)
        return [Thread(**{**row, "thread_id": thread_id_of(row["thread_id"])}) for row in rows]

    async def members(self, key: str) -> list[Member]:
        return [Member(**row) for row in await self._store.ask("members", key)]

    @asynccontextmanager
    async def change(self, tenant: str, actor: str, address: str = "") -> AsyncIterator[Change]:
        """A block whose steps are carried out together, and not at all where it raises."""
        async with self._store.transaction() as ask:
            yield Change(ask, tenant, actor, address)
