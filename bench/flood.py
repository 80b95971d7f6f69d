"""``python -m bench.flood``: programs say far more than the agent can answer, and a person talks in between."""

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import connect

from bench import cpu, rooms
from bench.model import ModelProcess, model_process
from bench.rooms import say
from m3.settings import Settings
from m3.tasks import background
from tests.support.client import client
from tests.support.until import until

#: Of each room, on a thread of its own.
FLOODS = 3
COMMENTS = 2000
#: Seconds in which they are posted, evenly.
SECONDS = 10.0
#: Seconds between what the person says.
INTERVAL = 2.0
#: Every so many comments is one of the cheers that everybody shouts.
CHEERFUL = 10
CHEERS = ("666", "Encore!", "Hello from Chengdu")
#: Connections over which the comments come.
LINES = 64
HEAD = "POST /api/chat HTTP/1.1\r\nContent-Type: application/json\r\nPrefer: respond-async\r\n"

#: Seconds that the model takes for a reply, and its pieces.
REPLY_SECONDS = 1.0
PIECES = 20

#: Seconds in which everything must have its fate.
PATIENCE = 120.0
MOST_WAIT = 2.5
MOST_CALLS = 25


@dataclass
class Flood:
    """What came of one."""

    thread_id: str
    #: Seconds in which the comments were posted.
    took: float = 0.0
    #: The part of all cores' time in which they worked meanwhile.
    machine: float = 0.0
    #: Seconds until all had their fate.
    until_settled: float = 0.0
    #: Seconds from the person's saying something to the reply.
    waits: list[float] = field(default_factory=list)
    #: Status codes of the comments' POSTs.
    answers: Counter[int] = field(default_factory=Counter)
    #: Of the comments, by the socket.
    pushed: int = 0
    #: Of the comments, in the table.
    fates: Counter[str] = field(default_factory=Counter)
    calls: int = 0


async def _measure(folder: Path, broker_url: str) -> str:
    async with AsyncExitStack() as stack:
        model = stack.enter_context(model_process(REPLY_SECONDS, PIECES))
        floods: dict[str, list[Flood]] = {}
        opened = await stack.enter_async_context(rooms.both(folder, broker_url, LLM_BASE_URL=model.url))
        for number in range(FLOODS):
            for room in opened:
                say(f"flood {number + 1} of the room {room.name}")
                floods.setdefault(room.name, []).append(await _flood(room, model, f"flood-{number}"))
        return _report(floods)


async def _flood(room: rooms.Room, model: ModelProcess, thread_id: str) -> Flood:
    flood = Flood(thread_id)
    calls = (await model.count()).said.total()
    async with client(room.gateway) as http, _listening(room, flood):
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(_comment_away(room, flood), name="programs")
            group.create_task(_talk(http, flood), name="person")
        waiting = "SELECT FROM dialogue WHERE thread_id = $1 AND fate = 'pending' LIMIT 1"
        await rooms.until_none(room.database_url, waiting, thread_id, within=PATIENCE)
        flood.until_settled = time.perf_counter() - begun
        with suppress(TimeoutError):  # what the socket never heard is told by the figures
            await until(lambda: flood.pushed >= flood.answers[202])
    flood.calls = (await model.count()).said.total() - calls
    query = "SELECT fate, count(*) FROM dialogue WHERE thread_id = $1 AND source = 'api' GROUP BY fate"
    flood.fates = Counter(dict(map(tuple, await rooms.rows(room.database_url, query, thread_id))))
    return flood


async def _comment_away(room: rooms.Room, flood: Flood) -> None:
    """Post all comments, each at its time whether those before it were answered or not."""
    begun, machine = time.perf_counter(), cpu.machine()
    cheers = cycle(CHEERS)
    comments: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        lines = [group.create_task(_post_all(room, flood, comments), name=f"line {each}") for each in range(LINES)]
        for number in range(COMMENTS):
            await asyncio.sleep(begun + number * SECONDS / COMMENTS - time.perf_counter())
            text = next(cheers) if number % CHEERFUL == 0 else f"Comment {number}: what is this song called?"
            comments.put_nowait(text)
        await comments.join()
        flood.took, flood.machine = time.perf_counter() - begun, cpu.share(machine, cpu.machine())
        for line in lines:
            line.cancel()


async def _post_all(room: rooms.Room, flood: Flood, comments: asyncio.Queue[str]) -> None:
    """By hand over one connection: a library for HTTP would take more of the machine than the room does."""
    address = urlsplit(room.gateway)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    with closing(writer):
        while True:
            body = json.dumps({"message": await comments.get(), "thread_id": flood.thread_id, "source": "api"})
            writer.write(f"{HEAD}Host: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: *(\d+)", head)
            assert length, head
            await reader.readexactly(int(length[1]))
            flood.answers[int(head.split()[1])] += 1
            comments.task_done()


async def _talk(http: httpx2.AsyncClient, flood: Flood) -> None:
    """Say something every two seconds, whether what was said before is answered or not."""
    async with asyncio.TaskGroup() as group:
        for _ in range(int(SECONDS / INTERVAL)):
            await asyncio.sleep(INTERVAL / 2)
            group.create_task(_ask(http, flood), name="person's message")
            await asyncio.sleep(INTERVAL / 2)


async def _ask(http: httpx2.AsyncClient, flood: Flood) -> None:
    begun = time.perf_counter()
    answer = await http.post("/api/chat", json={"message": "Can you hear me?", "thread_id": flood.thread_id})
    assert answer.status_code == 200, answer.text
    flood.waits.append(time.perf_counter() - begun)


@asynccontextmanager
async def _listening(room: rooms.Room, flood: Flood) -> AsyncIterator[None]:
    """Count the comments that a socket is sent."""
    address = f"{room.pusher.replace('http', 'ws', 1)}/ws/chat/{flood.thread_id}?events=all"
    async with connect(address, ping_interval=None, proxy=None) as socket:

        async def count() -> None:
            while True:
                frame: dict[str, Any] = json.loads(await socket.recv())
                flood.pushed += (frame["type"], frame.get("source")) == ("new_message", "api")

        async with background("counting socket", count()):
            yield


def _report(floods: dict[str, list[Flood]]) -> str:
    defaults = {name: Settings.model_fields[name].default for name in ("api_cap", "batch_messages", "api_policy")}
    return f"""\
| of {FLOODS} floods each | person's wait, median | longest | aim for the median | model calls of each flood | aim |
|---|---:|---:|---:|---:|---:|
{_rows(floods)}

| | {" | ".join(floods)} |
|---|{"---:|" * len(floods)}
{_counts(floods)}

Into one thread {COMMENTS} comments of programs in {SECONDS:g} s, `POST /api/chat` with `Prefer: respond-async` over
{LINES} connections, each at its time whether those before it were answered or not; and a person's message every
{INTERVAL:g} s, whose POST waits for the reply, which takes the model {REPLY_SECONDS:g} s in {PIECES} pieces. Both are
said by one process, which has a socket on the thread too. Every {CHEERFUL}th comment is one of {len(CHEERS)} cheers,
the others are all different. Settings are the defaults: `API_POLICY={defaults["api_policy"]}`,
`API_CAP={defaults["api_cap"]}`, `BATCH_MESSAGES={defaults["batch_messages"]}`. A call is a reply
that the model said to its end, the person's included, until nothing waited any more. The cores' work is the machine's,
from the first comment until all were answered, with client, model and servers. Recorded and fates are counted in the
table, pushed at the socket."""


def _rows(floods: dict[str, list[Flood]]) -> str:
    return "\n".join(_row(name, each) for name, each in floods.items())


def _row(name: str, floods: list[Flood]) -> str:
    waits = [wait for flood in floods for wait in flood.waits]
    calls = ", ".join(str(flood.calls) for flood in floods)
    return (
        f"| {name} | {statistics.median(waits):.2f} s | {max(waits):.2f} s | at most {MOST_WAIT:g} s "
        f"| {calls} | at most {MOST_CALLS} |"
    )


def _counts(floods: dict[str, list[Flood]]) -> str:
    each = list(floods.values())

    def row(what: str, of: Any) -> str:
        return f"| {what} | {' | '.join(str(sum(of(flood) for flood in some)) for some in each)} |"

    fates = sorted({fate for some in each for flood in some for fate in flood.fates})
    slowest = " | ".join(f"{max(flood.took for flood in some):.1f} s" for some in each)
    machine = " | ".join(f"{max(flood.machine for flood in some):.0%}" for some in each)
    settled = " | ".join(f"{max(flood.until_settled for flood in some):.1f} s" for some in each)
    rows = [
        row("comments posted", lambda flood: flood.answers.total()),
        row("… answered with 202", lambda flood: flood.answers[202]),
        row("… recorded", lambda flood: flood.fates.total()),
        row("… pushed", lambda flood: flood.pushed),
        *(row(f"fate `{fate}`", lambda flood, fate=fate: flood.fates[fate]) for fate in fates),
        f"| longest time in which all were posted and answered | {slowest} |",
        f"| all cores at work meanwhile | {machine} |",
        f"| longest time until nothing waited | {settled} |",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    rooms.run("A flood of comments", _measure)
