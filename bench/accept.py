"""``python -m bench.accept``: how many messages a second are accepted and recorded, and how many could be at most."""

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import asyncpg
from uuid_utils.compat import uuid7

from bench import amqp, cpu, rooms, wrk
from bench.predecessor import Predecessor, predecessor
from bench.rooms import ms, say
from m3.events import MessageAccepted, encode
from m3.store.embedded import embedded_postgres
from m3.store.postgres import migrate
from m3.tasks import background
from tests.support.client import client

ROUNDS = 3
#: Senders, and the messages of each request.
CASES = ((1, 1), (16, 1), (256, 1), (1, 100), (16, 100), (256, 100), (1, 500), (16, 500))
#: What programs say is another lane, whose threads have a bound: one case, with a bound that it does not reach.
PROGRAMS = (16, 100)
API_BOUND = 10_000
#: Threads, to which the requests go in turn.
THREADS = 64
TEXT = "What is the name of this song, and who is singing it tonight?"

#: Seconds of load before what is measured, and of one measure.
WARM_UP = 2.0
WINDOW = 5.0
#: Seconds between two looks at a table that is about to be at rest, and in which it must be.
LOOK_INTERVAL = 0.5
PATIENCE = 60.0

OLD = "predecessor's design"
#: How many times the messages of the predecessor's design, singly and in batches.
AIMS = {"embedded": (4.0, 10.0), "over RabbitMQ": (2.0, 10.0)}
#: A client that takes more of a core than this may be what is measured.
BUSY = 0.9

#: Bodies of so many messages each, of which so many are unconfirmed.
BODIES = (1, 100, 500)
OUTSTANDING = 256
#: Transactions of so many rows, over so many connections.
TRANSACTIONS = (1, 500)
CONNECTIONS = 16
COLUMNS = ("thread_id", "role", "content", "source", "interface", "message_id", "seq", "rev", "origin", "fate")
INSERT = f"INSERT INTO dialogue ({', '.join(COLUMNS)}) VALUES ({', '.join(f'${n + 1}' for n in range(len(COLUMNS)))})"
RECORDED = "SELECT count(*) FROM dialogue WHERE timestamp >= to_timestamp($1) AND timestamp < to_timestamp($2)"

#: How many messages were recorded between two times.
Count = Callable[[float, float], Awaitable[int]]


@dataclass
class Target:
    """What messages are posted to."""

    name: str
    address: str
    servers: dict[str, int]
    count: Count
    source: str = "user"


@dataclass
class Usage:
    """Between two moments."""

    seconds: float
    #: Of processor time, by each server and by the client.
    servers: dict[str, float]
    client: float
    #: The part of all cores' time in which they worked.
    machine: float

    @property
    def client_share(self) -> float:
        """Of a core."""
        return self.client / self.seconds


@dataclass
class Run:
    """What came of one load."""

    #: Messages in the table, of the window and of all the load.
    recorded: int
    kept: int
    #: Messages that were answered as recorded.
    acknowledged: int
    answers: wrk.Answers
    usage: Usage

    @property
    def per_second(self) -> float:
        return self.recorded / self.usage.seconds


@dataclass
class Limit:
    """What one server does alone."""

    per_second: float
    usage: Usage


Runs = dict[tuple[str, int, int], list[Run]]
Limits = dict[tuple[str, int], list[Limit]]


async def _measure(folder: Path, broker_url: str) -> str:
    if not wrk.at_hand():
        sys.exit("no wrk: install the package wrk")
    runs: Runs = defaultdict(list)
    limits: Limits = defaultdict(list)
    async with AsyncExitStack() as stack:
        old = stack.enter_context(predecessor(folder / "predecessor"))
        opened = await stack.enter_async_context(rooms.both(folder, broker_url, API_BOUND=str(API_BOUND)))
        database_url = await stack.enter_async_context(embedded_postgres(folder / "limit"))
        await migrate(database_url)
        for room in opened:
            await _pause(room)
        batches = await _takes_batches(opened[0])
        if not batches:
            say("THE ROOM TAKES NO BATCHES: they are left out")
        cases = [case for case in CASES if batches or case[1] == 1]
        targets = [_predecessor_target(old), *map(_room_target, opened)]
        programs = [replace(target, name=f"{target.name}, programs", source="api") for target in targets[1:]]
        for number in range(ROUNDS):
            for senders, batch in cases:
                say(f"round {number + 1}: {senders} senders, {batch} messages a request")
                everybody = targets if batch == 1 else targets[1:]
                for target in [*everybody, *programs] if (senders, batch) == PROGRAMS else everybody:
                    runs[target.name, senders, batch].append(await _run(target, senders, batch))
            say(f"round {number + 1}: the servers alone")
            for batch in BODIES:
                limits["RabbitMQ", batch].append(await _broker_limit(broker_url, batch))
            for batch in TRANSACTIONS:
                limits["PostgreSQL", batch].append(await _database_limit(database_url, batch))
        return _report(runs, limits)


def _predecessor_target(old: Predecessor) -> Target:
    async def recorded(since: float, until: float) -> int:
        return old.count(since, until)

    return Target(OLD, old.address, {"its process": old.pid}, recorded)


def _room_target(room: rooms.Room) -> Target:
    async def recorded(since: float, until: float) -> int:
        ((found,),) = await rooms.rows(room.database_url, RECORDED, since, until)
        return int(found)

    return Target(room.name, room.gateway, room.servers, recorded)


async def _pause(room: rooms.Room) -> None:
    """Have the agent leave the threads alone."""
    async with client(room.gateway) as http:
        for number in range(THREADS):
            answer = await http.put(f"/api/threads/load-{number + 1}/settings", json={"pause": "wait"})
            assert answer.status_code == 200, answer.text


async def _takes_batches(room: rooms.Room) -> bool:
    async with client(room.gateway) as http:
        answer = await http.post("/api/threads/load-1/messages", json=[{"message": TEXT, "source": "user"}])
        return answer.status_code == 202


async def _run(target: Target, senders: int, batch: int) -> Run:
    begun = time.time()
    seconds = WARM_UP + WINDOW + 1
    async with wrk.load(
        target.address,
        senders=senders,
        batch=batch,
        source=target.source,
        threads=THREADS,
        text=TEXT,
        seconds=seconds,
    ) as load:
        await asyncio.sleep(WARM_UP)
        since, usage = await _window(target.servers, lambda: cpu.seconds({"wrk": load.pid})["wrk"])
        answers = await load.answers()
    return Run(
        recorded=await target.count(since, since + usage.seconds),
        kept=await _at_rest(target, begun),
        acknowledged=batch * (answers.answers - answers.refusals),
        answers=answers,
        usage=usage,
    )


async def _window(servers: dict[str, int], client: Callable[[], float]) -> tuple[float, Usage]:
    """When the window began, and what was used in it; ``client`` tells the client's processor time so far."""
    since, machine, used, client_used = time.time(), cpu.machine(), cpu.seconds(servers), client()
    await asyncio.sleep(WINDOW)
    until, machine_then, used_then, client_used_then = time.time(), cpu.machine(), cpu.seconds(servers), client()
    spent = {name: used_then[name] - used[name] for name in servers}
    return since, Usage(until - since, spent, client_used_then - client_used, cpu.share(machine, machine_then))


async def _at_rest(target: Target, since: float) -> int:
    """The messages that were recorded since then, once no more come."""
    found = -1
    async with asyncio.timeout(PATIENCE):
        while found != (found_now := await target.count(since, time.time() + 1)):
            found = found_now
            await asyncio.sleep(LOOK_INTERVAL)
    return found


async def _broker_limit(broker_url: str, batch: int) -> Limit:
    message = MessageAccepted(thread_id="load-1", source="user", content=TEXT, interface="http_api", origin="bench")
    async with amqp.traffic(broker_url, encode([message] * batch), OUTSTANDING) as traffic:
        return await _limit(lambda: batch * min(traffic.confirmed, traffic.delivered))


async def _database_limit(database_url: str, batch: int) -> Limit:
    committed = 0

    async def write(connection: asyncpg.Connection, rows: Iterator[tuple[object, ...]]) -> None:
        nonlocal committed
        insert = await connection.prepare(INSERT)
        while True:
            if batch == 1:
                await insert.fetch(*next(rows))
            else:
                some = list(islice(rows, batch))
                await connection.copy_records_to_table("dialogue", records=some, columns=COLUMNS)
            committed += batch

    async with AsyncExitStack() as stack:
        for number in range(CONNECTIONS):
            connection = await asyncpg.connect(database_url)
            stack.push_async_callback(connection.close)
            thread_id = f"limit-{batch}-{uuid7()}"
            await connection.execute("INSERT INTO threads (thread_id) VALUES ($1)", thread_id)
            writing = write(connection, map(partial(_row, thread_id), count(1)))
            await stack.enter_async_context(background(f"writer {number}", writing))
        return await _limit(lambda: committed)


def _row(thread_id: str, number: int) -> tuple[object, ...]:
    return thread_id, "user", TEXT, "user", "http_api", uuid7(), number, number, "bench", "pending"


async def _limit(done: Callable[[], int]) -> Limit:
    """What goes through by itself. The client is this process."""
    await asyncio.sleep(WARM_UP)
    before = done()
    _, usage = await _window({}, time.process_time)
    return Limit((done() - before) / usage.seconds, usage)


def _report(runs: Runs, limits: Limits) -> str:
    kept = sum(run.kept for some in runs.values() for run in some)
    acknowledged = sum(run.acknowledged for some in runs.values() for run in some)
    lost = sum(max(0, run.acknowledged - run.kept) for some in runs.values() for run in some)
    return f"""\
## Messages recorded a second

| senders | messages a request | | messages a second | times the predecessor's | aim |
|---:|---:|---|---:|---:|---:|
{_rate_rows(runs)}

Medians of {ROUNDS} rounds, and in brackets the least and the most; times are of the same round. All run at once and
are loaded in turns, for {WINDOW:g} s each after {WARM_UP:g} s that do not count; wrk shares the machine with them. A
message counts when its row is in the table, by the row's own time, which is in these seconds. The predecessor's design
(`bench/predecessor.py`) commits each message to SQLite within its request; it takes no batches, so the room's are
compared with what it takes singly from as many senders. A request is `POST /api/chat` with `Prefer: respond-async`, or
`POST /api/threads/{{thread_id}}/messages` with NDJSON; each sender posts the next when it was answered. Messages are
{len(TEXT)} characters long and said by `user`, to {THREADS} threads in turn, whose settings are `{{"pause": "wait"}}`,
so that the agent hears of them and lets them wait; or by `api`, as programs do, with a bound of {API_BOUND:,} messages
that wait in a thread (`API_BOUND`), which are counted for every request. {_batches_missing(runs)}
Acknowledged were {acknowledged} messages, recorded {kept}, some of them after their senders had been stopped;
acknowledged and not recorded: {lost}.

## What it took

| | senders | messages a request | answered in, median | p99 | not taken | CPU a message, µs | wrk | cores |
|---|---:|---:|---:|---:|---:|---|---:|---:|
{_usage_rows(runs)}

Not taken are requests that were refused, or that broke. Of wrk the share of a core, and of all cores the part of their
time in which they worked, with whatever else the machine did meanwhile and what its host took from it.
{_client_verdict("wrk", [run.usage for some in runs.values() for run in some])} CPU is utime and stime from `/proc`.

## What the servers do alone

| | messages at a time | messages a second | the room's best | … of it | client | cores |
|---|---:|---:|---:|---:|---:|---:|
{_limit_rows(runs, limits)}

RabbitMQ: persistent bodies of so many messages through a quorum queue, published with confirms, {OUTSTANDING} of them
unconfirmed at any time, consumed and acknowledged. PostgreSQL: rows in transactions of so many, by INSERT singly and by
COPY otherwise, over {CONNECTIONS} connections, with the indexes of the room. The room does both for each message, and
passes through RabbitMQ three times: in, out to the agents, and back to who asked. Their client is the harness itself.
{_client_verdict("It", [one.usage for some in limits.values() for one in some])}"""


def _rate_rows(runs: Runs) -> str:
    rows = []
    for (name, senders, batch), some in sorted(runs.items(), key=lambda item: (item[0][2], item[0][1])):
        singly = runs[OLD, senders, 1]
        ratios = [run.per_second / old.per_second for run, old in zip(some, singly, strict=True)]
        row = f"| {senders} | {batch} | {name} | {_spread([run.per_second for run in some])} "
        if name in AIMS:
            aim = AIMS[name][batch > 1]
            met = "met" if statistics.median(ratios) >= aim else "missed"
            rows.append(f"{row}| {_spread(ratios, '.1f')} | at least {aim:g}: {met} |")
        else:
            rows.append(f"{row}| | |")
    return "\n".join(rows)


def _usage_rows(runs: Runs) -> str:
    rows = []
    for (name, senders, batch), some in runs.items():
        recorded = sum(run.recorded for run in some)
        spent = {server: sum(run.usage.servers[server] for run in some) for server in some[0].usage.servers}
        servers = ", ".join(f"{server} {1e6 * seconds / recorded:.0f}" for server, seconds in spent.items())
        rows.append(
            f"| {name} | {senders} | {batch} | {ms(statistics.median(run.answers.median for run in some))} "
            f"| {ms(statistics.median(run.answers.p99 for run in some))} "
            f"| {sum(run.answers.refusals + run.answers.broken for run in some)} | {servers} "
            f"| {statistics.mean(run.usage.client_share for run in some):.0%} "
            f"| {statistics.mean(run.usage.machine for run in some):.0%} |"
        )
    return "\n".join(rows)


def _limit_rows(runs: Runs, limits: Limits) -> str:
    rows = []
    for (server, batch), some in limits.items():
        limit = statistics.median(one.per_second for one in some)
        name = "over RabbitMQ" if server == "RabbitMQ" else "embedded"
        alike = [of_case for (target, _, each), of_case in runs.items() if (target, each) == (name, batch)]
        best = max((statistics.median(run.per_second for run in of_case) for of_case in alike), default=None)
        rows.append(
            f"| {server} | {batch} | {_spread([one.per_second for one in some])} "
            f"| {'' if best is None else f'{name}, {best:.0f}'} | {'' if best is None else f'{best / limit:.0%}'} "
            f"| {statistics.mean(one.usage.client_share for one in some):.0%} "
            f"| {statistics.mean(one.usage.machine for one in some):.0%} |"
        )
    return "\n".join(rows)


def _client_verdict(client_name: str, usages: list[Usage]) -> str:
    most = max(usage.client_share for usage in usages)
    if most >= BUSY:
        return f"**{client_name} took up to {most:.0%} of a core: where it did, it is itself what was measured.**"
    return f"{client_name} took {most:.0%} of a core at most, and was never the limit by itself."


def _batches_missing(runs: Runs) -> str:
    if any(batch > 1 for _, _, batch in runs):
        return ""
    return "**This room takes no batches, so nothing is said of them.** "


def _spread(figures: list[float], form: str = ".0f") -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(figures):{form}} ({min(figures):{form}} to {max(figures):{form}})"


if __name__ == "__main__":
    rooms.run("Messages in", _measure)
