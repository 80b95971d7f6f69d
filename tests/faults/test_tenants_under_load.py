"""Tenants under load, by the rules of the fault suite."""

from tests.faults.faults import Fault, kill_services
from tests.faults.load import Plan
from tests.faults.rooms import cluster_for_tests
from tests.faults.tenants import SETTINGS, callers
from tests.faults.trial import trial

PLAN = Plan(rate=12, threads=12, listeners=18, speakers=4)
PACE = 0.2


async def test_two_tenants_never_meet_though_services_are_killed() -> None:
    """The same threads, names and keys in both; each has a load of its own, which the checker looks at by itself."""
    fault = Fault("two-tenants", "two tenants say the same in the same threads", kill_services)
    async with cluster_for_tests(**SETTINGS) as room:
        result = await trial(room, fault, PLAN, pace=PACE, callers=await callers(room, fault.name, PLAN))
    assert list(result.violations) == []
    assert result.acknowledged > PLAN.rate
