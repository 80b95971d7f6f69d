"""A long load at half of what the room reaches, to see whether anything grows."""

import asyncio
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx2

from m3.tasks import background
from tests.faults.checker import Violation, violations
from tests.faults.faults import rss
from tests.faults.load import Load, Plan
from tests.faults.rig import Room, now

#: Seconds of the ramp, and how many clients it has in the end.
RAMP = 30.0
CLIENTS = 60
#: Seconds of the soak after which growth counts.
SETTLED = 60.0


@dataclass(frozen=True)
class Soak:
    seconds: float
    reached: float
    rate: float
    acknowledged: int
    unknown: int
    violations: list[Violation]
    #: Resident bytes of each service, second by second.
    memory: Mapping[str, list[int]]

    def table(self) -> str:
        head = "| service | after 1 min | at the end | most | slope |\n|---|--:|--:|--:|--:|"
        return "\n".join([head, *(self._row(name, samples) for name, samples in self.memory.items())])

    def _row(self, name: str, samples: list[int]) -> str:
        after = samples[int(min(SETTLED, len(samples) / 2)) :]
        slope = statistics.linear_regression(range(len(after)), after).slope * 60 if len(after) > 1 else 0.0
        return f"| {name} | {_mib(after[0])} | {_mib(samples[-1])} | {_mib(max(samples))} | {_mib(slope)}/min |"

    def text(self) -> str:
        return f"""\
{self.seconds / 60:.0f} minutes at {self.rate:.0f} messages a second, half of the {self.reached:.0f} that the room
answered in a ramp of {RAMP:.0f} s: {self.acknowledged} acknowledged, {self.unknown} unknown, {len(self.violations)}
violations. Resident memory of each service, read each second; the slope is that of a straight line through all from
the end of the first minute on.

{self.table()}"""


async def soak(room: Room, plan: Plan, seconds: float) -> Soak:
    reached = await _ramp(room)
    plan = replace(plan, rate=reached / 2)
    load = Load(room, plan, "soak")
    memory: dict[str, list[int]] = {service.name: [] for service in room.services}
    async with load.running(), background("memory", _sample(room, memory)):
        await asyncio.sleep(seconds)
    broken = violations(await load.log())
    unknown = sum(said.verdict == "unknown" for said in load.said)
    return Soak(seconds, reached, plan.rate, load.acknowledged, unknown, broken, memory)


async def _ramp(room: Room) -> float:
    """The most messages a second that are answered, with ever more clients that each wait for their reply."""
    times: list[float] = []
    begun = now()

    async def talk(number: int) -> None:
        await asyncio.sleep(number * RAMP / CLIENTS)
        async with httpx2.AsyncClient(timeout=30) as http:
            turn = number
            while now() < begun + RAMP:
                turn += 1
                body = {"thread_id": f"ramp:{number}", "message": f"ramp {number} {turn}, at once"}
                with suppress(httpx2.HTTPError):
                    answer = await http.post(f"{room.gateways[turn % len(room.gateways)]}/api/chat", json=body)
                    if answer.status_code == 200:
                        times.append(now() - begun)

    await asyncio.gather(*(talk(number) for number in range(CLIENTS)))
    window = 5
    counts = [sum(start <= time < start + window for time in times) for start in range(int(RAMP) - window + 1)]
    return max(counts) / window


async def _sample(room: Room, memory: Mapping[str, list[int]]) -> None:
    while True:
        for service in room.services:
            memory[service.name].append(rss(service.process.pid))
        await asyncio.sleep(1)


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"
