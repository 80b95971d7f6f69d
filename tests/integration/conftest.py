"""What most tests of single services need."""

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial

import argon2
import pytest

from m3.access.access import Access
from m3.access.office import Office
from m3.bus import Bus, open_bus
from m3.store import Store
from tests.support.answering import Agents, running_agents
from tests.support.broker import NoBrokerError, PrivateNode, private_node
from tests.support.packages import Say
from tests.support.town import Town, asking
from tests.support.until import until


@pytest.fixture
async def memory_bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


@pytest.fixture
async def rabbit(broker_url: str) -> AsyncIterator[Bus]:
    """RabbitMQ, for what others are to lose."""
    async with open_bus(broker_url) as bus:
        await until(lambda: bus.connected)
        yield bus


@pytest.fixture(scope="module")
def node(say: Say) -> Iterator[PrivateNode]:
    """A broker of our own, to make trouble with."""
    try:
        with private_node(say) as node:
            yield node
    except NoBrokerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on a real RabbitMQ: {error}")
        pytest.skip(f"NOT TESTED: {error}")


@pytest.fixture
def agents(database_url: str) -> Agents:
    """Makes agents that share nothing but the bus and the database: each has its own sessions and its own client."""
    return partial(running_agents, database_url)


@pytest.fixture
async def town(database_url: str) -> AsyncIterator[Town]:
    async with Town.of(database_url) as town:
        yield town


@pytest.fixture
async def access(store: Store) -> AsyncIterator[Access]:
    """Of a room that asks who somebody is."""
    async with Access.open(asking(), store) as access:
        yield access


@pytest.fixture
async def office(access: Access) -> AsyncIterator[Office]:
    """Where it is changed who may do what in that room. Its hashes are cheap; tests/unit/test_passwords.py has dear ones."""
    with Office.open(asking(), access) as office:
        office.sign_ins._passwords._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        yield office
