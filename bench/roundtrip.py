"""``python -m bench.roundtrip``: the time from a POST to its reply.

Both deployments run side by side on real servers and take turns, so that whatever else the machine does meets both.
"""

import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from bench import rooms
from bench.model import Model
from bench.rooms import ms, say
from tests.support.client import client, post

ROUNDS = 5
#: To each room in each round.
POSTS = 60
#: Posts go to these in turn, since the agent still leaves one thread while the next post is on its way.
THREADS = 20


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


def _thread(number: int) -> str:
    return f"thread-{number % THREADS}"


def _report(measured: list[Measured]) -> str:
    return f"""\
From `POST /api/chat` to its reply, less the model's own time:

| | median | p90 | aim for the median | `GET /healthz`, median |
|---|---:|---:|---:|---:|
{_time_rows(measured)}

{_ratios(*measured)}

One client posts one message after the other over one connection: {POSTS} to each room in turn, {ROUNDS} times, after
{POSTS} that do not count. They go to {THREADS} threads in turn, so that in the end the model is shown
{POSTS * (ROUNDS + 1) // THREADS - 1} earlier messages and their replies. It streams its reply in one piece and at
once; its own time, from having a request to having written its reply, is taken off the client's. `GET /healthz` shows
what the least of requests costs on this machine."""


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


if __name__ == "__main__":
    rooms.run("Round trip", _measure)
