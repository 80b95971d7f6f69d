"""``python -m bench.roundtrip``: the time from a POST to its reply, and the CPU use of the room at rest.

Both deployments run side by side on real servers and take turns, so that whatever else the machine does meets both.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path

import httpx2
from websockets.asyncio.client import connect

from bench import cpu, rooms
from bench.model import Model
from bench.rooms import ms, say
from m3.settings import Settings
from tests.support.client import client, post

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


@dataclass
class Measured:
    """What was measured of a room."""

    room: rooms.Room
    #: The longest median wanted, in seconds.
    aim: float
    #: Seconds of each GET /healthz.
    checks: list[float] = field(default_factory=list)
    #: Seconds of each POST without the model's, round by round.
    rounds: list[list[float]] = field(default_factory=list)
    #: Each server's CPU use in % of one core, first without sockets and then with them.
    idle: list[dict[str, float]] = field(default_factory=list)

    @property
    def posts(self) -> list[float]:
        return [seconds for posts in self.rounds for seconds in posts]


async def _measure(folder: Path, broker_url: str) -> str:
    # In the event loop of the client that posts. The client only waits while a reply is made, so the two are never in
    # each other's way; in a process of its own the model would be one more thing for the cores to switch to.
    model = Model()
    async with AsyncExitStack() as stack:
        llm_base_url = await stack.enter_async_context(model.listening())
        embedded, rabbitmq = await stack.enter_async_context(rooms.both(folder, broker_url, LLM_BASE_URL=llm_base_url))
        measured = [Measured(embedded, aim=0.010), Measured(rabbitmq, aim=0.015)]
        say(f"posting, {ROUNDS} rounds")
        await _take_turns(measured, model)
        if cpu.MEASURABLE:
            say(f"watching the rooms rest, {2 * (REST + WINDOW):g} s")
            await _watch(measured)
            async with AsyncExitStack() as sockets:
                for one in measured:
                    await sockets.enter_async_context(_sockets(one.room))
                await _watch(measured)
        return _report(measured)


async def _take_turns(measured: list[Measured], model: Model) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(one.room.gateway)) for one in measured]
        for http in clients:
            await _post(http, model)  # nobody's first messages count: connections and caches are made then
        for _ in range(ROUNDS):
            for one, http in zip(measured, clients, strict=True):
                one.checks += await rooms.checks(http, POSTS)
                one.rounds.append(await _post(http, model))


async def _post(http: httpx2.AsyncClient, model: Model) -> list[float]:
    """Seconds of each post without the model's."""
    seconds = []
    for number in range(POSTS):
        model.own_time()
        begun = time.perf_counter()
        await post(http, "Are you there?", thread_id=_thread(number))
        seconds.append(time.perf_counter() - begun - model.own_time()[1])
    return seconds


async def _watch(measured: list[Measured]) -> None:
    await asyncio.sleep(REST)
    shares = await asyncio.gather(*(cpu.shares(one.room.servers, WINDOW) for one in measured))
    for one, used in zip(measured, shares, strict=True):
        one.idle.append(used)


@asynccontextmanager
async def _sockets(room: rooms.Room) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(SOCKETS):
            address = f"{room.pusher.replace('http', 'ws', 1)}/ws/chat/{_thread(number)}"
            # It answers the room's pings and sends none of its own.
            await stack.enter_async_context(connect(address, ping_interval=None, proxy=None))
        yield


def _thread(number: int) -> str:
    return f"thread-{number % THREADS}"


def _report(measured: list[Measured]) -> str:
    return f"""\
## From `POST /api/chat` to its reply, less the model's own time

| | median | p90 | aim for the median | `GET /healthz`, median |
|---|---:|---:|---:|---:|
{_time_rows(measured)}

{_ratios(*measured)}

One client posts one message after the other over one connection: {POSTS} to each room in turn, {ROUNDS} times, after
{POSTS} that do not count. They go to {THREADS} threads in turn, so that in the end the model is shown
{POSTS * (ROUNDS + 1) // THREADS - 1} earlier messages and their replies. It streams its reply in one piece and at
once; its own time, from having a request to having written its reply, is taken off the client's. `GET /healthz` shows
what the least of requests costs on this machine.

## CPU use at rest

{_idle_table(measured) if cpu.MEASURABLE else "Not measured: it is read from Linux's `/proc`."}"""


def _time_rows(measured: list[Measured]) -> str:
    return "\n".join(
        f"| {one.room.name} | {ms(statistics.median(one.posts))} | {ms(rooms.p90(one.posts))} "
        f"| at most {ms(one.aim)} | {ms(statistics.median(one.checks))} |"
        for one in measured
    )


def _ratios(embedded: Measured, rabbitmq: Measured) -> str:
    by_round = [
        statistics.median(there) / statistics.median(here)
        for here, there in zip(embedded.rounds, rabbitmq.rounds, strict=True)
    ]
    overall = statistics.median(rabbitmq.posts) / statistics.median(embedded.posts)
    listed = ", ".join(f"{ratio:.2f}" for ratio in by_round)
    return f"{rabbitmq.room.name} to {embedded.room.name}, ratio of medians: {overall:.2f}; round by round {listed}."


def _idle_table(measured: list[Measured]) -> str:
    return f"""\
| in % of one core | no sockets | {SOCKETS} WebSockets |
|---|---:|---:|
{"".join(map(_idle_rows, measured))}
Read from `/proc/<pid>/stat`: utime and stime of each process and its descendants, over {WINDOW} s that began
{REST:g} s after the last post or the last opened socket, for both rooms at once. Each room's sockets are spread over
{THREADS} threads; their clients answer the room's pings and are not counted. A broker is counted where it was started
for this measure."""


def _idle_rows(one: Measured) -> str:
    alone, listened_to = one.idle
    room = one.room
    rows = [f"| {room.name}: {name} | {alone[name]:.2f} | {listened_to[name]:.2f} |" for name in room.servers]
    total = f"| **{room.name}, in sum** | **{sum(alone.values()):.2f}** | **{sum(listened_to.values()):.2f}** |"
    return "".join(f"{row}\n" for row in [*rows, total])


if __name__ == "__main__":
    rooms.run("Round trip and CPU use at rest", _measure)
