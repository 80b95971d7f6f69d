"""Threads, who finds them, and who is what in them."""

import re
from typing import Protocol
from uuid import UUID

from uuid_utils.compat import uuid7

from m3.access.names import proper_name
from m3.access.principals import Principal
from m3.access.rules import ROLES, Action, MemberKind, Visibility
from m3.errors import Forbidden, LastOwner, NoMember, Taken, UnknownName, Unsuitable
from m3.events import THREAD_ID_PATTERN
from m3.store.changes import Change
from m3.store.directory import ChangeBy, Directory, Member, OwnThread, Thread
from m3.tenants import key_of

#: Most threads that one list has.
MOST = 500


class Forget(Protocol):
    def __call__(self, principal: UUID | None = None, key: str | None = None) -> None: ...


def _nothing(principal: UUID | None = None, key: str | None = None) -> None:
    pass


class Memberships:
    """``by`` is who does it, and whose tenant it is done in. That they may look is for the door to check; that they may
    change something ``change`` sees with the change itself, and raises NotSignedIn, Forbidden and UnknownThread.
    ``forget`` is told whose standing was changed, or in which thread."""

    def __init__(self, directory: Directory, *, change: ChangeBy | None = None, forget: Forget = _nothing) -> None:
        self._directory = directory
        self._change = change or directory.change_by
        self._forget = forget

    async def make_thread(
        self,
        by: Principal,
        thread_id: str | None = None,
        visibility: Visibility = "private",
        *,
        owner: str | None = None,
        address: str = "",
    ) -> OwnThread:
        """A thread of which ``by`` is the owner, and so is whoever is named. None but operators may say its id: a
        refusal tells that it is taken.

        Raises Forbidden, Unsuitable, Taken, UnknownName.
        """
        action = Action.OPERATE
        if thread_id is None:
            action, thread_id = Action.MAKE_THREAD, f"t-{uuid7().hex}"
        elif by.kind != "operator":
            raise Forbidden("Threads are given their ids.")
        elif re.fullmatch(THREAD_ID_PATTERN, thread_id) is None:
            raise Unsuitable("A thread's id is up to 128 letters, digits and any of _:@-")
        key = key_of(by.tenant, thread_id)
        async with self._change(by, action, address=address) as change:
            if not await change.add_thread(key, visibility):
                raise Taken("There is a thread of that id.")
            if by.id is not None:
                await change.add_member(by.id, [key], "owner")
            if owner is not None:
                person = await change.principal(proper_name(owner), "person")
                if person is None:
                    raise UnknownName("There is nobody of that name.")
                await change.add_member(person, [key], "owner")
            await change.note("thread_made", thread_id, visibility if owner is None else f"{visibility}, of {owner}")
        return OwnThread(thread_id, visibility, None if by.id is None else "owner", 0, None)

    async def threads_of(self, principal: Principal, *, after: str = "", limit: int = MOST) -> list[OwnThread]:
        """The threads that they find, by id, those after that one."""
        assert principal.id is not None
        return await self._directory.threads_of(
            principal.tenant,
            principal.id,
            key_of(principal.tenant, after) if after else "",
            limit,
            and_open_ones=principal.kind != "program",
        )

    async def threads(self, by: Principal, *, after: str = "", limit: int = MOST) -> list[Thread]:
        """All of the tenant's, by id, those after that one."""
        return await self._directory.threads(by.tenant, by.id, key_of(by.tenant, after) if after else "", limit)

    async def members(self, key: str) -> list[Member]:
        return await self._directory.members(key)

    async def admit(
        self, by: Principal, thread_id: str, member: Member, *, if_member: bool = False, address: str = ""
    ) -> Member:
        """Make somebody a member, or change what they are; with ``if_member`` only the latter. Keys are operators', who
        alone let programs in.

        Raises Unsuitable, UnknownName, NoMember, LastOwner.
        """
        name, kind, role, key = proper_name(member.name), member.kind, member.role, key_of(by.tenant, thread_id)
        if role not in ROLES[kind]:
            hint = ' What is a feeder is a program: say "kind": "program" too.' if role == "feeder" else ""
            raise Unsuitable(f"A {kind} can be {', '.join(sorted(ROLES[kind]))} in a thread.{hint}")
        action = Action.ADMIT_PROGRAM if kind == "program" else Action.ADMIT
        async with self._change(by, action, key, address=address) as change:
            principal = await self._named(change, name, kind)
            if if_member and (await change.stance(principal, None, key)).role is None:
                raise NoMember
            if role != "owner":
                await self._keep_an_owner(change, key, principal)
            if await change.add_member(principal, [key], role):
                await change.note("member_added", thread_id, f"{kind} {name} as {role}")
        self._forget(principal)
        return Member(name, kind, role)

    async def dismiss(
        self, by: Principal, thread_id: str, name: str, kind: MemberKind = "person", *, address: str = ""
    ) -> None:
        """Of oneself it is leaving. Raises UnknownName where there is no such member; LastOwner."""
        name, key = proper_name(name), key_of(by.tenant, thread_id)
        action = Action.LEAVE if (name, kind) == (by.name, "person") else Action.ADMIT
        async with self._change(by, action, key, address=address) as change:
            principal = await self._named(change, name, kind)
            await self._keep_an_owner(change, key, principal)
            if not await change.remove_member(principal, key):
                raise UnknownName("There is no member of that name.")
            await change.note("member_removed", thread_id, f"{kind} {name}")
        self._forget(principal)

    async def change_visibility(
        self, by: Principal, thread_id: str, visibility: Visibility, *, address: str = ""
    ) -> None:
        key = key_of(by.tenant, thread_id)
        async with self._change(by, Action.ADMIT, key, address=address) as change:
            if await change.change_visibility(key, visibility):
                await change.note("visibility_changed", thread_id, visibility)
        self._forget(key=key)

    async def _named(self, change: Change, name: str, kind: MemberKind) -> UUID:
        principal = await change.principal(name, kind)
        if principal is None:
            raise UnknownName("There is nobody of that name.")
        return principal

    async def _keep_an_owner(self, change: Change, key: str, principal: UUID) -> None:
        if await change.owners(key) == {principal}:
            raise LastOwner
