"""One fault done to a room under load, and what came of it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import aio_pika

from m3.tasks import background
from m3.topology import DEAD, QUEUES
from tests.faults.checker import Violation, violations
from tests.faults.faults import Fault, Scene
from tests.faults.load import Caller, Load, Plan
from tests.faults.probe import recovered
from tests.faults.rig import Room, now
from tests.faults.tenants import peek
from tests.support.broker import PrivateNode
from tests.support.until import until

WORK_QUEUES = [queue.name for queue in QUEUES if queue != DEAD]
#: Seconds in which the first messages must be acknowledged.
WARM = 30.0
#: Seconds in which the queues must be empty once everything is answered. The broker counts every 5 s.
EMPTY = 30.0


@dataclass(frozen=True)
class Result:
    fault: Fault
    acknowledged: int
    unknown: int
    #: Seconds; None where the room never became well.
    recovery: float | None
    violations: Sequence[Violation]
    notes: Sequence[str]

    def count(self, what: str) -> int:
        return sum(violation.what == what for violation in self.violations)


async def trial(
    room: Room, fault: Fault, plan: Plan, *, pace: float = 1.0, callers: Sequence[Caller] = (Caller(),)
) -> Result:
    """Load before, during and after the fault; then the room must come to rest with every promise kept. With several
    callers each has such a load, in the same threads of its own tenant."""
    loads = [Load(room, plan, fault.name, caller) for caller in callers]
    scene = Scene(room, loads[0], pace)
    if room.broker:
        await _take_dead(room.broker)
    room.own_deaths.clear()
    async with AsyncExitStack() as running:
        for load in loads:
            await running.enter_async_context(load.running())
        if len(loads) > 1:
            await running.enter_async_context(background("peeking", peek(loads)))
        await until(lambda: all(load.acknowledged >= plan.rate for load in loads), within=WARM)
        await fault.act(scene)
        ended = scene.ended or now()
        recovery = await recovered(room, ended, callers[0])
        await scene.wait(2)
    queues, dead = {}, []
    if room.broker:
        queues = await _waiting(room.broker)
        dead = await _take_dead(room.broker)
    broken = [Violation("meanwhile", wrong) for wrong in scene.wrong]
    broken += [Violation("own death", death) for death in room.own_deaths]
    for load in loads:
        log = await load.log(queues=queues, dead=dead, poison=scene.poison, deadly=scene.deadly)
        broken += violations(log)
        if not load.acknowledged or not any(sitting.frames for heard in load.heard for sitting in heard.sittings):
            broken.append(Violation("no load", "nothing was said or nothing was heard"))  # and so nothing was checked
        if len(loads) > 1 and not load.looks:
            broken.append(Violation("no load", "nobody looked for what is another tenant's"))
    if recovery is None:
        broken.append(Violation("not recovered", "the room did not become well"))
    acknowledged = sum(load.acknowledged for load in loads)
    unknown = sum(said.verdict == "unknown" for load in loads for said in load.said)
    return Result(fault, acknowledged, unknown, recovery, broken, scene.notes)


async def _waiting(broker: PrivateNode) -> dict[str, int]:
    """Messages in each work queue, those that a service holds included, once there are none or after a while."""
    waiting: dict[str, int] = {}

    async def empty() -> bool:
        listed = await asyncio.to_thread(broker.ctl, "list_queues", "--no-table-headers", "name", "messages")
        lines = [line.split() for line in listed.splitlines() if line.strip()]
        counts = {name: int(count) for name, count in lines}
        waiting.update({name: counts.get(name, -1) for name in WORK_QUEUES})
        return not any(waiting.values())

    with suppress(TimeoutError):
        await until(empty, within=EMPTY)
    return waiting


async def _take_dead(broker: PrivateNode) -> list[bytes]:
    """Empty the dead-letter queue."""
    bodies: list[bytes] = []
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        queue = await channel.get_queue(DEAD.name, ensure=False)
        while message := await queue.get(no_ack=True, fail=False):
            bodies.append(message.body)
    return bodies
