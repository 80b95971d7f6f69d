"""Wrong passwords, which all gateways count together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from m3.access import limits
from m3.access.limits import PER_ADDRESS, Limits
from m3.errors import TooOften
from m3.settings import Settings
from m3.store import open_store

HERE = "203.0.113.7"
SETTINGS = Settings(auth="required", limit_logins="10/5 minutes")


@pytest.fixture
async def gateways(database_url: str) -> AsyncIterator[list[Limits]]:
    """What two gateways on one database count."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(database_url, pool_size=5)) for _ in range(2)]
        yield [Limits(SETTINGS, store) for store in stores]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_of_twenty_wrong_passwords_in_a_row_ten_are_looked_at(gateways: list[Limits]) -> None:
    for number in range(10):
        left = await gateways[number % 2].check_login("default", "anna", HERE)
        assert left is not None
        assert (left.limit, left.remaining) == (10, 9 - number)
        assert 299 < left.reset <= 300
    for number in range(10):
        with pytest.raises(TooOften) as refused:
            await gateways[number % 2].check_login("default", "anna", HERE)
        assert (refused.value.limit, refused.value.window) == (10, 300)
        assert 290 < refused.value.retry_after <= 300


async def test_of_twenty_at_the_same_moment_from_several_addresses_ten_are_looked_at(gateways: list[Limits]) -> None:
    outcomes = await asyncio.gather(
        *(gateways[number % 2].check_login("default", "anna", f"203.0.113.{number}") for number in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, TooOften) for outcome in outcomes) == 10
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, TooOften)]


async def test_a_right_password_gives_the_account_all_its_attempts_again(gateways: list[Limits]) -> None:
    here, there = gateways
    for _ in range(5):
        for _ in range(9):
            await here.check_login("default", "anna", HERE)
        left = await there.check_login("default", "anna", HERE)
        assert left is not None
        assert left.remaining == 0
        await there.succeeded_login("default", "anna", HERE)


async def test_right_passwords_do_not_use_up_what_an_address_may(gateways: list[Limits]) -> None:
    for number in range(3 * 10 * PER_ADDRESS):
        await gateways[0].check_login("default", f"person-{number}", HERE)
        await gateways[0].succeeded_login("default", f"person-{number}", HERE)


async def test_one_address_that_tries_many_names_is_refused(gateways: list[Limits]) -> None:
    for number in range(10 * PER_ADDRESS):
        await gateways[number % 2].check_login("default", f"person-{number}", "2001:db8::1")
    for number in range(5):
        with pytest.raises(TooOften, match="at most 100 in 300 seconds"):
            await gateways[number % 2].check_login("default", "anna", "2001:db8::2")
    left = await gateways[0].check_login("default", "anna", HERE)
    assert left is not None
    assert left.remaining == 9, "what is refused for its address must not lock the account"


async def test_the_same_name_in_two_tenants_is_two_accounts(gateways: list[Limits]) -> None:
    for tenant in ("default", "acme"):
        for _ in range(10):
            await gateways[0].check_login(tenant, "anna", HERE)


@pytest.mark.parametrize(
    "name", ["", "nobody", "x" * 100_000, "a\x00b", "\ud800", "'; DROP TABLE accounts; --", "你好"]
)
async def test_a_name_that_does_not_exist_counts_alike(name: str, gateways: list[Limits]) -> None:
    for _ in range(10):
        await gateways[0].check_login("default", name, HERE)
    with pytest.raises(TooOften, match="at most 10 in 300 seconds"):
        await gateways[1].check_login("default", name, HERE)


async def test_names_are_not_kept(gateways: list[Limits], database: asyncpg.Connection) -> None:
    await gateways[0].check_login("default", "anna-of-the-room", HERE)
    keys = [row["key"] for row in await database.fetch("SELECT key FROM rate_counters")]
    assert len(keys) == 2
    assert not [key for key in keys if "anna" in key]


async def test_a_window_that_is_over_begins_anew(gateways: list[Limits], database: asyncpg.Connection) -> None:
    for _ in range(10):
        await gateways[0].check_login("default", "anna", HERE)
    await database.execute("UPDATE rate_counters SET expires_at = now() - interval '1 ms'")
    for number in range(10):
        left = await gateways[0].check_login("default", "anna", HERE)
        assert left is not None
        assert left.remaining == 9 - number
    with pytest.raises(TooOften):
        await gateways[0].check_login("default", "anna", HERE)


async def test_windows_that_are_over_are_swept(
    gateways: list[Limits], database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SWEEP_INTERVAL", 0.0)
    for number in range(50):
        await gateways[0].check_login("default", f"person-{number}", f"203.0.113.{number}")
    await database.execute("UPDATE rate_counters SET expires_at = now() - interval '1 ms'")
    await asyncio.gather(*(gateway.check_login("default", "anna", HERE) for gateway in gateways))
    assert await database.fetchval("SELECT count(*) FROM rate_counters") == 2
