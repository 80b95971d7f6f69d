"""Pushers tell each other over the bus what sockets they have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import structlog
from uuid_utils.compat import uuid7

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import BusError, Interrupted, UndecodableEvents
from m3.events import SocketsCounted, decode, encode
from m3.tasks import background
from services.pusher.attendance import Attendance

#: Bodies taken from the bus at a time.
AT_ONCE = 1_000
#: Seconds in which a pusher that stops may tell that it has no sockets left.
FAREWELL = 0.5

log = structlog.get_logger(__name__)


@asynccontextmanager
async def attending(bus: Bus) -> AsyncIterator[Attendance]:
    """Hear the other pushers while inside the block. They hear of this one with each ``tell``, and when it ends."""
    attendance = Attendance(uuid7())
    async with bus.subscribe("pusher.neighbours") as subscription:
        await subscription.bind(topology.CHAT_CONTROL, topology.EVERY_COUNT)
        async with background("other pushers", _hear(subscription, attendance)):
            yield attendance
            attendance.hurry()
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await tell(bus, attendance)


async def tell(bus: Bus, attendance: Attendance) -> None:
    """Tell the others what they are to hear by now. What is lost on the way leaves a gap, for which they ask."""
    if bus.connected:  # or it would wait for that
        try:
            for report in attendance.reports(asyncio.get_running_loop().time()):
                await bus.publish(topology.counted(report.pusher), encode([report]))
        except BusError as error:
            log.warning("other pushers not told", reason=str(error))


async def _hear(subscription: Subscription, attendance: Attendance) -> NoReturn:
    now = asyncio.get_running_loop().time
    while True:
        try:
            bodies = await subscription.take(AT_ONCE)
        except Interrupted:
            attendance.doubt()
            continue
        for body in bodies:
            try:
                events = decode(body)
            except UndecodableEvents as error:
                log.warning("another pusher not understood", reason=str(error))
                continue
            for event in events:
                if isinstance(event, SocketsCounted):
                    attendance.hear(event, now())
