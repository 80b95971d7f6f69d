"""What was done or refused, and by whom, which the room writes down and never changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from m3.store.postgres import END, Ask, Store

#: Longest part of an entry, in characters. What is longer is cut: somebody may have said anything to be their name.
MAX_PART = 256

Outcome = Literal["done", "refused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """``actor``: who, by their name, as far as is known; ``action``: what, such as ``login`` or ``member_added``;
    ``target``: on what; ``address``: from where. Names and addresses are all that it may tell of people, and no part of
    it is ever a secret."""

    tenant: str
    actor: str
    action: str
    target: str = ""
    outcome: Outcome = "done"
    address: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it stands in the audit. Later ones have higher numbers."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    outcome: Outcome
    address: str
    detail: str


async def write(ask: Ask, entries: Sequence[Entry], ages: Sequence[float] = ()) -> None:
    """Add to the audit, in the transaction of what it tells of where ``ask`` is one's. ``ages``: how long ago each was,
    in seconds; where there are none it is now."""
    await ask(
        "audit",
        [entry.tenant for entry in entries],
        [_part(entry.actor) for entry in entries],
        [entry.action for entry in entries],
        [_part(entry.target) for entry in entries],
        [entry.outcome for entry in entries],
        [_part(entry.address) for entry in entries],
        [_part(entry.detail) for entry in entries],
        [timedelta(seconds=age) for age in ages] or [timedelta()] * len(entries),
    )


async def page(store: Store, tenant: str, limit: int, *, before: int = END) -> list[Line]:
    """The newest of the tenant's audit, or the newest of those before a number, newest first."""
    return [Line(**row) for row in await store.ask("audit_page", tenant, before, limit)]


def _part(text: str) -> str:
    """What the database takes, whatever was said."""
    return text[:MAX_PART].encode(errors="replace").decode().replace("\x00", "?")
