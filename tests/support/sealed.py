"""A room that seals what is said, and looks at all that it keeps and publishes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic import SecretStr

from m3.bus import Bus
from m3.sealing import Masters
from m3.settings import Settings
from m3.store import Store, open_store
from m3.topology import Queue, Route

OLD, NEW, OTHER = (f"{name}:{digit * 64}" for name, digit in (("old", "1"), ("new", "2"), ("old", "3")))


def settings(*keys: str) -> Settings:
    return Settings(content_keys=SecretStr(",".join(keys)) if keys else None)


@asynccontextmanager
async def store_with(database_url: str, *keys: str) -> AsyncIterator[Store]:
    """A process's store, with these master keys."""
    async with open_store(database_url, pool_size=5, masters=Masters.of(settings(*keys))) as store:
        yield store


class Tap(Bus):
    """A bus of which every body that is published is kept."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.bodies: list[bytes] = []

    @property
    def connected(self) -> bool:
        return self._bus.connected

    async def publish(self, route: Route, body: bytes) -> None:
        self.bodies.append(body)
        await self._bus.publish(route, body)

    def consume(self, queue: Queue, *, prefetch: int) -> Any:
        return self._bus.consume(queue, prefetch=prefetch)

    def subscribe(self, name: str) -> Any:
        return self._bus.subscribe(name)


async def dumped(database_url: str) -> str:
    """Every row of every table, as text."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
        rows = [await connection.fetch(f'SELECT t::text AS row FROM "{table["relname"]}" AS t') for table in tables]
        return "\n".join(row["row"] for some in rows for row in some)
    finally:
        await connection.close()


async def execute(database_url: str, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()
