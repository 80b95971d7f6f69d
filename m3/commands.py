"""What operators do at the machine about people, programs and threads, told in lines for a terminal."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Literal, TypeVar

from m3.access.accounts import MOST, Accounts
from m3.access.invites import Invites
from m3.access.memberships import Memberships
from m3.access.principals import Principal
from m3.access.rules import InvitedRole, Role, Visibility
from m3.store.directory import KeyOfProgram, Member

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Desk:
    """Where it is done, and on whose behalf."""

    by: Principal
    accounts: Accounts
    memberships: Memberships
    invites: Invites


#: Does something at a desk; returns what to tell whoever asked for it.
Command = Callable[[Desk], Awaitable[str]]


async def add_user(desk: Desk, name: str, *, operator: bool) -> str:
    password = await desk.accounts.add_user(desk.by, name, operator=operator)
    return f"{name} signs in first with this one-time password, which is shown once: {password}"


async def reset_user(desk: Desk, name: str) -> str:
    password = await desk.accounts.reset_user(desk.by, name)
    return f"{name} is signed out, and signs in with this one-time password, which is shown once: {password}"


async def revoke_user(desk: Desk, name: str) -> str:
    await desk.accounts.revoke_user(desk.by, name)
    return f"{name} is signed out within 15 s, and may not come in again."


async def change_user(desk: Desk, name: str, *, operator: bool) -> str:
    user = await desk.accounts.change_user(desk.by, name, operator=operator)
    return f"{user.name} is {'an operator' if operator else 'no operator any more'} within 15 s."


async def list_users(desk: Desk) -> str:
    users = await _all(lambda after: desk.accounts.users(desk.by, after=after), "name")
    return _table(
        ("NAME", "KIND", "SINCE", ""),
        [
            (
                user.name,
                "operator" if user.operator else "person",
                f"{user.created_at:%Y-%m-%d}",
                "has a one-time password" if user.one_time else "",
            )
            for user in users
        ],
    )


async def add_key(desk: Desk, name: str, threads: Sequence[str], *, reads: bool) -> str:
    key = await desk.accounts.add_key(desk.by, name, threads, reads=reads)
    return f"{name} has this key, which is shown once: {key}"


async def revoke_key(desk: Desk, named: str) -> str:
    prefix, name = await desk.accounts.revoke_key(desk.by, named)
    return f"The key {prefix} of {name} is good for nothing within 15 s."


async def list_keys(desk: Desk) -> str:
    return _table(
        ("PREFIX", "NAME", "SINCE", "FEEDS", "READS"),
        [
            (
                key.prefix,
                key.name,
                f"{key.created_at:%Y-%m-%d}",
                ", ".join(thread.thread_id for thread in key.threads if thread.feeds),
                ", ".join(thread.thread_id for thread in key.threads if thread.reads),
            )
            for key in await _keys(desk)
        ],
    )


async def add_thread(desk: Desk, thread_id: str, visibility: Visibility, owner: str | None) -> str:
    await desk.memberships.make_thread(desk.by, thread_id, visibility, owner=owner)
    return f"{thread_id} is there, and {visibility}."


async def list_threads(desk: Desk) -> str:
    threads = await _all(lambda after: desk.memberships.threads(desk.by, after=after), "thread_id")
    return _table(
        ("THREAD", "VISIBILITY", "MEMBERS", "OWNERS"),
        [(thread.thread_id, thread.visibility, str(thread.members), ", ".join(thread.owners)) for thread in threads],
    )


async def show_thread(desk: Desk, thread_id: str, visibility: Visibility) -> str:
    await desk.memberships.change_visibility(desk.by, thread_id, visibility)
    return f"{thread_id} is {visibility}."


async def change_member(desk: Desk, thread_id: str, name: str, role: Role | Literal["none"], *, program: bool) -> str:
    kind: Literal["person", "program"] = "program" if program or role == "feeder" else "person"
    if role == "none":
        await desk.memberships.dismiss(desk.by, thread_id, name, kind)
        return f"{name} is no member of {thread_id} any more."
    await desk.memberships.admit(desk.by, thread_id, Member(name, kind, role))
    return f"{name} is {role} of {thread_id}."


async def invite(desk: Desk, thread_id: str, role: InvitedRole, *, days: int) -> str:
    made = await desk.invites.make(desk.by, thread_id, role, timedelta(days=days))
    until = f"{made.expires_at:%Y-%m-%d %H:%M} UTC"
    return f"Who signs in joins {thread_id} as {role} until {until} by this invite, which is shown once: {made.invite}"


async def _keys(desk: Desk) -> list[KeyOfProgram]:
    return await _all(lambda after: desk.accounts.keys(desk.by, after=after), "prefix")


async def _all(page: Callable[[str], Awaitable[list[Row]]], order: str) -> list[Row]:
    """Of all pages, each of which begins after the last of the one before."""
    rows = found = await page("")
    while len(found) == MOST:
        found = await page(attrgetter(order)(found[-1]))
        rows = [*rows, *found]
    return rows


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns, each as wide as what it has."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)
