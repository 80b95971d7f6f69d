"""``python -m bench.idle``: what the processes of a room that rests take of processor and memory."""

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import lcm
from pathlib import Path

from bench import cpu, rooms
from bench.listeners import listening
from bench.model import Model
from bench.rooms import say
from m3.settings import Settings
from tests.support.client import client, post

SOCKETS = 100
THREADS = 20
#: Messages that each thread has a reply to before the rest, so that nothing is left that is made with the first.
POSTS = 5
#: Seconds in which the rooms finish what they were at.
REST = 10.0
#: Seconds of one measure of CPU use: a multiple of the times between an agent's sweeps and between a socket's pings,
#: so that it holds as many of both wherever it begins.
WINDOW = lcm(*(int(Settings.model_fields[name].default) for name in ("sweep_interval", "ping_interval")))

#: Of all services of a room together: % of one core, and bytes.
MOST_CPU = 1.0
MOST_MEMORY = 350 * 1024**2


@dataclass
class Rest:
    """A room at rest, by server: CPU use in % of one core, and what it has of the memory."""

    shares: dict[str, float]
    memory: dict[str, cpu.Memory]


@dataclass
class Total:
    """Of several servers, or of one: without sockets and with them, and the memory with them."""

    alone: float
    listened_to: float
    resident: int
    #: None where it cannot be read.
    proportional: int | None


async def _measure(folder: Path, broker_url: str) -> str:
    if not cpu.MEASURABLE:
        sys.exit("What a process takes is read from Linux's /proc.")
    model = Model()
    async with AsyncExitStack() as stack:
        llm_base_url = await stack.enter_async_context(model.listening())
        opened = await stack.enter_async_context(rooms.both(folder, broker_url, LLM_BASE_URL=llm_base_url))
        for room in opened:
            await _talk(room)
        say(f"watching the rooms rest, {2 * (REST + WINDOW):g} s")
        alone = await _watch(opened)
        for room in opened:
            await stack.enter_async_context(listening(room.pusher, [_thread(number) for number in range(SOCKETS)]))
        return _report(opened, alone, await _watch(opened))


async def _talk(room: rooms.Room) -> None:
    async with client(room.gateway) as http:
        for number in range(POSTS * THREADS):
            await post(http, "Are you there?", thread_id=_thread(number))


async def _watch(opened: list[rooms.Room]) -> list[Rest]:
    await asyncio.sleep(REST)
    shares = await asyncio.gather(*(cpu.shares(room.servers, WINDOW) for room in opened))
    return [Rest(share, cpu.memory(room.servers)) for room, share in zip(opened, shares, strict=True)]


def _thread(number: int) -> str:
    return f"thread-{number % THREADS}"


def _report(opened: list[rooms.Room], alone: list[Rest], listened_to: list[Rest]) -> str:
    rests = list(zip(opened, alone, listened_to, strict=True))
    return f"""\
| with {SOCKETS} open sockets | CPU of the services | aim | resident memory of the services | aim |
|---|---:|---:|---:|---:|
{"".join(_aim_row(room, *both) for room, *both in rests)}
| | CPU, no sockets | CPU, {SOCKETS} sockets | memory, resident | shared out |
|---|---:|---:|---:|---:|
{"".join(_rows(room, *both) for room, *both in rests)}
CPU is in % of one core: utime and stime of each process and its descendants from `/proc/<pid>/stat`, over {WINDOW} s
that began {REST:g} s after the last message or the last opened socket, for both rooms at once. Memory is with the
sockets: resident, where a page that several processes have counts for each of them, so that no sum is too small; and
shared out (`Pss`), where it counts for each in part, here also because both rooms and the harness run the same Python.
The services are the room's own code, embedded one process with all of it. Each room has answered {POSTS * THREADS}
messages in {THREADS} threads, over which the sockets are spread. Their client answers the room's pings and is not
counted. A broker is counted where it was started for this measure, and does nothing else."""


def _aim_row(room: rooms.Room, alone: Rest, listened_to: Rest) -> str:
    total = _total(alone, listened_to, _services(room))
    use = total.listened_to
    return (
        f"| {room.name} | {use:.2f}% | at most {MOST_CPU:g}%: {_verdict(use, MOST_CPU)} "
        f"| {_mib(total.resident)} | at most {_mib(MOST_MEMORY)}: {_verdict(total.resident, MOST_MEMORY)} |\n"
    )


def _rows(room: rooms.Room, alone: Rest, listened_to: Rest) -> str:
    services = _services(room)
    some = {f"{room.name}: {name}": [name] for name in room.servers}
    some[f"**{room.name}: services**"] = services
    some[f"**{room.name}: services and PostgreSQL**"] = [*services, "PostgreSQL"]
    if "RabbitMQ" in room.servers:
        some[f"**{room.name}: all**"] = list(room.servers)
    totals = {title: _total(alone, listened_to, names) for title, names in some.items()}
    return "".join(
        f"| {title} | {total.alone:.2f} | {total.listened_to:.2f} "
        f"| {_mib(total.resident)} | {'' if total.proportional is None else _mib(total.proportional)} |\n"
        for title, total in totals.items()
    )


def _services(room: rooms.Room) -> list[str]:
    return [name for name in room.servers if name.startswith("m3 ")]


def _total(alone: Rest, listened_to: Rest, names: list[str]) -> Total:
    memory = [listened_to.memory[name] for name in names]
    shared_out = [one.proportional for one in memory if one.proportional is not None]
    return Total(
        alone=sum(alone.shares[name] for name in names),
        listened_to=sum(listened_to.shares[name] for name in names),
        resident=sum(one.resident for one in memory),
        proportional=sum(shared_out) if len(shared_out) == len(memory) else None,
    )


def _verdict(figure: float, most: float) -> str:
    return "met" if figure <= most else "missed"


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"


if __name__ == "__main__":
    rooms.run("At rest", _measure)
