"""What changes who may do what, each change with the note of it that is kept for good."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from m3.access.rules import InvitedRole, Role, Visibility
from m3.store.audit import Entry, Outcome, write
from m3.store.invites import Invite, good_invites
from m3.store.postgres import Ask
from m3.store.stances import Stance, stances

#: Most sign-ins that an account has at a time.
SIGN_INS = 100


@dataclass(frozen=True, slots=True)
class SignInRow:
    """Whose a sign-in is, and its refresh tokens: that of now, and the one before, which may be shown once more where
    the sign-in was ``just_renewed``."""

    account_id: UUID
    refresh_hash: bytes
    previous_hash: bytes | None
    just_renewed: bool


@dataclass(frozen=True, slots=True)
class User:
    """An account as others see it; ``one_time``: its password is for one sign-in, which brings another."""

    name: str
    operator: bool
    one_time: bool
    created_at: datetime


class Change:
    """Steps that are carried out together or not at all. ``actor`` and ``address``: who does it, and from where, as the
    audit has it."""

    def __init__(self, ask: Ask, tenant: str, actor: str, address: str) -> None:
        self._ask = ask
        self._tenant = tenant
        self._actor = actor
        self._address = address

    async def note(self, action: str, target: str = "", detail: str = "", *, outcome: Outcome = "done") -> None:
        await write(self._ask, [Entry(self._tenant, self._actor, action, target, outcome, self._address, detail)])

    async def lock_accounts(self, *whose: UUID | str | None) -> None:
        """Those of these ids and names: nobody else changes them before the end."""
        ids = [one for one in whose if isinstance(one, UUID)]
        names = [one for one in whose if isinstance(one, str)]
        await self._ask("lock_accounts", ids, self._tenant, names)

    async def stance(self, principal: UUID, sign_in: UUID | None, key: str) -> Stance:
        (stance,) = await stances(self._ask, [(principal, sign_in, key)])
        return stance

    async def add_account(self, name: str, password_hash: str, *, operator: bool) -> bool:
        """Whether the name was free."""
        await self._hold_name(name)
        return bool(await self._ask("add_account", uuid4(), self._tenant, name, operator, password_hash))

    async def add_invited(self, name: str, password_hash: str) -> UUID | None:
        """The account; None where the name is not free, or was not always."""
        await self._hold_name(name)
        rows = await self._ask("add_invited", uuid4(), self._tenant, name, password_hash)
        return rows[0]["account_id"] if rows else None

    async def add_first_operator(self, name: str, password_hash: str) -> bool:
        """Whether there was no account before."""
        return bool(await self._ask("add_first_operator", uuid4(), self._tenant, name, password_hash))

    async def add_outsider(self, name: str, subject: str) -> bool:
        """Whether the name was free, and nobody of that subject there."""
        await self._hold_name(name)
        return bool(await self._ask("add_outsider", uuid4(), self._tenant, name, subject))

    async def revoke_account(self, name: str) -> UUID | None:
        """The account, whose sign-ins end; None where there is none of that name."""
        rows = await self._ask("revoke_account", self._tenant, name)
        if not rows:
            return None
        account: UUID = rows[0]["account_id"]
        await self.end_sign_ins(account)
        return account

    async def hold_operators(self) -> None:
        """Nobody else changes who is one in the tenant before the end."""
        await self._ask("hold_operators", self._tenant)

    async def change_operator(self, name: str, *, operator: bool) -> tuple[UUID, User] | None:
        """The account; None where there is none of that name."""
        rows = await self._ask("change_operator", self._tenant, name, operator)
        if not rows:
            return None
        account, *user = rows[0].values()
        return account, User(*user)

    async def any_operator(self) -> bool:
        """Whether the tenant has one."""
        return bool(await self._ask("any_operator_of_tenant", self._tenant))

    async def change_password(self, account: UUID, old_hash: str | None, new_hash: str, *, one_time: bool) -> bool:
        """Whether the account had the old one until now."""
        return bool(await self._ask("change_password", account, old_hash, new_hash, one_time))

    async def add_sign_in(
        self, sign_in: UUID, account: UUID, password_hash: str, refresh_hash: bytes, ttl: float
    ) -> bool:
        """Whether the account has that password."""
        lasts = timedelta(seconds=ttl)
        return bool(await self._ask("add_sign_in", sign_in, account, password_hash, refresh_hash, lasts, SIGN_INS))

    async def lock_sign_in(self, sign_in: UUID, leeway: float) -> SignInRow | None:
        rows = await self._ask("lock_sign_in", sign_in, timedelta(seconds=leeway))
        return SignInRow(**rows[0]) if rows else None

    async def renew_sign_in(self, sign_in: UUID, refresh_hash: bytes, ttl: float) -> None:
        await self._ask("renew_sign_in", sign_in, refresh_hash, timedelta(seconds=ttl))

    async def end_sign_in(self, sign_in: UUID) -> None:
        await self._ask("end_sign_in", sign_in)

    async def end_sign_ins(self, account: UUID, *, but: UUID | None = None) -> None:
        await self._ask("end_sign_ins", account, but)

    async def add_key(self, name: str, prefix: str, secret_hash: bytes) -> UUID | None:
        """The new key's id; None where the name is not free."""
        await self._hold_name(name)
        rows = await self._ask("add_key", uuid4(), self._tenant, name, prefix, secret_hash)
        return rows[0]["key_id"] if rows else None

    async def revoke_key(self, named: str) -> tuple[UUID, str, str] | None:
        """The id, the prefix and the name of the key with that prefix, or that name."""
        rows = await self._ask("revoke_key", self._tenant, named)
        return (rows[0]["key_id"], rows[0]["prefix"], rows[0]["name"]) if rows else None

    async def add_thread(self, key: str, visibility: Visibility) -> bool:
        """Whether it was not there."""
        return bool(await self._ask("add_thread", key, visibility))

    async def lock_thread(self, key: str) -> Visibility | None:
        """Its visibility; None where there is no such thread."""
        rows = await self._ask("lock_thread", key)
        return rows[0]["visibility"] if rows else None

    async def change_visibility(self, key: str, visibility: Visibility) -> bool:
        """Whether it was another."""
        return bool(await self._ask("change_visibility", key, visibility))

    async def principal(self, name: str, kind: Literal["person", "program"]) -> UUID | None:
        rows = await self._ask("principal_of_name", self._tenant, name, kind == "program")
        return rows[0]["principal_id"] if rows else None

    async def owners(self, key: str) -> set[UUID]:
        return {row["principal_id"] for row in await self._ask("owners", key)}

    async def add_member(self, principal: UUID, keys: Sequence[str], role: Role) -> int:
        """In how many of the threads: those that there are, and where it was not that already."""
        return len(await self._ask("add_members", principal, keys, role))

    async def remove_member(self, principal: UUID, key: str) -> bool:
        """Whether it was one."""
        return bool(await self._ask("remove_member", key, principal))

    async def invites(self, key: str) -> list[Invite]:
        """Those to the thread that are good."""
        return await good_invites(self._ask, key)

    async def add_invite(  # noqa: PLR0913, PLR0917  # what there is to know of one
        self, prefix: str, secret_hash: bytes, key: str, role: InvitedRole, made_by: UUID | None, lasts: timedelta
    ) -> datetime:
        """When it expires."""
        (row,) = await self._ask("add_invite", prefix, secret_hash, key, role, made_by, lasts)
        expires_at: datetime = row["expires_at"]
        return expires_at

    async def revoke_invite(self, key: str, prefix: str) -> bool:
        """Whether it was there."""
        return bool(await self._ask("revoke_invite", key, prefix))

    async def _hold_name(self, name: str) -> None:
        """Nobody else gives it to a person or a program before the end."""
        await self._ask("hold_name", self._tenant, name)
