"""What services see of a database that falls silent with all its connections open."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from m3.bus import open_bus
from m3.bus.memory import MemoryBus
from m3.errors import StoreUnavailable
from m3.events import MessageAccepted, encode
from m3.store import Store, migrate, open_store
from m3.topology import accepted
from services.recorder import recorder
from tests.support.client import client
from tests.support.database import Database, private_database
from tests.support.gateway import serving_gateway
from tests.support.until import DEADLINE, until

#: Far less than the seconds that a command to the database may take.
SOON = 4.0


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with private_database() as database:
        await migrate(database.url)
        yield database


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with open_store(database.url, pool_size=2) as store:
        yield store


async def test_whoever_gives_up_a_silent_database_is_free_at_once_and_so_are_its_connections(
    database: Database, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.gather(*(store.ping() for _ in range(2)))
    database.freeze(frozen=True)
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.gather(*(store.ping() for _ in range(2)))
    assert time.monotonic() - begun < SOON
    database.freeze(frozen=False)
    async with asyncio.timeout(DEADLINE):
        await store.ping()
    assert not caplog.records


async def test_a_post_is_answered_in_its_time_while_the_database_is_silent(database: Database, store: Store) -> None:
    async with (
        open_bus("memory://") as bus,
        recorder(bus, store, grace=1),
        serving_gateway(bus, store, record_timeout=0.5) as address,
        client(address) as http,
    ):
        await store.ping()
        database.freeze(frozen=True)
        begun = time.monotonic()
        answers = await asyncio.gather(*(http.post("/api/chat", json={"message": "a"}) for _ in range(5)))
        assert time.monotonic() - begun < SOON
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "not_recorded")}
        database.freeze(frozen=False)
        await until(lambda: _head_is(store, 5))


async def test_a_recorder_stops_in_time_while_the_database_is_silent(database: Database, store: Store) -> None:
    said = MessageAccepted(thread_id="default", source="user", content="a", interface="http_api", origin="nobody")
    async with MemoryBus.open() as bus:
        await store.ping()
        database.freeze(frozen=True)
        begun = time.monotonic()
        async with recorder(bus, store, grace=0.5):
            await bus.publish(accepted(), encode([said]))
            await until(lambda: not bus._mailboxes["recorder"]._items)  # the recorder has taken it
        assert time.monotonic() - begun < SOON
        database.freeze(frozen=False)
        async with recorder(bus, store, grace=1):
            await until(lambda: _head_is(store, 1))


async def _head_is(store: Store, number: int) -> bool:
    try:
        return await store.head("default") == number
    except StoreUnavailable:  # of the connections from before
        return False
