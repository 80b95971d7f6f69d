"""``python -m bench.fanout``: what it costs to push a message to a thousand sockets of one thread.

The pusher is fed announcements of messages that are in the table, and takes turns with the predecessor's design, with
uvicorn's sockets alone, and with the limit: nothing but writes.
"""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from uuid_utils.compat import uuid7

from bench import cpu, rooms
from bench.bare import SAID, Bare, bare
from bench.listeners import BUSY, PATIENCE, Crowd, Effort, effort, listening
from bench.posting import Line
from bench.predecessor import Predecessor, predecessor
from bench.rooms import say
from m3 import topology
from m3.bus import Bus, open_bus
from m3.events import MessageAccepted, MessageRecorded, encode_within
from m3.store import Store, open_store

ROUNDS = 3
SOCKETS = 1000
#: Messages at a time, the next when every socket has those before: and of one measure.
PACES = {1: 200, 4: 800, 16: 1600}
#: Messages at once, and bursts of one measure.
BURST = 2000
BURSTS = 3
#: Messages of one measure of what takes that much longer: singly, and at once.
FEW = 200
#: Seconds from the last socket's welcome.
REST = 1.0
#: Bytes of an announcement, and messages of a transaction, as the recorder has them.
BODY = 256 * 1024
BATCH = 500

OLD = "predecessor's design"
BARE = "uvicorn's sockets alone"
PUSHER = "pusher"
LIMIT = "nothing but writes"

TIMES_OLD = 10.0
OF_LIMIT = 0.5

#: Has so many messages pushed to every socket.
Tell = Callable[[int], Awaitable[None]]


@dataclass
class Push:
    """What it took."""

    deliveries: int
    #: Of processor time, of the process that has the sockets.
    cpu: float
    #: Calls to write of that process, and their bytes.
    writes: int
    bytes: int
    load_maker: Effort

    @property
    def per_second(self) -> float:
        return self.deliveries / self.load_maker.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.deliveries / self.cpu

    @property
    def frames_a_write(self) -> float:
        return self.deliveries / self.writes


#: By server and messages at a time, where BURST stands for a burst of any length.
Pushes = dict[tuple[str, int], list[Push]]


async def _measure(folder: Path, broker_url: str) -> str:
    pushes: Pushes = defaultdict(list)
    async with AsyncExitStack() as stack:
        embedded, rabbitmq = await stack.enter_async_context(rooms.both(folder, broker_url))
        bus = await stack.enter_async_context(open_bus(broker_url))
        store = await stack.enter_async_context(open_store(rabbitmq.database_url, pool_size=1))
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE))
        for number in range(ROUNDS):
            thread_id = f"fan-out-{number}"
            say(f"round {number + 1}: {OLD}")
            with predecessor(folder / f"predecessor-{number}") as old:
                await _few(pushes, OLD, old, thread_id, http)
            say(f"round {number + 1}: {BARE}")
            with bare("sockets") as sockets:
                await _few(pushes, BARE, sockets, thread_id, http)
            say(f"round {number + 1}: {PUSHER}")
            await _fed(pushes, rabbitmq, thread_id, bus, store)
            say(f"round {number + 1}: {LIMIT}")
            with bare("writes") as writes:
                await _limit(pushes, writes, thread_id, http)
            for room, server in ((embedded, "m3 up"), (rabbitmq, "m3 pusher")):
                say(f"round {number + 1}: {room.name}, posted")
                await _posted(pushes, room, server, f"posted-{number}")
        return _report(pushes)


async def _few(pushes: Pushes, name: str, server: Predecessor | Bare, thread_id: str, http: httpx2.AsyncClient) -> None:
    async def tell(count: int) -> None:
        said = {"message": SAID, "thread_id": thread_id}
        (await http.post(f"{server.address}/burst?count={count}", json=said)).raise_for_status()

    async with _opened(server.address, thread_id) as crowd:
        for at_a_time, pace in ((1, 1), (FEW, BURST)):
            pushes[name, pace].append(await _push(crowd, server.pid, FEW, at_a_time, tell))


async def _fed(pushes: Pushes, room: rooms.Room, thread_id: str, bus: Bus, store: Store) -> None:
    """Announce to the pusher what is recorded past the bus, as replies, which no agent answers."""
    recorded: list[MessageRecorded] = []

    async def tell(count: int) -> None:
        for body in encode_within(recorded[:count], BODY):
            await bus.publish(topology.announced("assistant", thread_id), body)
        del recorded[:count]

    async with _opened(room.pusher, thread_id) as crowd:
        for at_a_time, count in (*PACES.items(), (BURST, BURSTS * BURST)):
            recorded += await _record(store, thread_id, count)
            pid = room.servers["m3 pusher"]
            pushes[PUSHER, at_a_time].append(await _push(crowd, pid, count, at_a_time, tell))


async def _limit(pushes: Pushes, server: Bare, thread_id: str, http: httpx2.AsyncClient) -> None:
    """As many frames a write as the pusher had."""
    async with _opened(server.address, thread_id) as crowd:
        for at_a_time, count in (*PACES.items(), (BURST, BURSTS * BURST)):
            at_once = min(at_a_time, max(1, round(pushes[PUSHER, at_a_time][-1].frames_a_write)))

            async def tell(count: int, at_once: int = at_once) -> None:
                (await http.post(f"{server.address}/burst?count={count}&at_once={at_once}")).raise_for_status()

            whole = at_a_time // at_once * at_once
            pushes[LIMIT, at_a_time].append(await _push(crowd, server.pid, count // at_a_time * whole, whole, tell))


async def _posted(pushes: Pushes, room: rooms.Room, server: str, thread_id: str) -> None:
    """Post a burst to the whole room."""

    async def tell(count: int) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(count // BATCH):
                line = await stack.enter_async_context(Line.open(room.gateway))
                group.create_task(line.post_batch(thread_id, [SAID] * BATCH), name="batch")

    await rooms.pause(room, [thread_id])
    async with _opened(room.pusher, thread_id) as crowd:
        pushes[room.name, BURST].append(await _push(crowd, room.servers[server], BURSTS * BURST, BURST, tell))


@asynccontextmanager
async def _opened(address: str, thread_id: str) -> AsyncIterator[Crowd]:
    async with listening(address, [thread_id] * SOCKETS) as crowd:
        await asyncio.sleep(REST)
        yield crowd


async def _push(crowd: Crowd, pid: int, count: int, at_a_time: int, tell: Tell) -> Push:
    used, (writes, size) = _cpu(pid), _written(pid)
    with effort() as load_maker:
        for _ in range(count // at_a_time):
            await tell(at_a_time)
            await crowd.hear(at_a_time * SOCKETS)
    writes_then, size_then = _written(pid)
    return Push(count * SOCKETS, _cpu(pid) - used, writes_then - writes, size_then - size, load_maker)


async def _record(store: Store, thread_id: str, count: int) -> list[MessageRecorded]:
    """So many messages into the table."""
    recorded: list[MessageRecorded] = []
    said = MessageAccepted(thread_id=thread_id, source="assistant", content=SAID, interface="http_api", origin="bench")
    for _ in range(count // BATCH + 1):
        batch = [said.model_copy(update={"message_id": uuid7()}) for _ in range(min(BATCH, count - len(recorded)))]
        messages = (await store.record(batch)).messages
        recorded += [MessageRecorded(message=messages[event.message_id]) for event in batch]
    return recorded


def _cpu(pid: int) -> float:
    return cpu.seconds({"server": pid})["server"]


def _written(pid: int) -> tuple[int, int]:
    """Calls to write of a process so far, and their bytes."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    counts = {name: int(count) for name, _, count in (line.partition(": ") for line in lines)}
    return counts["syscw"], counts["wchar"]


def _report(pushes: Pushes) -> str:
    return f"""\
## {SOCKETS:,} sockets of one thread

| messages at a time | | deliveries a CPU second | deliveries a second | frames a write | bytes a write | load maker |
|---|---|---:|---:|---:|---:|---:|
{_rows(pushes, (OLD, BARE, PUSHER, LIMIT))}

| deliveries a CPU second | messages at a time | times | aim |
|---|---|---:|---:|
{_ratio_rows(pushes)}

Medians of {ROUNDS} rounds, and in brackets the least and the most; times are of the same round. A delivery is one
message to one socket. CPU is utime and stime from `/proc` of the process that has the sockets; its writes and their
bytes are what Linux counts in `/proc/<pid>/io`. Each opens {SOCKETS:,} sockets in its turn. "At a time": the next are
told when every socket has those before, {_counts()} in all; a burst is {BURST:,} at once, {BURSTS} times, and {FEW}
once for the two that are slow.

- {PUSHER}: a process of its own over RabbitMQ. It is announced messages that are in the table, and hearing of them is
  part of its CPU.
- {OLD}: `bench/predecessor.py`, one process, with `send_json` awaited for each socket. Its frames have fewer fields.
- {BARE}: an ASGI app without a framework, with `send` awaited for each socket and the frame built before
  (`bench/bare.py`).
- {LIMIT}: a loop of `os.write` in Python over sockets without a library, of frames built before, and of as many in a
  write as the pusher had (`bench/bare.py`).

{_verdict(pushes)}

## The whole room

| {BURST:,} at once | deliveries a CPU second | deliveries a second | frames a write | bytes a write | load maker |
|---|---:|---:|---:|---:|---:|
{_room_rows(pushes)}

As many sockets and messages, but said: `POST /api/threads/{{thread_id}}/messages`, {BATCH} in a request and
{BURST // BATCH} requests at once, {BURSTS} times, to a thread whose settings are `{{"pause": "wait"}}`. The time is
from the first request to the last socket's last message, and CPU that of `m3 up`, which does all of it but the
database's part, and of `m3 pusher`."""


def _rows(pushes: Pushes, names: Iterable[str]) -> str:
    return "\n".join(
        f"| {_pace(pace)} | {name} | {_figures(pushes[name, pace])} |"
        for pace in (*PACES, BURST)
        for name in names
        if (name, pace) in pushes
    )


def _room_rows(pushes: Pushes) -> str:
    servers = {"embedded": "embedded: m3 up", "over RabbitMQ": "over RabbitMQ: m3 pusher"}
    return "\n".join(f"| {server} | {_figures(pushes[name, BURST])} |" for name, server in servers.items())


def _figures(some: list[Push]) -> str:
    return " | ".join(
        [
            rooms.spread([push.per_cpu_second for push in some]),
            f"{statistics.median(push.per_second for push in some):,.0f}",
            f"{statistics.median(push.frames_a_write for push in some):,.1f}",
            f"{statistics.median(push.bytes / push.writes for push in some):,.0f}",
            f"{statistics.median(push.load_maker.share for push in some):.0%}",
        ]
    )


def _ratio_rows(pushes: Pushes) -> str:
    rows = [_ratio_row(pushes, LIMIT, pace, "of", OF_LIMIT) for pace in (*PACES, BURST)]
    rows += [_ratio_row(pushes, OLD, 1, "to"), _ratio_row(pushes, OLD, BURST, "to", TIMES_OLD)]
    rows += [_ratio_row(pushes, BARE, pace, "to") for pace in (1, BURST)]
    return "\n".join(rows)


def _ratio_row(pushes: Pushes, other: str, pace: int, how: str, aim: float | None = None) -> str:
    ratios = [
        own.per_cpu_second / theirs.per_cpu_second
        for own, theirs in zip(pushes[PUSHER, pace], pushes[other, pace], strict=True)
    ]
    verdict = "met" if aim is not None and statistics.median(ratios) >= aim else "missed"
    wanted = "no aim" if aim is None else f"at least {aim:g}: {verdict}"
    return f"| {PUSHER} {how} {other} | {_pace(pace)} | {rooms.spread(ratios, '.2f')} | {wanted} |"


def _pace(pace: int) -> str:
    return "a burst" if pace == BURST else str(pace)


def _counts() -> str:
    return ", ".join(f"{count:,}" for count in PACES.values())


def _verdict(pushes: Pushes) -> str:
    limited = sorted({name for (name, _), some in pushes.items() if any(push.load_maker.limiting for push in some)})
    if not limited:
        return "The load maker, on picows, was never the limit."
    return (
        f"**Where the load maker, on picows, took {BUSY:.0%} of a core or more ({', '.join(limited)}), deliveries a "
        "second are its own limit; deliveries a CPU second are the server's all the same.**"
    )


if __name__ == "__main__":
    rooms.run("Fan-out", _measure)
