"""``python -m bench.listing``: what the list of threads costs, which every page that is seen asks for anew."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

from bench import cpu, rooms
from bench.posting import Line
from bench.rooms import ms, say
from m3.store import migrate
from m3.store.embedded import embedded_postgres
from m3.store.sql import query
from tests.support.town import KEYS, Town

THREADS = 10_000
MESSAGES_A_THREAD = 100
FILL = Path(__file__).with_name("listing.sql").read_text("utf-8")
#: Messages of each thread filled in one transaction, and seconds that each may take.
AT_ONCE = 10
PATIENCE = 300.0

#: As web/src/api.ts and web/src/threads.ts have it: threads of one request, and the seconds in which a page makes one.
PART = 500
INTERVAL = 10.0
PATH = f"/api/threads?limit={PART}"

#: Who signs in, and how many threads they are members of.
MEMBERS = {"an operator": 0, "a member of 10": 10, "a member of 1,000": 1_000, "a member of all": THREADS}

#: Of each kind: queries in the database, requests one after the other, and those before them that do not count.
TURNS = 200
WARM = 20
#: Then askers side by side, for so many seconds, so often.
ASKERS = 8
SECONDS = 3.0
ROUNDS = 4


@dataclass
class _Asked:
    """A kind of request, and what came of it; times in seconds."""

    name: str
    gateway: str
    servers: dict[str, int]
    path: str = PATH
    token: str | None = None
    #: The room's query, its arguments, and whether it is asked in the role that sees one tenant's rows alone.
    query: tuple[str, Sequence[object], bool] | None = None
    threads: int = 0
    bytes: int = 0
    queried: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    #: Of each round side by side: requests a second, and processor time that one took of each server.
    rates: list[float] = field(default_factory=list)
    costs: list[dict[str, float]] = field(default_factory=list)

    def cost(self, server: str) -> float:
        return statistics.median(cost[server] for cost in self.costs)


async def _measure(folder: Path, broker_url: str) -> str:
    async with embedded_postgres(folder) as url:
        await migrate(url)
        say(f"filling the table: {THREADS * MESSAGES_A_THREAD:,} messages in {THREADS:,} threads")
        await _fill(url)
        with ExitStack() as stack:
            urls = {"BROKER_URL": broker_url, "DATABASE_URL": url}
            open_to_all, asking = (
                stack.enter_context(rooms.running("gateway", **urls, **settings))
                for settings in ({}, {"AUTH": "required", "TOKEN_KEYS": KEYS})
            )
            postgres = {"PostgreSQL": rooms.postmaster(folder)}
            anyone = (open_to_all.address(), {"gateway": open_to_all.pid} | postgres)
            somebody = (asking.address(), {"gateway": asking.pid} | postgres)
            listed = ("threads_of_tenant", ("default", "", PART, None), False)
            kinds = [
                _Asked("`GET /healthz`", *anyone, path="/healthz"),
                _Asked("anyone, of an open room", *anyone, query=listed),
            ]
            async with Town.of(url) as town:
                for name, number in MEMBERS.items():
                    account = await town.account(f"of-{number}", operator=not number)
                    await _admit(town, account, number)
                    own = ("threads_of", ("default", account, True, "", PART), True)
                    of_tenant = ("threads_of_tenant", ("default", "", PART, account), True)
                    token = await town.signed_in(account)
                    kinds.append(_Asked(name, *somebody, token=token, query=own if number else of_tenant))
                await town.sql.execute("VACUUM ANALYZE", timeout=PATIENCE)
            say("asking the database")
            await _query(url, kinds)
            say("asking, one after the other")
            await _ask_in_turns(kinds)
            for number in range(ROUNDS):
                say(f"asking side by side, round {number + 1} of {ROUNDS}")
                for kind in kinds:
                    await _ask_side_by_side(kind)
    return _report(kinds)


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")  # rows before their threads
        for first in range(1, MESSAGES_A_THREAD + 1, AT_ONCE):
            await connection.execute(FILL, first, first + AT_ONCE - 1, THREADS, timeout=PATIENCE)
        await connection.execute(
            "INSERT INTO threads (thread_id, head) SELECT thread_id, max(seq) FROM dialogue GROUP BY 1",
            timeout=PATIENCE,
        )
    finally:
        await connection.close()


async def _admit(town: Town, account: object, number: int) -> None:
    """Have somebody be a member of so many threads, all over the list."""
    every = THREADS // number if number else THREADS + 1
    await town.sql.execute(
        "INSERT INTO members (thread_id, principal_id, role)"
        " SELECT thread_id, $1, 'member' FROM (SELECT thread_id, row_number() OVER (ORDER BY thread_id) FROM threads)"
        " AS numbered WHERE row_number % $2 = 0",
        account,
        every,
    )


async def _query(url: str, kinds: Sequence[_Asked]) -> None:
    connections = [await asyncpg.connect(url) for _ in range(2)]
    try:
        for connection, role, tenant in zip(connections, ("none", "m3_tenant"), ("", "default"), strict=True):
            await connection.execute(query("speak_for"), role, tenant)
        asked = []
        for kind in kinds:
            if kind.query:
                name, arguments, walled = kind.query
                asked.append((kind, await connections[walled].prepare(query(name)), arguments))
        for turn in range(WARM + TURNS):
            for kind, statement, arguments in asked:
                begun = time.perf_counter()
                rows = await statement.fetch(*arguments)
                if turn >= WARM:
                    kind.queried.append(time.perf_counter() - begun)
                kind.threads = len(rows)
    finally:
        for connection in connections:
            await connection.close()


async def _ask_in_turns(kinds: Sequence[_Asked]) -> None:
    for turn in range(WARM + TURNS):
        for kind in kinds:
            async with Line.open(kind.gateway) as line:
                begun = time.perf_counter()
                answer = await line.get(kind.path, kind.token)
                if turn >= WARM:
                    kind.answered.append(time.perf_counter() - begun)
            kind.bytes = len(answer)


async def _ask_side_by_side(kind: _Asked) -> None:
    before, begun = cpu.seconds(kind.servers), time.perf_counter()

    async def ask() -> int:
        async with Line.open(kind.gateway) as line:
            for number in count():
                if time.perf_counter() > begun + SECONDS:
                    return number
                await line.get(kind.path, kind.token)
        raise AssertionError("unreachable")

    answers = sum(await asyncio.gather(*(ask() for _ in range(ASKERS))))
    after = cpu.seconds(kind.servers)
    kind.rates.append(answers / (time.perf_counter() - begun))
    kind.costs.append({server: (after[server] - before[server]) / answers for server in before})


def _report(kinds: Sequence[_Asked]) -> str:
    least = kinds[0]
    return f"""\
| who asks | threads | KB | query, median | p95 | answer, median | p95 | to `/healthz` |
|---|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(_time_row(kind, least) for kind in kinds)}

| who asks | requests a second | CPU a request: gateway | PostgreSQL | to `/healthz` | pages to a core |
|---|---:|---:|---:|---:|---:|
{chr(10).join(_cost_row(kind, least) for kind in kinds)}

Of {THREADS:,} threads, in each of which {MESSAGES_A_THREAD} messages were said in turns with the others, so that a
thread lies scattered over the table; and of the one that everybody begins in. `{PATH}` is what a page asks
for. A long list takes more such requests, four at most, but a page that is only looked at makes one in {INTERVAL:g} s
on the average, and none while it is hidden. So "pages to a core" is {INTERVAL:g} s by the processor time of a request,
of gateway and database together. The query is the room's own, prepared, in the role in which the room asks it, until
all rows are there. Query and answer were asked for {TURNS} times, all kinds in turn, over connections that were
open; then {ASKERS} askers asked side by side, for {SECONDS:g} s each kind in turn, {ROUNDS} times: medians, and in
brackets the least and the most. CPU is utime and stime from `/proc`. Two gateways, one with `AUTH=open` and one with
`AUTH=required`, are processes of their own, over RabbitMQ and on the same database; askers and servers share the
machine."""


def _time_row(kind: _Asked, least: _Asked) -> str:
    query = _median_and_p95(kind.queried) if kind.queried else " | "
    times = statistics.median(kind.answered) / statistics.median(least.answered)
    size = f"{kind.threads or ''} | {kind.bytes / 1000:.1f}"
    return f"| {kind.name} | {size} | {query} | {_median_and_p95(kind.answered)} | {times:.1f} |"


def _cost_row(kind: _Asked, least: _Asked) -> str:
    gateway, postgres = kind.cost("gateway"), kind.cost("PostgreSQL")
    rest = f"{(gateway + postgres) / (least.cost('gateway') + least.cost('PostgreSQL')):.1f} | "
    pages = f"{INTERVAL / (gateway + postgres):,.0f}" if kind.queried else ""
    return f"| {kind.name} | {rooms.spread(kind.rates)} | {ms(gateway)} | {ms(postgres)} | {rest}{pages} |"


def _median_and_p95(times: Sequence[float]) -> str:
    return f"{ms(statistics.median(times))} | {ms(statistics.quantiles(times, n=20)[-1])}"


if __name__ == "__main__":
    rooms.run("The list of threads", _measure)
