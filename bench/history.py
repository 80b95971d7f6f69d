"""``python -m bench.history``: how long a page of history and a missed thousand take, in a table of ten million rows.

``ROWS=2000000`` in the environment makes the table smaller, for trying.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from picows import WSFrame, WSListener, WSTransport, ws_connect

from bench import rooms
from bench.rooms import ms, say
from m3.store.postgres import END
from m3.store.sql import query
from tests.support.client import client

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


async def _measure(folder: Path, broker_url: str) -> str:
    async with AsyncExitStack() as stack:
        room = stack.enter_context(rooms.embedded(folder))
        urls = {"BROKER_URL": broker_url, "DATABASE_URL": room.database_url}
        pusher = stack.enter_context(rooms.running("pusher", **urls)).address()
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
        resumes = []
        for name, address in ((room.name, room.pusher), ("over RabbitMQ", pusher)):
            for kind, threads in (("messages", "short"), ("messages and fates", "fates")):
                say(f"coming back {name}, to {kind}")
                ids = [f"{threads}-{number}" for number in range(RESUMES)]
                seconds = [await _resume(address, thread_id, filled.heads[thread_id]) for thread_id in ids]
                resumes.append(Resumes(name, kind, seconds))
        return _report(filled, pages, checks, resumes)


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


def _report(filled: Filled, pages: list[Page], checks: list[float], resumes: list[Resumes]) -> str:
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
messages, of which four in five are answered by the fifth. Over RabbitMQ is a pusher of its own on the same table."""


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


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def _verdict(seconds: float, most: float) -> str:
    return "met" if seconds <= most else "missed"


if __name__ == "__main__":
    rooms.run("History and coming back", _measure)
