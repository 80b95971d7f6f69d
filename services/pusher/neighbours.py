"""Pushers tell each other what sockets they have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog
from uuid_utils.compat import uuid7

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import BusError, Interrupted, UndecodableEvents
from m3.events import SocketsCounted, decode, encode
from m3.tasks import background
from services.pusher.attendance import Attendance

#: Seconds for which changes are gathered.
GATHERING = 0.1
#: Bodies taken from the bus at a time.
AT_ONCE = 1_000

log = structlog.get_logger(__name__)


@asynccontextmanager
async def attending(bus: Bus) -> AsyncIterator[Attendance]:
    """Have the attendance of all pushers on the bus kept up while inside the block."""
    attendance = Attendance(uuid7())
    async with bus.subscribe("pusher.neighbours") as subscription:
        await subscription.bind(topology.CHAT_CONTROL, topology.EVERY_COUNT)
        async with (
            background("hearing other pushers", _hear(subscription, attendance)),
            background("telling other pushers", _tell(bus, attendance)),
        ):
            yield attendance


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


async def _tell(bus: Bus, attendance: Attendance) -> NoReturn:
    """What is lost on the way leaves a gap, for which the others ask."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(GATHERING)
        if bus.connected:
            try:
                for report in attendance.reports(now()):
                    await bus.publish(topology.counted(report.pusher), encode([report]))
            except BusError as error:
                log.warning("other pushers not told", reason=str(error))
