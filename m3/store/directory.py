"""Accounts, keys, sign-ins, tickets, and how they stand to threads, in PostgreSQL."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from m3.access.principals import Principal
from m3.access.rules import Action, Role, Visibility, may
from m3.errors import UnknownThread
from m3.store.changes import Change, User
from m3.store.invites import Invite, good_invites
from m3.store.postgres import Store, speaking_for
from m3.store.stances import Stance, stances
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
class ThreadOfKey:
    """A thread that a producer key is for, by its id, and what it may there."""

    thread_id: str
    feeds: bool
    reads: bool

    @classmethod
    def of(cls, key: str, role: Role) -> "ThreadOfKey":
        return cls(thread_id_of(key), feeds=may("program", Action.FEED, role), reads=may("program", Action.READ, role))


@dataclass(frozen=True, slots=True)
class KeyOfProgram:
    """A producer key as others see it."""

    prefix: str
    name: str
    created_at: datetime
    threads: list[ThreadOfKey]


@dataclass(frozen=True, slots=True)
class OwnThread:
    """A thread that somebody finds, by its id; ``role`` is None where it is only open. ``head``: the last number given
    out in it; ``last_at``: when its newest message was said. Who may not read there is told neither."""

    thread_id: str
    visibility: Visibility
    role: Role | None
    head: int | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Thread(OwnThread):
    """A thread as operators see it, with the names of its owners and how many members it has; ``role``: their own."""

    owners: list[str]
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    kind: Literal["person", "program"]
    role: Role


class ChangeBy(Protocol):
    """Begins a change, as ``Directory.change_by`` does."""

    def __call__(
        self, by: Principal, action: Action, key: str | None = None, *, of: str | UUID | None = None, address: str = ""
    ) -> AbstractAsyncContextManager[Change]: ...


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
        return await stances(self._store.ask, asked)

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
                [ThreadOfKey.of(key, role) for key, role in zip(row["threads"], row["roles"], strict=True)],
            )
            for row in rows
        ]

    async def threads_of(
        self, tenant: str, principal_id: UUID, after: str, limit: int, *, and_open_ones: bool
    ) -> list[OwnThread]:
        """Those whose keys come after that one."""
        rows = await self._store.ask("threads_of", tenant, principal_id, and_open_ones, after, limit)
        return [_own(OwnThread(**{**row, "thread_id": thread_id_of(row["thread_id"])})) for row in rows]

    async def threads(self, tenant: str, principal_id: UUID | None, after: str, limit: int) -> list[Thread]:
        """Those whose keys come after that one."""
        rows = await self._store.ask("threads_of_tenant", tenant, after, limit, principal_id)
        return [Thread(**{**row, "thread_id": thread_id_of(row["thread_id"])}) for row in rows]

    async def members(self, key: str) -> list[Member]:
        return [Member(**row) for row in await self._store.ask("members", key)]

    async def invites(self, key: str) -> list[Invite]:
        """Those to the thread that are good."""
        return await good_invites(self._store.ask, key)

    async def invite(self, prefix: str, secret_hash: bytes) -> tuple[str, UUID | None] | None:
        """To the thread of which key it is, and who made it, whether or not it is good."""
        rows = await self._store.ask("invite", prefix, secret_hash)
        return (rows[0]["thread_id"], rows[0]["made_by"]) if rows else None

    @asynccontextmanager
    async def change(self, tenant: str, actor: str, address: str = "") -> AsyncIterator[Change]:
        """A block whose steps are carried out together, and not at all where it raises."""
        async with self._store.transaction() as ask:
            yield Change(ask, tenant, actor, address)

    @asynccontextmanager
    async def change_by(
        self, by: Principal, action: Action, key: str | None = None, *, of: str | UUID | None = None, address: str = ""
    ) -> AsyncIterator[Change]:
        """A change by somebody who may do this, in the thread of that key where it is about one. That is seen in the
        same transaction, past whatever is remembered, and nobody else can change it until the end. Who has no account
        is at the machine, and may. ``of``: the name or the id of whose account is changed, or counts for the change.

        All take their locks in one order, so that two who change each other wait: accounts by their ids, then the
        thread. Only then is looked, for who waited may be nobody by now.
        Raises NotSignedIn, UnknownThread, Forbidden.
        """
        async with self.change(by.tenant, by.name or "", address) as change:
            await change.lock_accounts(by.id, of)
            there = key is None or await change.lock_thread(key)
            if by.id is not None:
                stance = await change.stance(by.id, by.sign_in, key or "")
                if (refusal := stance.refusal(action)) is not None:
                    raise refusal
            if not there:
                raise UnknownThread
            yield change


def _own(thread: OwnThread) -> OwnThread:
    """When something came into a thread tells a program that only feeds it what became of what it said (103)."""
    return replace(thread, head=None, last_at=None) if thread.role == "feeder" else thread
