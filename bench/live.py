"""``python -m bench.live``: the time from saying something to its last listener, with a thousand sockets listening."""

import asyncio
import math
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from picows import WSFrame, WSTransport

from bench import cpu, rooms
from bench.listeners import BUSY, Crowd, Effort, Listener, effort, listening
from bench.posting import Line
from bench.rooms import ms, say
from tests.support.until import until

#: Of each room, in turns.
ROUNDS = 3
THREADS = 20
#: Of each thread.
SOCKETS = 50
#: Messages of each thread a second.
RATE = 20
#: Seconds of one measure, and those before it that do not count.
SECONDS = 25
WARM_UP = 5
#: Of one measure, those that do not count included.
MESSAGES = (WARM_UP + SECONDS) * RATE * THREADS
#: Connections over which they are posted.
LINES = 64
#: Seconds from the last socket's welcome.
REST = 1.0
#: Seconds from saying the last message in which the last socket must have it.
PATIENCE = 30.0

P99 = 0.025
P999 = 0.060

#: What stands before the text in a frame, and how long the number is that it begins with.
CONTENT = b'"content":"'
DIGITS = 8


@dataclass
class Said:
    """One message."""

    #: When it was to be said, in seconds of ``time.perf_counter``, and how long it had waited for a connection.
    due: float
    late: float = 0.0
    #: When the last of its sockets had it: never, as long as one has not.
    arrived: float = math.inf
    unheard: int = SOCKETS

    @property
    def latency(self) -> float:
        return self.arrived - self.due


@dataclass
class Run:
    """What came of one measure."""

    messages: list[Said]
    #: Deliveries, the first seconds' included, that never came, and that came to a socket again.
    missing: int
    doubled: int
    load_maker: Effort
    #: The part of all cores' time in which they worked.
    machine: float
    #: Of each server, in parts of a core.
    servers: dict[str, float]

    @property
    def own_share(self) -> float:
        """The part of all cores' time that the servers and the load maker used."""
        return (sum(self.servers.values()) + self.load_maker.share) / (os.cpu_count() or 1)


async def _measure(folder: Path, broker_url: str) -> str:
    runs: dict[str, list[Run]] = defaultdict(list)
    async with rooms.both(folder, broker_url) as opened:
        for number in range(ROUNDS):
            for room in opened:
                say(f"round {number + 1} of the room {room.name}, {WARM_UP + SECONDS} s")
                runs[room.name].append(await _run(room, [f"live-{number}-{thread}" for thread in range(THREADS)]))
    return _report(runs)


async def _run(room: rooms.Room, thread_ids: list[str]) -> Run:
    messages: list[Said] = []
    doubled = 0

    class Hearing(Listener):
        """Tells which message it was sent, once."""

        def __init__(self, crowd: Crowd) -> None:
            super().__init__(crowd)
            self._heard = bytearray(MESSAGES)  # whether, by the message's number

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            nonlocal doubled
            content = frame.get_payload_as_bytes()
            at = content.find(CONTENT)
            if at < 0:  # its welcome
                super().on_ws_frame(transport, frame)
                return
            at += len(CONTENT)
            number = int(content[at : at + DIGITS])
            if self._heard[number]:
                doubled += 1
                return
            self._heard[number] = True
            said = messages[number]
            said.unheard -= 1
            if not said.unheard:
                said.arrived = time.perf_counter()

    await rooms.pause(room, thread_ids)
    async with listening(room.pusher, thread_ids * SOCKETS, Hearing) as crowd, _lines(room) as lines:
        await asyncio.sleep(REST)
        await _say(messages, thread_ids, lines, WARM_UP)
        first = len(messages)
        used, machine = cpu.seconds(room.servers), cpu.machine()
        with effort() as load_maker:
            await _say(messages, thread_ids, lines, SECONDS)
        used_then, machine_then = cpu.seconds(room.servers), cpu.machine()
        await _all_heard(messages, crowd)
    missing = sum(said.unheard for said in messages)
    servers = {name: (used_then[name] - used[name]) / load_maker.seconds for name in used}
    return Run(messages[first:], missing, doubled, load_maker, cpu.share(machine, machine_then), servers)


@asynccontextmanager
async def _lines(room: rooms.Room) -> AsyncIterator[asyncio.Queue[Line]]:
    async with AsyncExitStack() as stack:
        lines: asyncio.Queue[Line] = asyncio.Queue()  # in turn, or the server would close those that rest for 5 s
        for _ in range(LINES):
            lines.put_nowait(await stack.enter_async_context(Line.open(room.gateway)))
        yield lines


async def _say(messages: list[Said], thread_ids: list[str], lines: asyncio.Queue[Line], seconds: int) -> None:
    """Say each message at its time, whether those before it are answered or not: one in each slot of each thread, at a
    moment of its own."""
    moment_of = random.Random(seconds)  # the same moments for all
    begun = time.perf_counter()
    moments = sorted(
        ((slot + moment_of.random()) / RATE, thread_id) for slot in range(seconds * RATE) for thread_id in thread_ids
    )
    async with asyncio.TaskGroup() as group:
        for moment, thread_id in moments:
            await asyncio.sleep(begun + moment - time.perf_counter())
            said = Said(begun + moment)
            text = f"{len(messages):0{DIGITS}d} What is the name of this song, and who is singing it tonight?"
            messages.append(said)
            group.create_task(_post(said, thread_id, text, lines), name="post")


async def _post(said: Said, thread_id: str, text: str, lines: asyncio.Queue[Line]) -> None:
    line = await lines.get()
    said.late = time.perf_counter() - said.due
    await line.post(thread_id, text)
    lines.put_nowait(line)


async def _all_heard(messages: list[Said], crowd: Crowd) -> None:
    """Wait for what is still on its way. Raises ConnectionError where a socket was closed."""
    with suppress(TimeoutError):  # the figures tell what is missing
        await until(lambda: bool(crowd.lost) or not any(said.unheard for said in messages), within=PATIENCE)
    await asyncio.sleep(REST)  # what comes again comes behind
    await crowd.hear(0)


def _report(runs: dict[str, list[Run]]) -> str:
    return f"""\
| from a message's time to the last of its {SOCKETS} sockets | median | p99 | aim | p99.9 | aim | longest |
|---|---:|---:|---:|---:|---:|---:|
{_time_rows(runs)}

| | p99 of each round | p99.9 of each round | deliveries | missing | doubled |
|---|---|---|---:|---:|---:|
{_round_rows(runs)}

The aims are for the messages of all {ROUNDS} rounds together. Each socket is to be sent each message of its thread
once: missing are those that never came, doubled those that came to a socket again, warming up included.{_limit(runs)}

| | {SECONDS} s of messages said in | late, p99 | load maker | all cores at work | with these | servers, of a core |
|---|---:|---:|---:|---:|---:|---|
{_cost_rows(runs)}

{THREADS * SOCKETS:,} sockets, {SOCKETS} in each of {THREADS} threads; each thread is told {RATE} messages a second, one
at a random moment of each {1000 / RATE:g} ms, so {THREADS * RATE} messages and {THREADS * RATE * SOCKETS:,} deliveries
a second in all. {SECONDS} s to each room in turn, {ROUNDS} times, after {WARM_UP} s that do not count. A message is
`POST /api/chat` with `Prefer: respond-async`, sent at its time whether those before it are answered or not, over
whichever of {LINES} connections is free; its time begins when it is due, waiting for a connection or for the load maker
included, and ends when the last socket has it. The threads' settings are `{{"pause": "wait"}}`: the agent hears of the
messages and lets them wait. One process posts and listens, on picows, and shares the cores with all servers; both ends
of a time are of its clock. "Late": how long after its time a message was sent. The cores' work is the machine's, with
whatever else it did meanwhile; "with these" is what the servers and the load maker had of it."""


def _time_rows(runs: dict[str, list[Run]]) -> str:
    rows = []
    for name, some in runs.items():
        every = _latencies(some)
        p99, p999 = _quantile(every, 0.99), _quantile(every, 0.999)
        rows.append(
            f"| {name} | {ms(statistics.median(every))} | {ms(p99)} | at most {ms(P99)}: {_verdict(p99, P99)} "
            f"| {ms(p999)} | at most {ms(P999)}: {_verdict(p999, P999)} | {ms(every[-1])} |"
        )
    return "\n".join(rows)


def _round_rows(runs: dict[str, list[Run]]) -> str:
    rows = []
    for name, some in runs.items():
        each = [_latencies([run]) for run in some]
        p99, p999 = (", ".join(ms(_quantile(one, part)) for one in each) for part in (0.99, 0.999))
        missing, doubled = sum(run.missing for run in some), sum(run.doubled for run in some)
        deliveries = len(some) * MESSAGES * SOCKETS - missing
        rows.append(f"| {name} | {p99} | {p999} | {deliveries:,} | {missing:,} | {doubled:,} |")
    return "\n".join(rows)


def _cost_rows(runs: dict[str, list[Run]]) -> str:
    rows = []
    for name, some in runs.items():
        late = sorted(said.late for run in some for said in run.messages)
        shares = ", ".join(
            f"{server} {statistics.mean(run.servers[server] for run in some):.0%}" for server in some[0].servers
        )
        rows.append(
            f"| {name} | {statistics.mean(run.load_maker.seconds for run in some):.1f} s "
            f"| {ms(_quantile(late, 0.99))} | {statistics.mean(run.load_maker.share for run in some):.0%} "
            f"| {statistics.mean(run.machine for run in some):.0%} "
            f"| {statistics.mean(run.own_share for run in some):.0%} | {shares} |"
        )
    return "\n".join(rows)


def _limit(runs: dict[str, list[Run]]) -> str:
    if any(run.load_maker.limiting for some in runs.values() for run in some):
        return f"\n**The load maker took {BUSY:.0%} of a core or more, and was the limit.**"
    return ""


def _verdict(seconds: float, most: float) -> str:
    return "met" if seconds <= most else "missed"


def _latencies(some: list[Run]) -> list[float]:
    return sorted(said.latency for run in some for said in run.messages)


def _quantile(ordered: list[float], part: float) -> float:
    """The least of the times within which that part of them is."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


if __name__ == "__main__":
    rooms.run("Live latency", _measure)
