"""What the measures share: the servers, rooms of real processes, and the file of the figures."""

import asyncio
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import httpx2
import uvloop

from bench import cpu
from m3.store.embedded import embedded_postgres
from m3.topology import EXCHANGES, QUEUES
from tests.support.broker import NoBrokerError, running_broker
from tests.support.client import client
from tests.support.processes import Process, processes

RESULTS = Path(__file__).with_name("results.md")

SERVICES = ("gateway", "pusher", "recorder", "agent")

#: Seconds that any question to the broker may take.
BROKER_TIMEOUT = 10.0
#: Seconds between looks into the table.
LOOK_INTERVAL = 0.2

#: Measures, with a folder for data and the broker's URL, and tells what came of it: tables and their method.
Measure = Callable[[Path, str], Awaitable[str]]


@dataclass
class Room:
    """A running deployment."""

    name: str
    gateway: str
    pusher: str
    database_url: str
    #: The process, or the first of them, of each of its servers.
    servers: dict[str, int]


def run(title: str, measure: Measure) -> None:
    """Measure with a RabbitMQ at hand, and put the report into the file of the figures, in place of the one before."""
    try:
        with running_broker(say) as broker_url, tempfile.TemporaryDirectory(prefix="m3-bench-") as folder:
            report = uvloop.run(_reported(title, measure, Path(folder), broker_url))
    except NoBrokerError as error:
        sys.exit(str(error))
    _write(title, report)
    print(report, end="")


async def _reported(title: str, measure: Measure, folder: Path, broker_url: str) -> str:
    begun, load = datetime.now(UTC), os.getloadavg()[0]
    figures = await measure(folder, broker_url)
    return f"""\
# {title}

Measured by `make bench` on {begun:%Y-%m-%d at %H:%M} UTC.

{await _machine(broker_url, load)}

{figures}
"""


def _write(title: str, report: str) -> None:
    old = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
    sections = {part.partition("\n")[0]: part for part in re.split(r"^(?=# )", old, flags=re.MULTILINE) if part}
    sections[f"# {title}"] = report
    RESULTS.write_text("\n".join(f"{part.strip()}\n" for part in sections.values()), "utf-8")


async def _machine(broker_url: str, load: float) -> str:
    async with asyncio.timeout(BROKER_TIMEOUT), await aio_pika.connect(broker_url) as connection:
        assert connection.transport
        rabbitmq = connection.transport.connection.server_properties["version"]
        assert isinstance(rabbitmq, str)
    return (
        f"{cpu.processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, "
        f"RabbitMQ {rabbitmq}. Load average over the minute before: {load:.1f}."
    )


@asynccontextmanager
async def both(folder: Path, broker_url: str, **settings: str) -> AsyncIterator[list[Room]]:
    """The two deployments, side by side."""
    say("starting the rooms")
    async with AsyncExitStack() as stack:
        yield [
            stack.enter_context(embedded(folder / "embedded", **settings)),
            await stack.enter_async_context(over_rabbitmq(folder / "rabbitmq", broker_url, **settings)),
        ]


@contextmanager
def embedded(folder: Path, **settings: str) -> Iterator[Room]:
    """All services in one process."""
    with running("up", DATA_DIR=str(folder), **settings) as room:
        address = room.address()
        sockets = (folder / "postgres" / "postmaster.pid").read_text().splitlines()[4]
        database_url = f"postgresql://postgres@/postgres?host={sockets}"
        servers = {"m3 up": room.pid, "PostgreSQL": postmaster(folder)}
        yield Room("embedded", address, address, database_url, servers)


@asynccontextmanager
async def over_rabbitmq(folder: Path, broker_url: str, **settings: str) -> AsyncIterator[Room]:
    """Each service in a process of its own."""
    async with embedded_postgres(folder) as database_url:
        urls = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
        with ExitStack() as stack:
            services = {name: stack.enter_context(running(name, **urls, **settings)) for name in SERVICES}
            for name in ("recorder", "agent"):
                services[name].started()
            servers = {f"m3 {name}": service.pid for name, service in services.items()}
            servers |= servers_of(folder)
            addresses = services["gateway"].address(), services["pusher"].address()
            yield Room("over RabbitMQ", *addresses, database_url, servers)


@contextmanager
def running(command: str, **settings: str) -> Iterator[Process]:
    with processes() as started:
        process = Process(command, settings)
        started.append(process)
        try:
            yield process
        finally:
            process.stop()  # in good order, since a killed room would leave its PostgreSQL behind


def servers_of(folder: Path) -> dict[str, int]:
    """The embedded PostgreSQL of that folder, and the broker if it was started for this measure."""
    servers = {"PostgreSQL": postmaster(folder)}
    if node := cpu.descendant(os.getpid(), "beam.smp"):
        servers["RabbitMQ"] = node
    return servers


def postmaster(folder: Path) -> int:
    """The first process of an embedded PostgreSQL, which has left its parent."""
    return int((folder / "postgres" / "postmaster.pid").read_text().split()[0])


async def empty_broker(broker_url: str) -> None:
    """Take away what the room before left in its queues."""
    async with (
        asyncio.timeout(BROKER_TIMEOUT),
        await aio_pika.connect(broker_url) as connection,
        connection.channel() as channel,
    ):
        for queue in QUEUES:
            await channel.queue_delete(queue.name)
        for exchange in EXCHANGES:
            await channel.exchange_delete(exchange.name)


async def pause(room: Room, thread_ids: Iterable[str]) -> None:
    """Have the agent leave what is said in the threads."""
    async with client(room.gateway) as http:
        for thread_id in thread_ids:
            answer = await http.put(f"/api/threads/{thread_id}/settings", json={"pause": "wait"})
            assert answer.status_code == 200, answer.text


async def checks(http: httpx2.AsyncClient, count: int) -> list[float]:
    """Seconds of each of the least requests that there are."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        await http.get("/healthz")
        seconds.append(time.perf_counter() - begun)
    return seconds


async def rows(database_url: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """What the database says to a question of ours, beside the room."""
    connection = await asyncpg.connect(database_url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        return found
    finally:
        await connection.close()


async def until_none(database_url: str, query: str, *arguments: Any, within: float) -> None:
    """Return when the database finds nothing any more. Raises TimeoutError after so many seconds."""
    async with asyncio.timeout(within):
        while await rows(database_url, query, *arguments):  # noqa: ASYNC110  # a table sends no events
            await asyncio.sleep(LOOK_INTERVAL)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def spread(figures: Sequence[float], form: str = ",.0f") -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(figures):{form}} ({min(figures):{form}} to {max(figures):{form}})"


def p90(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=10)[-1]


def say(what: str) -> None:
    print(f"[bench] {what}", file=sys.stderr, flush=True)
