"""``python -m tests.faults``: every fault, one after the other; prints the table and writes docs/faults.md.

``python -m tests.faults NAME …`` runs those alone, ``python -m tests.faults soak`` the long load; then only what is
printed tells of it.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from contextlib import AsyncExitStack
from dataclasses import replace

from tests.faults.checker import Violation
from tests.faults.faults import FAULTS, Fault
from tests.faults.load import Plan
from tests.faults.report import Page, row, say
from tests.faults.rig import Room, cluster, embedded
from tests.faults.soak import Soak, soak
from tests.faults.trial import Result, trial
from tests.support.broker import NoBrokerError

SOAK = "soak"
#: What the time of each fault is multiplied by.
PACE = float(os.environ.get("PACE", "1"))
#: Seconds that one fault may take, with all that is waited for.
DEADLINE = 600.0


def main() -> None:
    wanted = sys.argv[1:]
    names = [fault.name for fault in FAULTS]
    if unheard := [name for name in wanted if name not in {*names, SOAK}]:
        sys.exit(f"No fault is named {', '.join(unheard)}. There are: {', '.join([*names, SOAK])}.")
    plan = Plan(seed=int(os.environ.get("SEED", "1")), rate=float(os.environ.get("RATE", str(Plan.rate))))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then nothing is left running
    try:
        sys.exit(asyncio.run(_run(wanted, plan)))
    except NoBrokerError as error:
        sys.exit(str(error))


async def _run(wanted: list[str], plan: Plan) -> int:
    begun = time.monotonic()
    page = Page(plan, PACE)
    chosen = [fault for fault in FAULTS if not wanted or fault.name in wanted]
    for kind in ("cluster", "embedded"):
        page.results += await _try_all([fault for fault in chosen if fault.kind == kind], plan)
    if not wanted or SOAK in wanted:
        page.soak = await _soak(plan)
    page.minutes = (time.monotonic() - begun) / 60
    print(page.tables())
    if not wanted:
        page.write()
    broken = [result.violations for result in page.results] + ([page.soak.violations] if page.soak else [])
    return int(any(broken))


async def _try_all(faults: list[Fault], plan: Plan) -> list[Result]:
    """On one room after the other: one that broke a promise is not used again."""
    results = []
    while faults:
        async with AsyncExitStack() as stack:
            room: Room = await stack.enter_async_context(cluster() if faults[0].kind == "cluster" else embedded())
            while faults:
                fault = faults.pop(0)
                say(f"{fault.name}: {fault.sentence}")
                result = await _try(room, fault, replace(plan, rate=plan.rate * fault.share))
                results.append(result)
                say(row(result))
                for violation in result.violations[:20]:
                    say(f"    {violation.what}: {violation.sentence[:500]}")
                if result.violations:
                    break
    return results


async def _try(room: Room, fault: Fault, plan: Plan) -> Result:
    try:
        async with asyncio.timeout(DEADLINE):
            return await trial(room, fault, plan, pace=PACE)
    except Exception as error:  # noqa: BLE001  # the others are still worth their time
        say("".join(traceback.format_exception(error)))
        return Result(fault, 0, 0, None, [Violation("broke off", repr(error))], [])


async def _soak(plan: Plan) -> Soak:
    minutes = float(os.environ.get("SOAK_MINUTES", "10"))
    say(f"soak: {minutes:g} minutes at half of what the room reaches")
    async with cluster(proxied=False) as room:
        return await soak(room, plan, 60 * minutes)


if __name__ == "__main__":
    main()
