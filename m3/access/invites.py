"""Invites: whoever shows one becomes a member of its thread, without being named."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from m3.access.credentials import digest, new_invite, prefix_of_invite
from m3.access.principals import Principal
from m3.access.rules import Action, InvitedRole, Role, better_role
from m3.errors import NotInvited, TooManyInvites, UnknownName
from m3.store.changes import Change
from m3.store.directory import ChangeBy, Directory
from m3.store.invites import Invite
from m3.tenants import key_of, tenant_of, thread_id_of

#: How long an invite may be good, and is unless somebody says otherwise, in days.
LONGEST, USUAL = 30, 7
#: Most invites to a thread that are good at a time.
MOST = 100


@dataclass(frozen=True, slots=True)
class NewInvite:
    """An invite, which is shown this once."""

    prefix: str
    invite: str = field(repr=False)
    thread_id: str
    role: InvitedRole
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invite that there is, good or not: to the thread of which key, and who made it. Whoever looks whether it is
    good has locked its maker's account, and is in a change of its tenant."""

    prefix: str
    key: str
    made_by: UUID | None

    async def role(self, change: Change) -> InvitedRole:
        """What it makes of whoever accepts it in this change. Raises NotInvited where it is not good (any more)."""
        there = await change.lock_thread(self.key)
        good = {one.prefix: one.role for one in await change.invites(self.key)}
        if not there or self.prefix not in good:
            raise NotInvited
        return good[self.prefix]

    async def admit(self, change: Change, account: UUID, name: str, role: Role) -> None:
        if await change.add_member(account, [self.key], role):
            by_it = f"person {name} as {role}, by the invite {self.prefix}"
            await change.note("member_added", thread_id_of(self.key), by_it)


@dataclass(frozen=True, slots=True)
class Joined:
    """A thread, and what somebody is in it now."""

    thread_id: str
    role: Role


class Invites:
    """``change`` and ``forget`` as for ``Memberships``. ``presented``: a block that looks at what somebody shows, as
    ``Access.presented``."""

    def __init__(
        self,
        directory: Directory,
        *,
        change: ChangeBy | None = None,
        forget: Callable[[UUID], None] = lambda _: None,
        presented: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._directory = directory
        self._change = change or directory.change_by
        self._forget = forget
        self._presented = presented

    async def invites(self, key: str) -> list[Invite]:
        """Those to the thread that are good, oldest first."""
        return await self._directory.invites(key)

    async def make(
        self, by: Principal, thread_id: str, role: InvitedRole, lasts: timedelta, *, address: str = ""
    ) -> NewInvite:
        """Raises TooManyInvites."""
        prefix, invite = new_invite()
        key = key_of(by.tenant, thread_id)
        async with self._change(by, Action.ADMIT, key, address=address) as change:
            if len(await change.invites(key)) >= MOST:
                raise TooManyInvites(MOST)
            expires_at = await change.add_invite(prefix, digest(invite), key, role, by.id, lasts)
            await change.note("invite_made", thread_id, f"{prefix}, as {role}")
        return NewInvite(prefix, invite, thread_id, role, expires_at)

    async def take_back(self, by: Principal, thread_id: str, prefix: str, *, address: str = "") -> None:
        """Whoever accepted it stays. Raises UnknownName."""
        key = key_of(by.tenant, thread_id)
        async with self._change(by, Action.ADMIT, key, address=address) as change:
            if not await change.revoke_invite(key, prefix):
                raise UnknownName("There is no invite of that prefix.")
            await change.note("invite_taken_back", thread_id, prefix)

    async def accept(self, by: Principal, invite: str, *, address: str = "") -> Joined:
        """They are a member of its thread from then on, or what they were there, where that is better.

        Raises NotInvited, and TooOften where too many that came from the same address were not good.
        """
        assert by.id is not None, "somebody with an account"
        assert by.name is not None
        async with self._presented():
            found = await self.find(invite)
            async with self._change(by, Action.JOIN, of=found.made_by if found else None, address=address) as change:
                if found is None or tenant_of(found.key) != by.tenant:
                    raise NotInvited
                offered = await found.role(change)
                stance = await change.stance(by.id, by.sign_in, found.key)
                role = better_role(stance.role, offered)
                await found.admit(change, by.id, by.name, role)
        self._forget(by.id)
        return Joined(thread_id_of(found.key), role)

    async def find(self, invite: str) -> Invitation | None:
        prefix = prefix_of_invite(invite)
        found = await self._directory.invite(prefix, digest(invite)) if prefix else None
        return Invitation(prefix, *found) if prefix and found else None
