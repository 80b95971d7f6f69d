"""What most tests of single services need."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from m3.bus import Bus, open_bus
from tests.support.answering import Agents, running_agents


@pytest.fixture
async def memory_bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


@pytest.fixture
def agents(database_url: str) -> Agents:
    """Makes agents that share nothing but the bus and the database: each has its own sessions and its own client."""
    return partial(running_agents, database_url)
