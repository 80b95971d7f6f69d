"""What is done to a room while it is under load: one function a fault, which returns when the fault is over."""

import asyncio
import os
import random
import socket as sockets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import aio_pika
import httpx2
from aio_pika.abc import AbstractIncomingMessage

from m3.topology import CHAT_IN, CHAT_OUT, DEAD, QUEUES
from tests.faults.load import Load
from tests.faults.model import AT_ONCE, Mood
from tests.faults.probe import Outage
from tests.faults.rig import Room, Service, now
from tests.support.broker import PrivateNode
from tests.support.database import Database
from tests.support.proxy import Proxy
from tests.support.until import until

#: Seconds between two kills.
BETWEEN_KILLS = 4.0
#: Seconds of a fault that is no outage.
WHILE = 15.0
#: A mark of copies, which are not copied again.
COPY = "x-copy"
#: Channels that send copies. Each waits for one to be written before the next.
MOUTHS = 16


@dataclass
class Scene:
    """Where a fault happens."""

    room: Room
    load: Load
    #: Multiplies every time, so that a short run is short.
    pace: float = 1.0
    #: When the fault was over, as ``now`` tells time; where a function does not say, when it returns.
    ended: float | None = None
    #: What was not as it should be meanwhile.
    wrong: list[str] = field(default_factory=list)
    #: What a person wants to know of it.
    notes: list[str] = field(default_factory=list)
    poison: list[bytes] = field(default_factory=list)
    deadly: list[bytes] = field(default_factory=list)

    @property
    def broker(self) -> PrivateNode:
        assert self.room.broker
        return self.room.broker

    @property
    def database(self) -> Database:
        assert self.room.database
        return self.room.database

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.pace)

    async def watch_outage(self, seconds: float, *missing: str, noticeable: bool = True) -> None:
        outage = Outage(self.room, missing, noticeable)
        await outage.watch(seconds * self.pace)
        self.wrong += outage.wrong
        self.notes.append(f"slowest POST {outage.slowest:.1f} s")


@dataclass(frozen=True)
class Fault:
    name: str
    sentence: str
    act: Callable[[Scene], Awaitable[None]]
    kind: Literal["cluster", "embedded"] = "cluster"
    #: How much of the load there is, where a fault makes every message dearer.
    share: float = 1.0


async def nothing(scene: Scene) -> None:
    await scene.wait(WHILE)


async def kill_services(scene: Scene, times: int = 2) -> None:
    """Each service of each kind once, so that there is always another."""
    for number in range(times):
        for command in ("recorder", "agent", "pusher", "gateway"):
            services = scene.room.of(command)
            services[number % len(services)].kill()
            scene.ended = now()
            await scene.wait(BETWEEN_KILLS)


async def kill_room(scene: Scene) -> None:
    for _ in range(3):
        await scene.wait(5)
        await scene.room.ready()
        scene.room.services[0].kill()
        scene.ended = now()


async def kill_broker(scene: Scene) -> None:
    await asyncio.to_thread(scene.broker.kill)
    await asyncio.to_thread(scene.broker.start)


async def broker_away(scene: Scene, seconds: float = 75) -> None:
    outage = Outage(scene.room, ("broker",), noticeable=True)
    async with outage.socket_stays_open():
        await asyncio.to_thread(scene.broker.kill)
        await scene.watch_outage(seconds, "broker")
        await asyncio.to_thread(scene.broker.start)
        scene.ended = now()
    scene.wrong += outage.wrong


async def restart_database(scene: Scene, mode: Literal["fast", "immediate"]) -> None:
    for _ in range(3):
        await asyncio.to_thread(scene.database.stop, mode)
        await asyncio.to_thread(scene.database.start)
        scene.ended = now()
        await scene.wait(4)


async def database_away(scene: Scene, seconds: float = 60) -> None:
    outage = Outage(scene.room, ("database",), noticeable=True)
    async with outage.socket_stays_open():
        await asyncio.to_thread(scene.database.stop, "immediate")
        await scene.watch_outage(seconds, "database")
        await asyncio.to_thread(scene.database.start)
        scene.ended = now()
    scene.wrong += outage.wrong


async def both_away(scene: Scene, seconds: float = 15) -> None:
    await asyncio.to_thread(scene.broker.kill)
    await asyncio.to_thread(scene.database.stop, "immediate")
    await scene.watch_outage(seconds, "broker", "database")
    await asyncio.to_thread(scene.database.start)
    await asyncio.to_thread(scene.broker.start)


async def freeze_service(scene: Scene, command: str, seconds: float = 60) -> None:
    service: Service = scene.room.of(command)[0]
    service.freeze(frozen=True)
    try:
        await scene.wait(seconds)
    finally:
        service.freeze(frozen=False)


async def freeze_broker(scene: Scene, seconds: float = 60) -> None:
    scene.broker.freeze(frozen=True)
    try:
        await scene.watch_outage(seconds, "broker", noticeable=False)
    finally:
        scene.broker.freeze(frozen=False)


async def freeze_database(scene: Scene, seconds: float = 60) -> None:
    scene.database.freeze(frozen=True)
    try:
        await scene.watch_outage(seconds, "database", noticeable=False)
    finally:
        scene.database.freeze(frozen=False)


def _proxy(scene: Scene, server: str) -> Proxy:
    found = scene.room.broker_proxy if server == "broker" else scene.room.database_proxy
    assert found
    return found


async def swallow(scene: Scene, server: str, seconds: float = 30) -> None:
    proxy = _proxy(scene, server)
    proxy.swallow(swallowing=True)
    try:
        await scene.watch_outage(seconds, server, noticeable=False)
    finally:
        proxy.swallow(swallowing=False)


async def reset(scene: Scene, server: str) -> None:
    for _ in range(15):
        _proxy(scene, server).cut()
        scene.ended = now()
        await scene.wait(1)


async def delay(scene: Scene, server: str) -> None:
    _proxy(scene, server).delay(0.1)
    try:
        await scene.wait(WHILE)
    finally:
        _proxy(scene, server).delay(0)


async def memory_alarm(scene: Scene) -> None:
    await asyncio.to_thread(scene.broker.ctl, "set_vm_memory_high_watermark", "absolute", "1")
    try:
        await scene.watch_outage(20, "broker", noticeable=False)
    finally:
        await asyncio.to_thread(scene.broker.ctl, "set_vm_memory_high_watermark", "0.4")


#: What no service understands. The recorder must put these aside; those whom a queue only knocks may drop them.
POISON = [
    b"",
    b"\xff\x00\xfe",
    b"not JSON",
    b"{}",
    b"[{}]",
    b'[{"type":"unheard of"}]',
    b'[{"type":"message_accepted","thread_id":"a.b.c","source":"user","content":"x","interface":"http_api","origin":""}]',
    b'[{"type":"message_recorded"}]',
    b"[" * 10_000,
    b'["' + b"x" * 2_000_000 + b'"]',
    b'[{"type":"message_accepted","thread_id":"t","source":"user","content":"\\u0000","interface":"http_api","origin":"o"}]',
]


async def poison(scene: Scene) -> None:
    """Each body to each queue, and to each key of the exchanges."""
    listed = await asyncio.to_thread(scene.broker.ctl, "list_queues", "--no-table-headers", "name")
    queues = [name.strip() for name in listed.splitlines() if name.strip()]
    private = [queue for queue in queues if queue not in {shared.name for shared in QUEUES}]
    if not private:
        scene.wrong.append("there are no private queues to poison")
    async with await aio_pika.connect(scene.broker.url) as connection, connection.channel() as channel:
        for number, body in enumerate(POISON):
            for queue in queues:
                marked = body + b" " * (number + 1) if queue == DEAD.name else body
                await channel.default_exchange.publish(_message(marked), queue)
                scene.poison.append(marked)
                if queue in {"recorder", DEAD.name}:
                    scene.deadly.append(marked)
            out = await channel.get_exchange(CHAT_OUT.name, ensure=False)
            for key in (f"user.{scene.load.threads[0]}", f"assistant.{scene.load.threads[0]}"):
                await out.publish(_message(body), key, mandatory=False)
                scene.poison.append(body)
            await scene.wait(0.2)


def _message(body: bytes) -> aio_pika.Message:
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


async def three_times(scene: Scene) -> None:
    """Every message on the bus comes two times more, late and in another order."""
    chance = random.Random(scene.load.plan.seed)
    copied = 0
    async with (
        await aio_pika.connect(scene.broker.url) as hearing,
        hearing.channel() as channel,
        await aio_pika.connect(scene.broker.url) as speaking,
        asyncio.TaskGroup() as copies,
    ):
        mouths = [await speaking.channel(publisher_confirms=False) for _ in range(MOUTHS)]
        echo = await channel.declare_queue(exclusive=True)
        await echo.bind(CHAT_IN.name)
        await echo.bind(CHAT_OUT.name, "#")

        async def copy(message: AbstractIncomingMessage) -> None:
            await asyncio.sleep(chance.uniform(0, 0.4))
            again = aio_pika.Message(message.body, headers={COPY: 1}, delivery_mode=message.delivery_mode)
            exchange = await chance.choice(mouths).get_exchange(message.exchange or "", ensure=False)
            await exchange.publish(again, message.routing_key or "", mandatory=False)

        async def hear(message: AbstractIncomingMessage) -> None:
            nonlocal copied
            if COPY not in message.headers:
                copied += 1
                for _ in range(2):
                    copies.create_task(copy(message))

        tag = await echo.consume(hear, no_ack=True)
        await scene.wait(WHILE)
        await echo.cancel(tag)
    if not copied:
        scene.wrong.append("nothing was copied")
    scene.notes.append(f"{copied} came three times")


async def delete_queues(scene: Scene) -> None:
    """The dead letters' first: nobody consumes them, so it is the loss of the others that has it declared again."""
    for queue in reversed(QUEUES):
        async with await aio_pika.connect(scene.broker.url) as connection, connection.channel() as channel:
            await channel.queue_delete(queue.name)
        scene.ended = now()
        await scene.wait(5)


async def roll(scene: Scene) -> None:
    """Restart one after the other in good order."""
    for service in scene.room.services:
        process = service.process
        service.terminate()
        await until(lambda process=process: not process.running, within=30)  # type: ignore[misc]
        scene.ended = now()
        await scene.wait(3)
        await scene.room.ready()


async def readers_who_do_not_read(scene: Scene, readers: int = 100, flood: int = 250) -> None:
    """Sockets of one thread that take nothing, while it fills with long messages."""
    thread = f"flood:{scene.load.name}"
    pids = [service.process.pid for service in scene.room.of("pusher")]
    before = [rss(pid) for pid in pids]
    async with AsyncExitStack() as stack:
        for number in range(readers):
            address = scene.room.pushers[number % len(scene.room.pushers)]
            stack.enter_context(await asyncio.to_thread(_deaf_socket, address, thread))
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=15))
        most = before
        for number in range(flood):
            body = {"thread_id": thread, "message": f"{AT_ONCE} {number} " + "x" * 12_000}
            with suppress(httpx2.HTTPError):
                gateway = scene.room.gateways[number % len(scene.room.gateways)]
                answer = await http.post(f"{gateway}/api/chat", json=body, headers={"Prefer": "respond-async"})
                if answer.status_code != 202:
                    scene.wrong.append(f"the flood got {answer.status_code} {answer.text[:200]}")
            most = [max(one, rss(pid)) for one, pid in zip(most, pids, strict=True)]
        await scene.wait(5)
    grown = max(after - one for after, one in zip(most, before, strict=True))
    scene.notes.append(f"RSS of a pusher grew by {grown / 2**20:.0f} MiB")


def _deaf_socket(address: str, thread: str) -> sockets.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    deaf = sockets.socket()
    deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    deaf.settimeout(10)
    deaf.connect((host, int(port)))
    deaf.sendall(
        f"GET /ws/chat/{thread} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert deaf.recv(12) == b"HTTP/1.1 101"
    return deaf


def rss(pid: int) -> int:
    """Resident memory of a process, in bytes; 0 where it ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def moody_model(scene: Scene) -> None:
    """It is silent past the turn's deadline, refuses, and breaks off in the middle of an answer."""
    for mood, seconds in ((Mood.SILENT, 12), (Mood.FAILING, 8), (Mood.BREAKING_OFF, 8)):
        scene.room.model.mood = mood
        await scene.wait(seconds)
    scene.room.model.mood = Mood.WELL


FAULTS = [
    Fault("none", "no fault", nothing),
    Fault("services-killed", "kill -9 of every service, one every 4 s", kill_services),
    Fault("broker-killed", "kill -9 of the broker, which comes back at once", kill_broker),
    Fault("broker-away", "kill -9 of the broker, which is away for 75 s", broker_away),
    Fault("database-fast", "3 restarts of the database, sessions ended", partial(restart_database, mode="fast")),
    Fault("database-immediate", "3 crashes of the database", partial(restart_database, mode="immediate")),
    Fault("database-away", "the database crashes and is away for 60 s", database_away),
    Fault("both-away", "broker and database crash and are away for 15 s", both_away),
    Fault("gateway-frozen", "a gateway stands still for 60 s", partial(freeze_service, command="gateway")),
    Fault("pusher-frozen", "a pusher stands still for 60 s", partial(freeze_service, command="pusher")),
    Fault("recorder-frozen", "a recorder stands still for 60 s", partial(freeze_service, command="recorder")),
    Fault("agent-frozen", "an agent stands still for 60 s", partial(freeze_service, command="agent")),
    Fault("broker-frozen", "the broker stands still for 60 s", freeze_broker),
    Fault("database-frozen", "the database stands still for 60 s", freeze_database),
    Fault("broker-swallowed", "what goes to and from the broker vanishes for 30 s", partial(swallow, server="broker")),
    Fault("broker-reset", "connections to the broker are reset, 15 times", partial(reset, server="broker")),
    Fault("broker-delayed", "the broker is 100 ms away, each way", partial(delay, server="broker")),
    Fault(
        "database-swallowed",
        "what goes to and from the database vanishes for 30 s",
        partial(swallow, server="database"),
    ),
    Fault("database-reset", "connections to the database are reset, 15 times", partial(reset, server="database")),
    Fault("database-delayed", "the database is 100 ms away, each way", partial(delay, server="database")),
    Fault("memory-alarm", "the broker is out of memory for 20 s", memory_alarm),
    Fault("poison", "bodies that nobody understands on every queue", poison),
    Fault("three-times", "every message comes three times and shuffled, half the load", three_times, share=0.5),
    Fault("queues-deleted", "every shared queue is deleted while in use", delete_queues),
    Fault("rolling-restart", "SIGTERM of every service, one after the other", roll),
    Fault("not-reading", "100 sockets do not read while their thread is flooded", readers_who_do_not_read),
    Fault("room-killed", "m3 up: kill -9 of the whole room, 3 times", kill_room, "embedded"),
    Fault("room-not-reading", "m3 up: 100 sockets do not read", readers_who_do_not_read, "embedded"),
    Fault("room-model", "m3 up: the model is silent, refuses, breaks off", moody_model, "embedded"),
    Fault("room-restarted", "m3 up: SIGTERM", roll, "embedded"),
]
