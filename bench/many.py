"""``python -m bench.many``: what five thousand sockets in as many threads cost, and how fast others come and go."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import PublishError

from bench import cpu, rooms
from bench.listeners import BUSY, OPENED_AT_ONCE, Effort, allow_files, effort, listening, part, visit
from bench.rooms import ms, say
from m3 import topology
from m3.bus import open_bus
from m3.events import encode
from m3.settings import Settings
from tests.support.until import until

SOCKETS = 5000
#: Seconds from the last welcome to the look at the memory, in which the servers put away what opening took.
REST = 10.0
#: Threads that are opened one after the other; likewise bindings of a queue.
BINDS = 500
#: Seconds in which sockets of new threads are opened and closed, and how many side by side.
CHURN = 20.0
VISITORS = 32
#: Threads that are asked after at once, seconds between two looks at those that are bound, and seconds for all: a
#: broker may well take 2 ms to unbind one, and one after the other.
ASKED_AT_ONCE = 500
LOOK_INTERVAL = 1.0
PATIENCE = 120.0

#: Seconds for which a thread without sockets stays bound, at least; at most twice as long.
LINGER = float(Settings.model_fields["linger"].default)

KIB = 1024
MOST_MEMORY = 32 * KIB
MOST_SECONDS = 0.005


@dataclass
class Measured:
    """What was measured of a room."""

    name: str
    opening: Effort
    #: Of each server: before there were sockets, with them, and when others had come and gone.
    memory: list[dict[str, cpu.Memory]]
    #: Seconds from opening a socket to its welcome, in a new thread and in one that is heard already.
    new: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    visiting: Effort = field(default_factory=Effort)
    visits: int = 0

    @property
    def shared_out(self) -> bool:
        """Whether that is known of all servers' memory."""
        return all(one.proportional is not None for look in self.memory for one in look.values())

    def growth(self, look: int) -> dict[str, float]:
        """Of each server until then, in bytes a connection."""
        before, then = self.memory[0], self.memory[look]
        return {name: (self._bytes(then[name]) - self._bytes(before[name])) / SOCKETS for name in before}

    def _bytes(self, one: cpu.Memory) -> int:
        return one.proportional if self.shared_out and one.proportional is not None else one.resident


@dataclass
class Bindings:
    """What was measured at the broker."""

    #: Seconds of each.
    bind: list[float]
    unbind: list[float]
    #: Threads that had sockets, how many were not yet seen unbound in the end, and the seconds until then.
    threads: int = 0
    left: int = 0
    until_left: float = 0.0


async def _measure(folder: Path, broker_url: str) -> str:
    if not cpu.MEASURABLE:
        sys.exit("What a process takes is read from Linux's /proc.")
    allow_files(2 * SOCKETS)
    many = [f"many-{number}" for number in range(SOCKETS)]
    with rooms.embedded(folder / "embedded") as room:
        async with _opened(room, many) as embedded:
            await _open_and_visit(room, embedded)
    async with rooms.over_rabbitmq(folder / "rabbitmq", broker_url) as room:
        async with _opened(room, many) as rabbitmq:
            bindings = await _bindings(broker_url)
            visited = await _open_and_visit(room, rabbitmq)
        await _see_unbound(bindings, broker_url, [*many, *visited])
    return _report([embedded, rabbitmq], bindings)


@asynccontextmanager
async def _opened(room: rooms.Room, thread_ids: list[str]) -> AsyncIterator[Measured]:
    say(f"{room.name}: {SOCKETS} sockets in as many threads")
    before = cpu.memory(room.servers)
    async with AsyncExitStack() as stack:
        with effort() as opening:
            await stack.enter_async_context(listening(room.pusher, thread_ids))
        await asyncio.sleep(REST)
        yield Measured(room.name, opening, [before, cpu.memory(room.servers)])


async def _open_and_visit(room: rooms.Room, measured: Measured) -> list[str]:
    """The threads that were visited."""
    say(f"{room.name}: opening one after the other")
    new = [f"new-{number}" for number in range(BINDS)]
    measured.known = [await _open(room, f"many-{number}") for number in range(BINDS)]
    measured.new = [await _open(room, thread_id) for thread_id in new]
    say(f"{room.name}: coming and going, {CHURN:g} s")
    with effort() as measured.visiting:
        visited = await _come_and_go(room)
    measured.visits = len(visited)
    await asyncio.sleep(REST + 2 * LINGER)
    measured.memory.append(cpu.memory(room.servers))
    return new + visited


async def _open(room: rooms.Room, thread_id: str) -> float:
    """Seconds until the welcome."""
    begun = time.perf_counter()
    transport = await visit(room.pusher, thread_id)
    seconds = time.perf_counter() - begun
    await part(transport)
    return seconds


async def _come_and_go(room: rooms.Room) -> list[str]:
    """The threads that had a socket."""
    end = time.perf_counter() + CHURN
    names = (f"visited-{number}" for number in count())
    visited = []

    async def visitor() -> None:
        while time.perf_counter() < end:
            thread_id = next(names)
            visited.append(thread_id)
            await part(await visit(room.pusher, thread_id))

    async with asyncio.TaskGroup() as group:
        for number in range(VISITORS):
            group.create_task(visitor(), name=f"visitor {number}")
    return visited


async def _bindings(broker_url: str) -> Bindings:
    say("bindings of a queue")
    bindings = Bindings([], [])
    async with open_bus(broker_url) as bus:
        await until(lambda: bus.connected)  # a binding from before is kept for then
        async with bus.subscribe("bench") as subscription:
            for number in range(BINDS):
                key = topology.every_lane(f"bound-{number}")
                begun = time.perf_counter()
                await subscription.bind(topology.CHAT_OUT, key)
                bound = time.perf_counter()
                await subscription.unbind(topology.CHAT_OUT, key)
                bindings.bind.append(bound - begun)
                bindings.unbind.append(time.perf_counter() - bound)
    return bindings


async def _see_unbound(bindings: Bindings, broker_url: str, thread_ids: list[str]) -> None:
    """Wait until no thread is bound, as long as that may take."""
    say(f"what is left of {len(thread_ids)} threads")
    begun, left = time.perf_counter(), dict.fromkeys(thread_ids)
    with suppress(TimeoutError):  # the figures tell what is left
        async with (
            asyncio.timeout(PATIENCE),
            await aio_pika.connect(broker_url) as connection,
            connection.channel(on_return_raises=True) as channel,
        ):
            chat_out = await channel.get_exchange(topology.CHAT_OUT.name, ensure=False)
            while left:
                asked = tuple(left)
                for start in range(0, len(asked), ASKED_AT_ONCE):
                    some = asked[start : start + ASKED_AT_ONCE]
                    answers = await asyncio.gather(*(_bound(chat_out, thread_id) for thread_id in some))
                    for thread_id, bound in zip(some, answers, strict=True):
                        if not bound:
                            del left[thread_id]
                await asyncio.sleep(LOOK_INTERVAL)
    bindings.threads, bindings.left, bindings.until_left = len(thread_ids), len(left), time.perf_counter() - begun


async def _bound(chat_out: AbstractExchange, thread_id: str) -> bool:
    """Whether a queue is: the broker takes back what nobody would hear."""
    try:
        await chat_out.publish(aio_pika.Message(encode([])), topology.changed(thread_id).key, mandatory=True)
    except PublishError:
        return False
    return True


def _report(measured: list[Measured], bindings: Bindings) -> str:
    return f"""\
## What {SOCKETS:,} sockets in {SOCKETS:,} threads cost

| | KiB a connection, all in | aim | of it | memory | all open in | sockets a second | load maker |
|---|---:|---:|---|---|---:|---:|---:|
{_cost_rows(measured)}

| when others had come and gone | KiB a connection, all in | of it |
|---|---:|---|
{_after_rows(measured)}

All in is every server of the room: what they have more of the memory than before the first socket, {REST:g} s after the
last one's welcome. A broker is counted where it was started for this measure. Memory is shared out (`Pss`), where a
page that several processes have counts for each in part, or resident, where the system does not tell that of all
servers. What the system itself takes for a socket, at either end, is no process's and not in it. {OPENED_AT_ONCE}
sockets at a time are being opened. The second look is at the same sockets, after the visits below.

## How fast one opens

| | median | p99 | aim for the p99 |
|---|---:|---:|---:|
{_opening_rows(measured)}
| RabbitMQ: bind alone | {ms(statistics.median(bindings.bind))} | {ms(_p99(bindings.bind))} | {_bind_aim(bindings)} |
| RabbitMQ: unbind alone | {ms(statistics.median(bindings.unbind))} | {ms(_p99(bindings.unbind))} | |

{BINDS} sockets, one after the other, beside the {SOCKETS:,} that rest: from connecting to the welcome. A thread that is
new to the pusher is bound and its last number read first. A bind alone is one of a queue of the load maker's, from the
command to the broker's answer, at a broker that has the {SOCKETS:,} bindings too.

## Coming and going

| | visits a second | load maker |
|---|---:|---:|
{_visit_rows(measured)}

{VISITORS} visitors side by side, beside the {SOCKETS:,} sockets, for {CHURN:g} s: each opens a socket of a new thread,
waits for its welcome, closes it, waits until it is closed, and comes again. A thread without sockets stays bound for
{LINGER:g} to {2 * LINGER:g} s (`LINGER`), and then all are unbound one after the other. When all was closed RabbitMQ
was asked for each of the {bindings.threads:,} threads until none was bound or {PATIENCE:g} s were over: after
{bindings.until_left:.0f} s {bindings.left:,} were left.

{_verdict(measured)}"""


def _cost_rows(measured: list[Measured]) -> str:
    rows = []
    for one in measured:
        grown, parts = _growth(one, 1)
        rows.append(
            f"| {one.name} | {grown / KIB:.1f} "
            f"| at most {MOST_MEMORY / KIB:g}: {'met' if grown <= MOST_MEMORY else 'missed'} | {parts} "
            f"| {'shared out' if one.shared_out else 'resident'} | {one.opening.seconds:.1f} s "
            f"| {SOCKETS / one.opening.seconds:,.0f} | {one.opening.share:.0%} |"
        )
    return "\n".join(rows)


def _after_rows(measured: list[Measured]) -> str:
    each = ((one.name, *_growth(one, 2)) for one in measured)
    return "\n".join(f"| {name} | {grown / KIB:.1f} | {parts} |" for name, grown, parts in each)


def _growth(one: Measured, look: int) -> tuple[float, str]:
    """Of all servers until then, in bytes a connection, and what each has of it."""
    growth = one.growth(look)
    return sum(growth.values()), ", ".join(f"{name} {part / KIB:z.1f}" for name, part in growth.items())


def _opening_rows(measured: list[Measured]) -> str:
    return "\n".join(
        f"| {one.name}: socket of {kind} thread | {ms(statistics.median(times))} | {ms(_p99(times))} | |"
        for one in measured
        for kind, times in (("a known", one.known), ("a new", one.new))
    )


def _bind_aim(bindings: Bindings) -> str:
    return f"less than {ms(MOST_SECONDS)}: {'met' if _p99(bindings.bind) < MOST_SECONDS else 'missed'}"


def _visit_rows(measured: list[Measured]) -> str:
    return "\n".join(
        f"| {one.name} | {one.visits / one.visiting.seconds:,.0f} | {one.visiting.share:.0%} |" for one in measured
    )


def _verdict(measured: list[Measured]) -> str:
    if any(done.limiting for one in measured for done in (one.opening, one.visiting)):
        return f"**Where the load maker took {BUSY:.0%} of a core or more, it was the limit.**"
    return "The load maker was never the limit."


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


if __name__ == "__main__":
    rooms.run("Many threads", _measure)
