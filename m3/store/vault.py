"""What is sealed in the table, as it is there, for whoever sees to it: threads' keys, messages, summaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from m3.sealing import WrappedKey, unpacked
from m3.store.postgres import Store
from m3.store.sql import array, columns


@dataclass(frozen=True, slots=True)
class Kept:
    """A message's row. ``searchable``: it has what it is found by."""

    id: int
    message_id: UUID
    thread_id: str
    seq: int
    content: str
    sealed: bool
    searchable: bool


@dataclass(frozen=True, slots=True)
class KeptSummary:
    """Of the thread, up to the number ``until``."""

    thread_id: str
    until: int
    text: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a message's row becomes, if its content still is what it ``was``."""

    was: Kept
    content: str
    terms: bytes


class Vault:
    """Every method raises StoreUnavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def samples(self, at_most: int) -> dict[str, list[tuple[str, WrappedKey]]]:
        """Some threads with their keys for each master key that keys are wrapped with."""
        samples: dict[str, list[tuple[str, WrappedKey]]] = {}
        for row in await self._store.ask("sample_keys", at_most):
            samples.setdefault(row["master"], []).append((row["thread_id"], _key(row)))
        return samples

    async def keys(self, limit: int, *, after: str = "", but_of: str | None = None) -> list[tuple[str, WrappedKey]]:
        """The keys of the threads that follow, in order; without those wrapped with one master key."""
        rows = await self._store.ask("keys_after", after, but_of, limit)
        return [(row["thread_id"], _key(row)) for row in rows]

    async def change_keys(self, changes: Sequence[tuple[str, WrappedKey, WrappedKey]]) -> None:
        """Of each thread the key that it had and that it is to have. One that has another by now keeps it."""
        rows = [(thread_id, was.wrapped, new.master, new.wrapped) for thread_id, was, new in changes]
        await self._store.ask("change_keys", *columns(rows))

    async def messages(self, limit: int, *, after: int = 0) -> list[Kept]:
        """The messages that follow the id, in its order."""
        return [Kept(**row) for row in await self._store.ask("kept_messages", after, limit)]

    async def seal_messages(self, changes: Sequence[Sealed]) -> None:
        """Put sealed contents in the place of plain ones."""
        async with self._store.transaction() as ask:
            await ask("lock_threads", list({change.was.thread_id for change in changes}))  # as recorders do, and first
            rows = [(one.was.id, one.was.content, one.content, array(unpacked(one.terms))) for one in changes]
            await ask("seal_messages", *columns(rows))

    async def add_terms(self, found_by: Sequence[tuple[Kept, bytes]]) -> None:
        """Have messages found by these that are not found by any."""
        rows = [(kept.thread_id, kept.seq, array(unpacked(terms))) for kept, terms in found_by]
        await self._store.ask("add_terms", *columns(rows))

    async def summaries(self, limit: int, *, after: str = "") -> list[KeptSummary]:
        """The summaries of the threads that follow, in order."""
        return [KeptSummary(**row) for row in await self._store.ask("kept_summaries", after, limit)]

    async def seal_summary(self, was: KeptSummary, text: str) -> None:
        """Unless the thread has another by now."""
        await self._store.ask("seal_summary", was.thread_id, was.until, text)


def _key(row: Any) -> WrappedKey:
    return WrappedKey(row["master"], row["wrapped"])
