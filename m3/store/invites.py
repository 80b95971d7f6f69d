"""Invites to threads, in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime

from m3.access.rules import Action, InvitedRole
from m3.store.postgres import Ask
from m3.store.stances import stances


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite as others see it; ``made_by``: somebody's name, or None where it was made at the machine."""

    prefix: str
    role: InvitedRole
    made_by: str | None
    created_at: datetime
    expires_at: datetime


async def good_invites(ask: Ask, key: str) -> list[Invite]:
    """Those to the thread that are good, oldest first: that were not taken back, whose time is not over, and whose
    maker may let others in there still."""
    rows = await ask("invites", key)
    makers = await stances(ask, [(row["made_by"], None, key) for row in rows])
    return [
        Invite(row["prefix"], row["role"], row["name"], row["created_at"], row["expires_at"])
        for row, maker in zip(rows, makers, strict=True)
        if row["made_by"] is None or maker.allows(Action.ADMIT)
    ]
