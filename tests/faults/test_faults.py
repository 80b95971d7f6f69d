"""A short selection of what ``make faults`` does."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.faults import Fault, kill_broker, kill_services, poison, three_times
from tests.faults.load import Plan
from tests.faults.rig import Room
from tests.faults.rooms import cluster_for_tests
from tests.faults.trial import trial

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: A smaller load than that of ``make faults``, and faults of a fifth of the time.
PLAN = Plan(rate=20, threads=12, listeners=30, speakers=4)
PACE = 0.2


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def room() -> AsyncIterator[Room]:
    async with cluster_for_tests() as room:
        yield room


@pytest.mark.parametrize(
    "fault",
    [
        Fault("services-killed", "every service is killed, one after the other", kill_services),
        Fault("broker-killed", "the broker is killed and comes back", kill_broker),
        Fault("poison", "every queue gets what nobody understands", poison),
        Fault("three-times", "every message comes three times and shuffled", three_times),
    ],
    ids=lambda fault: fault.name,
)
async def test_no_promise_is_broken_while(room: Room, fault: Fault) -> None:
    result = await trial(room, fault, PLAN, pace=PACE)
    assert list(result.violations) == []
    assert result.acknowledged > PLAN.rate
