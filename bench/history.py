"""``python -m bench.history``: how long a page of history and coming back take, in a table of ten million rows.

``ROWS=2000000`` in the environment makes the table smaller, for trying.
"""

import asyncio
import math
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from picows import WSFrame, WSListener, WSTransport, ws_connect

from bench import rooms
from bench.listeners import BUSY, Crowd, Effort, Listener, allow_files, effort
from bench.posting import Line
from bench.rooms import Room, ms, say
from m3.store.postgres import END
from m3.store.sql import query
from tests.support.client import client
from tests.support.until import until

ROWS = int(os.environ.get("ROWS", "10_000_000"))
FILL = Path(__file__).with_name("history.sql").read_text("utf-8")
FILL_FATES = Path(__file__).with_name("history_of_fates.sql").read_text("utf-8")
#: What history.sql makes of each moment, and of which threads.
ROWS_A_MOMENT = 10
LONG, SHORT = 5, 995
#: Moments filled in one transaction, and seconds that all may take.
MOMENTS_AT_ONCE = 50_000
PATIENCE = 3600.0

PAGE = 100
#: Pages of each kind, half of them of long threads.
QUERIES = 2000
GETS = 500
MOST_QUERY = 0.005

MISSED = 1000
#: Threads of each kind that sockets come back to, one after the other.
RESUMES = 30
MOST_RESUME = 0.050
#: Numbers of each thread of fates.
FATES_HEAD = 2000
RESUME_TIMEOUT = 30.0

#: Sockets that come back at once, of how many threads, what is said in each of them a second meanwhile, and what each
#: socket missed.
TOGETHER = 1000
HERDS = ((1, 0), (20, 20))
MISSED_TOGETHER = 200
#: Seconds until all must be live.
HERD_TIMEOUT = 60.0

#: How frames that count begin, and where their number stands.
NEW_MESSAGE = b'{"type":"new_message"'
NUMBER = b'"seq":'


@dataclass
class Filled:
    """The table, and what making it took."""

    rows: int
    seconds: float
    table: str
    cache: str
    heads: dict[str, int]


@dataclass
class Page:
    """One kind of pages. A thread's head makes the arguments of the query, and the parameters of the GET."""

    name: str
    query: str
    cursor: Callable[[int], dict[str, int]]
    queried: list[float] = field(default_factory=list)
    got: list[float] = field(default_factory=list)

    def arguments(self, thread_id: str, cursor: dict[str, int]) -> list[Any]:
        after = [cursor["after"]] if "after" in cursor else []
        return [thread_id, *after, cursor.get("before", END), PAGE]


@dataclass
class Resumes:
    """Sockets that came back through one pusher, to threads of one kind."""

    room: str
    kind: str
    seconds: list[float]


@dataclass
class Herd:
    """Sockets that came back through one pusher at once."""

    room: str
    threads: int
    #: Messages a second that were said meanwhile in all threads.
    said: float
    #: Until each was live, in seconds from when all began to come back.
    seconds: list[float]
    #: Sockets that had the last message in the end, those that were closed, and frames that did not come in their turn.
    live: int
    closed: int
    astray: int
    load_maker: Effort


async def _measure(folder: Path, broker_url: str) -> str:
    allow_files(TOGETHER)
    async with AsyncExitStack() as stack:
        room = stack.enter_context(rooms.embedded(folder))
        beside = _beside(stack, room.database_url, broker_url)
        async with asyncio.timeout(PATIENCE):
            filled = await _fill(room.database_url)
        pages = [
            Page("newest", "latest_messages", lambda _: {}),
            Page("before", "latest_messages", lambda head: {"before": random.randint(PAGE + 1, head)}),
            Page("after", "following_messages", lambda head: {"after": random.randint(1, head - PAGE)}),
        ]
        say("reading pages in the database")
        await _query(room.database_url, pages, filled.heads)
        say("getting pages")
        async with client(room.gateway) as http:
            checks = await rooms.checks(http, GETS)
            await _get(http, pages, filled.heads)
        resumes, herds = [], []
        for each in (room, beside):
            for kind, threads in (("messages", "short"), ("messages and fates", "fates")):
                say(f"coming back {each.name}, to {kind}")
                ids = [f"{threads}-{number}" for number in range(RESUMES)]
                seconds = [await _resume(each.pusher, thread_id, filled.heads[thread_id]) for thread_id in ids]
                resumes.append(Resumes(each.name, kind, seconds))
        unheard = (f"short-{number}" for number in count(RESUMES))
        for each in (room, beside):
            for number, rate in HERDS:
                say(f"coming back {each.name}, {TOGETHER} sockets of {number} threads at once")
                herds.append(await _come_back(each, list(islice(unheard, number)), filled.heads, rate))
        return _report(filled, pages, checks, resumes, herds)


def _beside(stack: AsyncExitStack, database_url: str, broker_url: str) -> Room:
    """What it takes of a room over RabbitMQ to say and to hear, on the same table."""
    urls = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    gateway, pusher, recorder = (
        stack.enter_context(rooms.running(name, **urls)) for name in ("gateway", "pusher", "recorder")
    )
    recorder.started()
    return Room("over RabbitMQ", gateway.address(), pusher.address(), database_url, {})


async def _fill(database_url: str) -> Filled:
    connection = await asyncpg.connect(database_url)
    try:
        begun = time.monotonic()
        await connection.execute("SET session_replication_role = replica")  # rows before their threads
        for moment in range(0, ROWS // ROWS_A_MOMENT, MOMENTS_AT_ONCE):
            say(f"filling the table: {moment * ROWS_A_MOMENT} of {ROWS} rows")
            await connection.execute(FILL, moment, min(moment + MOMENTS_AT_ONCE, ROWS // ROWS_A_MOMENT))
        await connection.execute(FILL_FATES, RESUMES, FATES_HEAD)
        await connection.execute(
            "INSERT INTO threads (thread_id, head) SELECT thread_id, max(greatest(seq, rev)) FROM dialogue GROUP BY 1"
        )
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        seconds = time.monotonic() - begun
        heads = dict(map(tuple, await connection.fetch("SELECT thread_id, head FROM threads")))
        table = "SELECT count(*), pg_size_pretty(pg_total_relation_size('dialogue')) FROM dialogue"
        ((rows, size),) = await connection.fetch(table)
        return Filled(rows, seconds, size, await connection.fetchval("SHOW shared_buffers"), heads)
    finally:
        await connection.close()


async def _query(database_url: str, pages: list[Page], heads: dict[str, int]) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for page in pages:
            statement = await connection.prepare(query(page.query))
            page.queried = await _times(page, heads, QUERIES, partial(_fetch, statement, page))
    finally:
        await connection.close()


async def _fetch(statement: Any, page: Page, thread_id: str, cursor: dict[str, int]) -> int:
    return len(await statement.fetch(*page.arguments(thread_id, cursor)))


async def _get(http: httpx2.AsyncClient, pages: list[Page], heads: dict[str, int]) -> None:
    async def get(thread_id: str, cursor: dict[str, int]) -> int:
        answer = await http.get(f"/api/threads/{thread_id}/history", params={"limit": PAGE, **cursor})
        return answer.content.count(b'"message_id"')

    for page in pages:
        page.got = await _times(page, heads, GETS, get)


async def _times(
    page: Page, heads: dict[str, int], count: int, read: Callable[[str, dict[str, int]], Awaitable[int]]
) -> list[float]:
    """Seconds of each page, half of them of long threads, somewhere in them."""
    seconds = []
    for number in range(count):
        thread_id = f"long-{random.randrange(LONG)}" if number % 2 else f"short-{random.randrange(SHORT)}"
        cursor = page.cursor(heads[thread_id])
        begun = time.perf_counter()
        found = await read(thread_id, cursor)
        seconds.append(time.perf_counter() - begun)
        assert found == PAGE, f"{found} messages of {thread_id}, {cursor}"
    return seconds


class _Returning(WSListener):
    """A socket that waits for what it missed."""

    def __init__(self) -> None:
        self.missed = 0
        self.done = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002  # picows hands it over
        kind = frame.get_payload_as_bytes()[:32]
        self.missed += b'"new_message"' in kind or b'"fate"' in kind
        if self.missed == MISSED:
            self.done.set()


async def _resume(address: str, thread_id: str, head: int) -> float:
    """Seconds from opening a socket until it has all that it missed."""
    url = f"{address.replace('http', 'ws', 1)}/ws/chat/{thread_id}?events=all&after={head - MISSED}"
    begun = time.perf_counter()
    async with asyncio.timeout(RESUME_TIMEOUT):
        returning = _Returning()
        transport, _ = await ws_connect(lambda: returning, url)
        await returning.done.wait()
        took = time.perf_counter() - begun
        transport.disconnect()
        await transport.wait_disconnected()
    return took


class _Back(Listener):
    """One of many that come back: knows when it was live, which is when nothing more was recorded than it has."""

    def __init__(self, crowd: Crowd, thread_id: str, heads: dict[str, int]) -> None:
        super().__init__(crowd)
        self._thread_id = thread_id
        self._heads = heads
        self.last = heads[thread_id] - MISSED_TOGETHER
        self.live_at = math.inf
        self.closed = False
        self.astray = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002  # picows hands it over
        content = frame.get_payload_as_bytes()
        if not content.startswith(NEW_MESSAGE):
            return
        at = content.index(NUMBER) + len(NUMBER)
        number = int(content[at : content.index(b",", at)])
        self.astray += number != self.last + 1
        self.last = number
        if self.live_at == math.inf and self.has_all:
            self.live_at = time.perf_counter()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self.closed = True

    @property
    def has_all(self) -> bool:
        return self.last >= self._heads[self._thread_id]


async def _come_back(room: Room, thread_ids: list[str], heads: dict[str, int], rate: int) -> Herd:
    """All at once, while so many messages a second are said in each thread. Keeps the threads' heads up to date."""
    await rooms.pause(room, thread_ids)
    crowd = Crowd()
    sockets: list[_Back] = []

    async def open_one(thread_id: str) -> None:
        url = f"{room.pusher.replace('http', 'ws', 1)}/ws/chat/{thread_id}?after={heads[thread_id] - MISSED_TOGETHER}"
        sockets.append(socket := _Back(crowd, thread_id, heads))
        transport, _ = await ws_connect(lambda: socket, url, websocket_handshake_timeout=HERD_TIMEOUT)
        crowd.transports.append(transport)

    async def until_all(are: Callable[[_Back], bool]) -> None:
        with suppress(TimeoutError):  # the figures tell how many are not
            await until(lambda: all(socket.closed or are(socket) for socket in sockets), within=HERD_TIMEOUT)

    with ExitStack() as stack:
        stack.callback(_part, crowd)
        known = sum(heads[thread_id] for thread_id in thread_ids)
        with effort() as load_maker:
            async with _saying(room, thread_ids, heads, rate):
                begun = time.perf_counter()
                async with asyncio.timeout(HERD_TIMEOUT), asyncio.TaskGroup() as group:
                    for thread_id in thread_ids * (TOGETHER // len(thread_ids)):
                        group.create_task(open_one(thread_id), name=f"coming back to {thread_id}")
                await until_all(lambda socket: socket.live_at < math.inf)
        said = sum(heads[thread_id] for thread_id in thread_ids) - known
        async with Line.open(room.gateway) as line:
            for thread_id in thread_ids:
                await _say(line, thread_id, heads)
        await until_all(lambda socket: socket.has_all)
    return Herd(
        room.name,
        len(thread_ids),
        said / load_maker.seconds,
        [socket.live_at - begun for socket in sockets],
        sum(socket.has_all and not socket.closed for socket in sockets),
        len(crowd.lost),
        sum(socket.astray for socket in sockets),
        load_maker,
    )


@asynccontextmanager
async def _saying(room: Room, thread_ids: list[str], heads: dict[str, int], rate: int) -> AsyncIterator[None]:
    """Say so many messages a second in each thread inside the block, one after the other."""
    over = asyncio.Event()

    async def say_away(thread_id: str, start: float) -> None:
        begun = time.perf_counter() + start
        async with Line.open(room.gateway) as line:
            for number in count():
                await asyncio.sleep(begun + number / rate - time.perf_counter())
                if over.is_set():  # never between a message and its answer
                    return
                await _say(line, thread_id, heads)

    async with asyncio.TaskGroup() as group:
        for number, thread_id in enumerate(thread_ids if rate else ()):
            group.create_task(say_away(thread_id, number / rate / len(thread_ids)), name=f"saying in {thread_id}")
        try:
            yield
        finally:
            over.set()


async def _say(line: Line, thread_id: str, heads: dict[str, int]) -> None:
    await line.post(thread_id, "What did I miss while I was away?")
    heads[thread_id] += 1


def _part(crowd: Crowd) -> None:
    crowd.leaving = True
    for transport in crowd.transports:
        transport.disconnect()


def _report(filled: Filled, pages: list[Page], checks: list[float], resumes: list[Resumes], herds: list[Herd]) -> str:
    return f"""\
## A page of {PAGE} messages, of {filled.rows:,} rows

| page | in the database, median | p99 | aim for p99 | `GET` of it, median | p99 |
|---|---:|---:|---:|---:|---:|
{_page_rows(pages)}

Filling took {filled.seconds:.0f} s, `VACUUM ANALYZE` included: {len(filled.heads):,} threads, {LONG} of them long, with
{filled.heads["long-0"]:,} messages each. They were said in turns, so that a thread lies scattered over the table, which
has {filled.table} with its indexes; PostgreSQL itself keeps {filled.cache} in memory, and the system what it can. Each
kind of page was asked for {QUERIES} times in the database and {GETS} times over HTTP, half of them of long threads,
`before` and `after` anywhere in them. In the database is the room's own query, prepared, from asking for it to having
its rows, over the server's socket: its execution and the client's decoding. `GET` is over one connection, of a room in
one process; `GET /healthz` took {ms(statistics.median(checks))} meanwhile.

## Coming back after {MISSED} missed events

| | to | from opening the socket to the last event, median | p90 | aim for the median |
|---|---|---:|---:|---:|
{_resume_rows(resumes)}

A socket opened with `?events=all&after=…`, {RESUMES} times each, one after the other and always to another thread, of
which the pusher has not heard yet. Of the {MISSED} events {MISSED // 5} are fates where it says so; the others are
messages, of which four in five are answered by the fifth. Over RabbitMQ is a pusher of its own on the same table.

## {TOGETHER:,} sockets that come back at once

| | threads | said a second | until live, median | last | aim | live in the end | closed | astray | load maker |
|---|---:|---:|---:|---:|---|---:|---:|---:|---:|
{_herd_rows(herds)}

All begin to open at once, each with the `after` of {MISSED_TOGETHER} messages ago, in threads of which the pusher has
not heard yet. The time is from when the first begins, opening included; a socket is live when it has the newest message
that is recorded in its thread just then. In more threads than one {HERDS[-1][1]} messages a second are said in each,
from when the first socket begins until the last is live, by `POST /api/chat` with `Prefer: respond-async`: one after
the other, so fewer where answers take longer. Then one more is said in each thread: a socket is live in the end if it
has that too. Closed are those that the room closed, which do not come once more here. Astray are frames that came to a
socket out of their turn: after a gap, or again. Over RabbitMQ are a gateway, a recorder and a pusher, on the same
table. {_limit(herds)}"""


def _page_rows(pages: list[Page]) -> str:
    return "\n".join(
        f"| {page.name} | {ms(statistics.median(page.queried))} | {ms(_p99(page.queried))} "
        f"| at most {ms(MOST_QUERY)}: {_verdict(_p99(page.queried), MOST_QUERY)} "
        f"| {ms(statistics.median(page.got))} | {ms(_p99(page.got))} |"
        for page in pages
    )


def _resume_rows(resumes: list[Resumes]) -> str:
    return "\n".join(
        f"| {one.room} | {one.kind} | {ms(statistics.median(one.seconds))} | {ms(rooms.p90(one.seconds))} "
        f"| at most {ms(MOST_RESUME)}: {_verdict(statistics.median(one.seconds), MOST_RESUME)} |"
        for one in resumes
    )


def _herd_rows(herds: list[Herd]) -> str:
    return "\n".join(
        f"| {one.room} | {one.threads} | {one.said:,.0f} "
        f"| {_time(statistics.median(one.seconds))} | {_time(max(one.seconds))} | no aim "
        f"| {one.live:,} of {len(one.seconds):,} | {one.closed:,} | {one.astray:,} | {one.load_maker.share:.0%} |"
        for one in herds
    )


def _time(seconds: float) -> str:
    return ms(seconds) if seconds < math.inf else "never"


def _limit(herds: list[Herd]) -> str:
    if any(one.load_maker.limiting for one in herds):
        return f"**Where the load maker took {BUSY:.0%} of a core or more, it was the limit.**"
    return "The load maker was never the limit."


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def _verdict(seconds: float, most: float) -> str:
    return "met" if seconds <= most else "missed"


if __name__ == "__main__":
    rooms.run("History and coming back", _measure)
