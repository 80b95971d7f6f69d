"""``python -m bench.first_delta``: the time from saying something to the first piece of its reply.

Both deployments run side by side on real servers and take turns, and so do the two ways to read a reply as it grows.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from bench import rooms
from bench.model import Model
from bench.rooms import ms, say
from tests.support.client import client

Way = Literal["POST, as server-sent events", "socket with `?events=all`"]
BY_POST: Way = "POST, as server-sent events"
BY_SOCKET: Way = "socket with `?events=all`"

ROUNDS = 10
#: To each room each way in each round.
MESSAGES = 30
#: Messages go to these in turn, since the agent still leaves one thread while the next message is on its way.
THREADS = 10
#: Of a reply; the first comes at once.
PIECES = 5
#: Seconds from the request to the last piece.
REPLY_SECONDS = 0.05
#: Seconds that a whole reply may take.
PATIENCE = 20.0
AIM = 0.015


@dataclass
class Guest:
    """Somebody in a room, who says something and reads on until the reply is whole."""

    room: rooms.Room
    http: httpx2.AsyncClient
    sockets: list[ClientConnection]
    #: Seconds to the first piece of each reply without the model's, by the way that it was read.
    times: dict[Way, list[float]] = field(default_factory=lambda: {BY_POST: [], BY_SOCKET: []})
    #: Seconds of each GET /healthz.
    checks: list[float] = field(default_factory=list)

    async def say_something(self, way: Way, number: int, model: Model) -> float:
        """Seconds to the first piece of the reply."""
        model.own_time()
        begun = time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            first = await (self._post(number) if way == BY_POST else self._tell(number))
        return first - begun - model.own_time()[0]

    async def _post(self, number: int) -> float:
        """When the first piece was there."""
        first = 0.0
        body = {"message": "Are you there?", "thread_id": f"posts-{number % THREADS}"}
        async with self.http.stream("POST", "/api/chat", json=body, headers={"Accept": "text/event-stream"}) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line == "event: delta":
                    first = first or time.perf_counter()
        assert first, "a reply without a piece"
        return first

    async def _tell(self, number: int) -> float:
        """When the first piece was there."""
        first = 0.0
        socket = self.sockets[number % THREADS]
        await socket.send(json.dumps({"type": "message", "message": "Are you there?"}))
        frame: dict[str, Any] = {}
        while (frame.get("type"), frame.get("source")) != ("new_message", "assistant"):
            frame = json.loads(await socket.recv())
            if frame["type"] == "delta":
                first = first or time.perf_counter()
        assert first, "a reply without a piece"
        return first


async def _measure(folder: Path, broker_url: str) -> str:
    model = Model(REPLY_SECONDS, PIECES, at_once=True)  # in the clients' event loop, as for the round trip
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(model.listening())
        opened = await stack.enter_async_context(rooms.both(folder, broker_url, LLM_BASE_URL=url))
        guests = [await stack.enter_async_context(_guest(room)) for room in opened]
        say(f"saying things, {ROUNDS} rounds")
        for counts in (False, *ROUNDS * [True]):  # the first messages do not: connections and caches are made then
            for way in (BY_POST, BY_SOCKET):
                for guest in guests:
                    times = [await guest.say_something(way, number, model) for number in range(MESSAGES)]
                    if counts:
                        guest.times[way] += times
                        guest.checks += await rooms.checks(guest.http, MESSAGES)
    return _report(guests)


@asynccontextmanager
async def _guest(room: rooms.Room) -> AsyncIterator[Guest]:
    async with AsyncExitStack() as stack:
        address = room.pusher.replace("http", "ws", 1)
        sockets = [
            await stack.enter_async_context(
                connect(f"{address}/ws/chat/sockets-{number}?events=all", ping_interval=None, proxy=None)
            )
            for number in range(THREADS)
        ]
        yield Guest(room, await stack.enter_async_context(client(room.gateway)), sockets)


def _report(guests: list[Guest]) -> str:
    rows = "\n".join(
        f"| {guest.room.name} | {way} | {ms(statistics.median(times))} | {ms(rooms.p90(times))} | at most {ms(AIM)} "
        f"| {ms(statistics.median(guest.checks))} |"
        for guest in guests
        for way, times in guest.times.items()
    )
    return f"""\
| | read by | median | p90 | aim for the median | `GET /healthz`, median |
|---|---|---:|---:|---:|---:|
{rows}

From sending the message to having the first `delta`, less the model's own time from having the request to having
written its first piece. A message's way in is part of it: the agent sees what is recorded. The reply has {PIECES}
pieces, the first at once and the last after {1000 * REPLY_SECONDS:g} ms; the client reads it to its end before it says
the next thing. {MESSAGES} messages to each room in turn each way, {ROUNDS} times, so {ROUNDS * MESSAGES} in each row,
after {MESSAGES} that do not count. They go to {THREADS} threads in turn, others by POST than by socket. `GET /healthz`
shows what the least of requests costs on this machine meanwhile."""


if __name__ == "__main__":
    rooms.run("The first piece of a reply", _measure)
