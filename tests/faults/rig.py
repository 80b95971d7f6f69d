"""Rooms made of real processes and servers that faults can be done to."""

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2

from m3.tasks import background
from tests.faults.model import Model
from tests.support.broker import PrivateNode, private_node
from tests.support.database import Database, private_database
from tests.support.ports import free_ports
from tests.support.processes import Process, processes
from tests.support.proxy import Proxy, proxy
from tests.support.scripted_model import scripted_model
from tests.support.until import until

#: Seconds between looks for services that ended.
SUPERVISION_INTERVAL = 0.05
#: Seconds in which a room must be ready.
READY = 60.0
COMMANDS = ("recorder", "recorder", "agent", "agent", "pusher", "pusher", "gateway", "gateway")


class Service:
    """One ``m3`` command that is started again whenever it ends, as a supervisor would."""

    def __init__(self, command: str, number: int, settings: dict[str, str]) -> None:
        self.command = command
        self.name = f"{command} {number}"
        (port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{port}"
        self._settings = settings | {"PORT": str(port)}
        self._sentenced = False
        self.process = Process(command, self._settings)

    def kill(self) -> None:
        """Without a warning."""
        self._sentenced = True
        self.process.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """In good order."""
        self.process.signal(signal.SIGTERM)

    def freeze(self, *, frozen: bool) -> None:
        self.process.signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def revive(self) -> str | None:
        """Start it again if it ended; tells what was wrong with its end."""
        if self.process.running:
            return None
        code = self.process.wait()
        wrong = None if self._sentenced or code == 0 else f"{self.name} ended by itself with {code}"
        if wrong:
            _say(f"{wrong}:\n{self.process.said[-12_000:]}".replace("\\n", "\n"))
        self._sentenced = False
        self.process = Process(self.command, self._settings)
        return wrong


class Doors(Protocol):
    """A deployment as its clients know it, and where its table is."""

    @property
    def gateways(self) -> list[str]: ...

    @property
    def pushers(self) -> list[str]: ...

    @property
    def database_address(self) -> dict[str, Any]:
        """For asyncpg."""


@dataclass
class Room:
    """A running deployment. The servers' proxies are between them and the services alone."""

    services: list[Service]
    model: Model
    database: Database | None = None
    database_proxy: Proxy | None = None
    broker: PrivateNode | None = None
    broker_proxy: Proxy | None = None
    data: Path | None = None
    #: What its services are told.
    settings: dict[str, str] = field(default_factory=dict)
    #: Services that ended though nobody told them to.
    own_deaths: list[str] = field(default_factory=list)
    generations: int = 0

    def of(self, command: str) -> list[Service]:
        return [service for service in self.services if service.command in {command, "up"}]

    @property
    def gateways(self) -> list[str]:
        return [service.address for service in self.of("gateway")]

    @property
    def pushers(self) -> list[str]:
        return [service.address for service in self.of("pusher")]

    @property
    def database_address(self) -> dict[str, Any]:
        """For asyncpg, past the proxy."""
        if self.database is not None:
            return {"dsn": self.database.url}
        assert self.data is not None
        folder = (self.data / "postgres" / "postmaster.pid").read_text().splitlines()[4]
        return {"host": folder, "user": "postgres", "database": "postgres"}

    async def ready(self) -> None:
        """Return when every door says that it reaches what it needs."""

        async def answers(address: str) -> bool:
            with suppress(httpx2.HTTPError):
                return (await http.get(f"{address}/readyz")).status_code == 200
            return False

        async with httpx2.AsyncClient(timeout=5) as http:
            for address in {*self.gateways, *self.pushers}:
                await until(lambda address=address: answers(address), within=READY)  # type: ignore[misc]

    async def supervise(self) -> None:
        while True:
            for service in self.services:
                if not service.process.running:
                    self.generations += 1
                    if wrong := await asyncio.to_thread(service.revive):
                        self.own_deaths.append(wrong)
            await asyncio.sleep(SUPERVISION_INTERVAL)


@asynccontextmanager
async def cluster(*, proxied: bool = True, **settings: str) -> AsyncIterator[Room]:
    """Two of each service over a RabbitMQ and a PostgreSQL of their own. Raises NoBrokerError."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(_in_thread(private_node(_say)))
        database = await stack.enter_async_context(private_database())
        broker_port, database_port = broker.port, database.port
        broker_proxy = database_proxy = None
        if proxied:
            broker_proxy = await stack.enter_async_context(proxy(broker_port))
            database_proxy = await stack.enter_async_context(proxy(database_port))
            broker_port, database_port = broker_proxy.port, database_proxy.port
        urls = {
            "BROKER_URL": broker.url.replace(f":{broker.port}", f":{broker_port}"),
            "DATABASE_URL": database.url.replace(f":{database.port}", f":{database_port}"),
        }
        room = await stack.enter_async_context(_running(COMMANDS, urls | settings))
        room.broker, room.broker_proxy = broker, broker_proxy
        room.database, room.database_proxy = database, database_proxy
        yield room


@asynccontextmanager
async def embedded(**settings: str) -> AsyncIterator[Room]:
    """The whole room in one process."""
    with tempfile.TemporaryDirectory(prefix="m3-faults-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        async with _running(("up",), {"DATA_DIR": str(data)} | settings) as room:
            room.data = data
            yield room


@asynccontextmanager
async def _running(commands: tuple[str, ...], settings: dict[str, str]) -> AsyncIterator[Room]:
    model = Model()
    async with scripted_model(model.script) as server:
        model.server = server
        # What is said is answered each, once, whatever it is: the checker wants a reply of its own for every message.
        shared = {"LLM_BASE_URL": server.url, "LOG_LEVEL": "warning", "TURN_TIMEOUT": "10", "CONTEXT_MESSAGES": "10"}
        shared |= {"API_POLICY": "each", "API_TTL": "3600", "API_CAP": "1000", "LLM_ATTEMPTS": "1"}
        with _stopped_in_the_end() as services:
            for number, command in enumerate(commands):
                services.append(Service(command, 1 + commands[:number].count(command), shared | settings))
            room = Room(services, model, settings=settings)
            await asyncio.gather(*(asyncio.to_thread(service.process.started) for service in services))
            await room.ready()
            async with background("supervisor", room.supervise()):
                yield room


@contextmanager
def _stopped_in_the_end() -> Iterator[list[Service]]:
    services: list[Service] = []
    with processes() as running:
        try:
            yield services
        finally:
            for service in services:
                with suppress(ProcessLookupError):
                    service.process.signal(signal.SIGCONT)
            running += [service.process for service in services]


@asynccontextmanager
async def _in_thread(manager: Any) -> AsyncIterator[Any]:
    """A context manager that blocks, entered and left beside the event loop."""
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def _say(what: str) -> None:
    print(f"[faults] {what}", file=sys.stderr, flush=True)


def now() -> float:
    return time.monotonic()
