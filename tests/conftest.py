"""Real servers for the tests, started once; each test has its own database and an empty broker."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from m3.bus import Bus, open_bus
from m3.settings import Settings
from m3.store import Store, migrate, open_store
from m3.store.embedded import embedded_postgres
from m3.topology import EXCHANGES, QUEUES
from tests.support.broker import NoBrokerError, running_broker
from tests.support.packages import Say
from tests.support.processes import Process, processes, reachable
from tests.support.until import until

#: Where Linux keeps files in memory, and the bytes that must be free there.
MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3

if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    # Most of what the tests write is databases and brokers' logs, which would wait for the disk again and again.
    tempfile.tempdir = str(MEMORY)

_numbers = count(1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in (*Settings.model_fields, "openai_api_key", "openai_base_url"):
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="session")
def hang_up_is_heard() -> None:
    """Under nohup it is ignored, and whatever we start would ignore it too. What is handled instead is not handed down."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server with a migrated database to copy."""
    with asyncio.Runner() as runner:
        server = embedded_postgres(tmp_path_factory.mktemp("postgres", numbered=True) / "data")
        url = runner.run(server.__aenter__())
        try:
            runner.run(_execute(url, "CREATE DATABASE migrated"))
            runner.run(migrate(_database(url, "migrated")))
            yield url
        finally:
            runner.run(server.__aexit__(None, None, None))


@pytest.fixture
async def empty_database_url(postgres: str) -> AsyncIterator[str]:
    """A new database without tables."""
    async with _new_database(postgres, copy_of="template1") as url:
        yield url


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """A new database with the room's tables."""
    async with _new_database(postgres, copy_of="migrated") as url:
        yield url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with open_store(database_url, pool_size=5) as store:
        yield store


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Tells whoever runs the tests what pytest would keep to itself."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(what: str) -> None:
        with capturing.global_and_fixture_disabled():
            print(f"\n[for the tests] {what}")

    return say


@pytest.fixture(scope="session")
def broker(say: Say) -> Iterator[str]:
    """The URL of a real RabbitMQ."""
    try:
        with running_broker(say) as url:
            yield url
    except NoBrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on a real RabbitMQ: {error}")
        pytest.skip(f"NOT TESTED ON RABBITMQ: {error}")


@pytest.fixture
async def broker_url(broker: str) -> str:
    """The URL of a RabbitMQ without any of the room's queues."""
    async with await aio_pika.connect(broker) as connection, connection.channel() as channel:
        for queue in QUEUES:
            await channel.queue_delete(queue.name)
        for exchange in EXCHANGES:
            await channel.exchange_delete(exchange.name)
    return broker


@pytest.fixture(params=["memory", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest) -> str:
    """Both buses, one after the other."""
    if request.param == "memory":
        return "memory://"
    url: str = request.getfixturevalue("broker_url")
    return url


@pytest.fixture
async def bus(bus_url: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as bus:
        await until(lambda: bus.connected)
        yield bus


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts ``m3`` commands, whose settings are given as keywords."""
    with processes() as started:

        def start(command: str, **settings: str) -> Process:
            process = Process(command, {"DATA_DIR": str(reachable(tmp_path) / "data")} | settings)
            started.append(process)
            return process

        yield start


@asynccontextmanager
async def _new_database(postgres: str, *, copy_of: str) -> AsyncIterator[str]:
    name = f"room_{next(_numbers)}"
    await _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {copy_of} STRATEGY file_copy")
    yield _database(postgres, name)
    await _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
