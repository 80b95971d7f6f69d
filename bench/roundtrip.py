"""``python -m bench.roundtrip``: the time from a POST to its reply, and the CPU use of the room at rest.

Both deployments run side by side on real servers and take turns, so that whatever else the machine does meets both.
"""

import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import lcm
from pathlib import Path

import aio_pika
import httpx2
import uvloop
from websockets.asyncio.client import connect

from bench import cpu
from m3.settings import Settings
from m3.store.embedded import embedded_postgres
from tests.support.broker import NoBrokerError, running_broker
from tests.support.client import client, post
from tests.support.processes import Process, processes

RESULTS = Path(__file__).with_name("results.md")

SERVICES = ("gateway", "pusher", "recorder", "agent")

ROUNDS = 5
#: To each room in each round.
POSTS = 60
#: Posts go to these in turn, since the agent still leaves one thread while the next post is on its way.
THREADS = 20

SOCKETS = 100
#: Seconds in which the rooms finish what they were at.
REST = 10.0
#: Seconds of one measure of CPU use: a multiple of the times between an agent's sweeps and between a socket's pings,
#: so that it holds as many of both wherever it begins.
WINDOW = lcm(*(int(Settings.model_fields[name].default) for name in ("sweep_interval", "ping_interval")))
#: Seconds that any question to the broker may take.
BROKER_TIMEOUT = 10.0


class InstantModel:
    """The smallest OpenAI-compatible server: one fixed reply, and a record of the time that giving it took.

    It shares the event loop of the client that posts. The client only waits while a reply is made, so the two are
    never in each other's way; in a process of its own the model would be one more thing for the cores to switch to.
    """

    def __init__(self) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "instant", "choices": [choice]}
        body = json.dumps(completion)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._reply = (head + body).encode()
        self._seconds = 0.0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Yields what LLM_BASE_URL is to be."""
        async with await asyncio.start_server(self._converse, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    def seconds(self) -> float:
        """The time from having a request to having written the reply, summed since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                assert length, head
                await reader.readexactly(int(length[1]))
                begun = time.perf_counter()
                writer.write(self._reply)
                self._seconds += time.perf_counter() - begun


@dataclass
class Room:
    """A running deployment and what was measured of it."""

    name: str
    #: The longest median wanted, in seconds.
    aim: float
    gateway: str
    pusher: str
    #: The process, or the first of them, of each of its servers.
    servers: dict[str, int]
    #: Seconds of each GET /healthz.
    checks: list[float] = field(default_factory=list)
    #: Seconds of each POST without the model's, round by round.
    rounds: list[list[float]] = field(default_factory=list)
    #: Each server's CPU use in % of one core, first without sockets and then with them.
    idle: list[dict[str, float]] = field(default_factory=list)

    @property
    def posts(self) -> list[float]:
        return [seconds for posts in self.rounds for seconds in posts]


def main() -> None:
    try:
        with running_broker(_say) as broker_url:
            report = uvloop.run(_measure(broker_url))
    except NoBrokerError as error:
        sys.exit(str(error))
    RESULTS.write_text(report)
    print(report, end="")


async def _measure(broker_url: str) -> str:
    begun = datetime.now(UTC)
    load = os.getloadavg()[0]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m3-bench-")))
        model = InstantModel()
        llm_base_url = await stack.enter_async_context(model.listening())
        _say("starting the rooms")
        rooms = [
            stack.enter_context(_embedded(folder / "embedded", llm_base_url)),
            await stack.enter_async_context(_over_rabbitmq(folder / "rabbitmq", llm_base_url, broker_url)),
        ]
        _say(f"posting, {ROUNDS} rounds")
        await _take_turns(rooms, model)
        if cpu.MEASURABLE:
            _say(f"watching the rooms rest, {2 * (REST + WINDOW):g} s")
            await _watch(rooms)
            async with AsyncExitStack() as sockets:
                for room in rooms:
                    await sockets.enter_async_context(_sockets(room))
                await _watch(rooms)
        return _report(rooms, await _machine(broker_url, load), begun)


@contextmanager
def _embedded(folder: Path, llm_base_url: str) -> Iterator[Room]:
    """All services in one process."""
    with _running("up", DATA_DIR=str(folder), LLM_BASE_URL=llm_base_url) as room:
        address = room.address()
        servers = {"m3 up": room.pid, "PostgreSQL": _postmaster(folder)}
        yield Room("embedded", 0.010, address, address, servers)


@asynccontextmanager
async def _over_rabbitmq(folder: Path, llm_base_url: str, broker_url: str) -> AsyncIterator[Room]:
    """Each service in a process of its own."""
    async with embedded_postgres(folder) as database_url:
        settings = {"BROKER_URL": broker_url, "DATABASE_URL": database_url, "LLM_BASE_URL": llm_base_url}
        with ExitStack() as stack:
            services = {name: stack.enter_context(_running(name, **settings)) for name in SERVICES}
            for name in ("recorder", "agent"):
                services[name].started()
            servers = {f"m3 {name}": service.pid for name, service in services.items()}
            servers["PostgreSQL"] = _postmaster(folder)
            if node := cpu.descendant(os.getpid(), "beam.smp"):
                servers["RabbitMQ"] = node
            yield Room("over RabbitMQ", 0.015, services["gateway"].address(), services["pusher"].address(), servers)


@contextmanager
def _running(command: str, **settings: str) -> Iterator[Process]:
    with processes() as started:
        process = Process(command, settings)
        started.append(process)
        try:
            yield process
        finally:
            process.stop()  # in good order, since a killed room would leave its PostgreSQL behind


def _postmaster(folder: Path) -> int:
    """The first process of an embedded PostgreSQL, which has left its parent."""
    return int((folder / "postgres" / "postmaster.pid").read_text().split()[0])


async def _take_turns(rooms: list[Room], model: InstantModel) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(room.gateway)) for room in rooms]
        for http in clients:
            await _post(http, model)  # nobody's first messages count: connections and caches are made then
        for _ in range(ROUNDS):
            for room, http in zip(rooms, clients, strict=True):
                room.checks += await _check(http)
                room.rounds.append(await _post(http, model))


async def _check(http: httpx2.AsyncClient) -> list[float]:
    """Seconds of each of the least requests that there are."""
    seconds = []
    for _ in range(POSTS):
        begun = time.perf_counter()
        await http.get("/healthz")
        seconds.append(time.perf_counter() - begun)
    return seconds


async def _post(http: httpx2.AsyncClient, model: InstantModel) -> list[float]:
    """Seconds of each post without the model's."""
    seconds = []
    for number in range(POSTS):
        model.seconds()
        begun = time.perf_counter()
        await post(http, "Are you there?", thread_id=_thread(number))
        seconds.append(time.perf_counter() - begun - model.seconds())
    return seconds


async def _watch(rooms: list[Room]) -> None:
    await asyncio.sleep(REST)
    shares = await asyncio.gather(*(cpu.shares(room.servers, WINDOW) for room in rooms))
    for room, used in zip(rooms, shares, strict=True):
        room.idle.append(used)


@asynccontextmanager
async def _sockets(room: Room) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(SOCKETS):
            address = f"{room.pusher.replace('http', 'ws', 1)}/ws/chat/{_thread(number)}"
            # It answers the room's pings and sends none of its own.
            await stack.enter_async_context(connect(address, ping_interval=None, proxy=None))
        yield


def _thread(number: int) -> str:
    return f"thread-{number % THREADS}"


async def _machine(broker_url: str, load: float) -> str:
    async with asyncio.timeout(BROKER_TIMEOUT), await aio_pika.connect(broker_url) as connection:
        assert connection.transport
        rabbitmq = connection.transport.connection.server_properties["version"]
        assert isinstance(rabbitmq, str)
    return (
        f"{cpu.processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, "
        f"RabbitMQ {rabbitmq}. Load average over the minute before: {load:.1f}."
    )


def _report(rooms: list[Room], machine: str, begun: datetime) -> str:
    return f"""\
# Round trip and CPU use at rest

Measured by `make bench` on {begun:%Y-%m-%d at %H:%M} UTC.

{machine}

## From `POST /api/chat` to its reply, less the model's own time

| | median | p90 | aim for the median | `GET /healthz`, median |
|---|---:|---:|---:|---:|
{_time_rows(rooms)}

{_ratios(*rooms)}

One client posts one message after the other over one connection: {POSTS} to each room in turn, {ROUNDS} times, after
{POSTS} that do not count. They go to {THREADS} threads in turn, so that in the end the model is shown
{POSTS * (ROUNDS + 1) // THREADS - 1} earlier messages and their replies. It answers at once; its own time, from having
a request to having written its reply, is taken off the client's. `GET /healthz` shows what the least of requests costs
on this machine.

## CPU use at rest

{_idle_table(rooms) if cpu.MEASURABLE else "Not measured: it is read from Linux's `/proc`."}
"""


def _time_rows(rooms: list[Room]) -> str:
    return "\n".join(
        f"| {room.name} | {_ms(statistics.median(room.posts))} | {_ms(statistics.quantiles(room.posts, n=10)[-1])} "
        f"| at most {_ms(room.aim)} | {_ms(statistics.median(room.checks))} |"
        for room in rooms
    )


def _ratios(embedded: Room, rabbitmq: Room) -> str:
    by_round = [
        statistics.median(there) / statistics.median(here)
        for here, there in zip(embedded.rounds, rabbitmq.rounds, strict=True)
    ]
    overall = statistics.median(rabbitmq.posts) / statistics.median(embedded.posts)
    listed = ", ".join(f"{ratio:.2f}" for ratio in by_round)
    return f"{rabbitmq.name} to {embedded.name}, ratio of medians: {overall:.2f}; round by round {listed}."


def _idle_table(rooms: list[Room]) -> str:
    return f"""\
| in % of one core | no sockets | {SOCKETS} WebSockets |
|---|---:|---:|
{"".join(map(_idle_rows, rooms))}
Read from `/proc/<pid>/stat`: utime and stime of each process and its descendants, over {WINDOW} s that began
{REST:g} s after the last post or the last opened socket, for both rooms at once. Each room's sockets are spread over
{THREADS} threads; their clients answer the room's pings and are not counted. A broker is counted where it was started
for this measure."""


def _idle_rows(room: Room) -> str:
    alone, listened_to = room.idle
    rows = [f"| {room.name}: {name} | {alone[name]:.2f} | {listened_to[name]:.2f} |" for name in room.servers]
    total = f"| **{room.name}, in sum** | **{sum(alone.values()):.2f}** | **{sum(listened_to.values()):.2f}** |"
    return "".join(f"{row}\n" for row in [*rows, total])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _say(what: str) -> None:
    print(f"[bench] {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
