"""Who is here, over several pushers that tell each other."""

import asyncio
from uuid import UUID

from yarl import URL

from m3 import topology
from m3.bus import Bus, open_bus
from m3.events import SocketsCounted, ThreadSockets, encode
from services.pusher.attendance import Attendance
from services.pusher.neighbours import attending
from tests.support.proxy import proxy
from tests.support.until import until


def count(attendance: Attendance, thread_id: str = "t") -> int:
    return attendance.connections(thread_id, asyncio.get_running_loop().time())


async def until_all_count(connections: int, *attendances: Attendance) -> None:
    await until(lambda: [count(attendance) for attendance in attendances] == [connections] * len(attendances))


async def test_pushers_count_each_others_sockets_and_a_newcomer_those_of_all(bus: Bus) -> None:
    async with attending(bus) as one, attending(bus) as other:
        one.join("t", "ann")
        other.join("t", "bob")
        await until_all_count(2, one, other)
        async with attending(bus) as newcomer:
            newcomer.join("t", "carl")
            await until_all_count(3, one, other, newcomer)
        one.leave("t", "ann")
        await until_all_count(1, other)


async def test_a_pusher_that_is_not_heard_of_any_more_does_not_count(bus: Bus) -> None:
    async with attending(bus) as attendance:
        async with attending(bus) as killed:
            killed.join("t", "ann")
            await until_all_count(1, attendance)
        await until_all_count(0, attendance)


async def test_what_a_pusher_of_another_version_says_harms_nobody(bus: Bus) -> None:
    async with attending(bus) as attendance:
        newer = topology.counted(UUID(int=1))
        for strange in (b"", b"[]", b'[{"type": "sockets_sighted"}]', b'[{"type": "sockets_counted", "pusher": "x"}]'):
            await bus.publish(newer, strange)
        here = ThreadSockets(thread_id="t", connections=7)
        report = SocketsCounted(pusher=UUID(int=1), number=1, threads=(here,), anew=True)
        await bus.publish(newer, encode([report]).replace(b'"number":1', b'"number":1,"mood":"new"'))
        await until_all_count(7, attendance)


async def test_pushers_that_lose_the_broker_count_again_when_it_is_back(broker_url: str) -> None:
    async with proxy(URL(broker_url).port or 5672) as line:
        far = str(URL(broker_url).with_host("127.0.0.1").with_port(line.port))
        async with (
            open_bus(far) as cut_off,
            open_bus(broker_url) as bus,
            attending(cut_off) as one,
            attending(bus) as other,
        ):
            one.join("t", "ann")
            other.join("t", "bob")
            await until_all_count(2, one, other)
            line.refuse(refusing=True)
            line.cut()
            await until_all_count(1, one, other)
            one.join("t", "carl")
            other.join("t", "dora")
            line.refuse(refusing=False)
            await until_all_count(4, one, other)
