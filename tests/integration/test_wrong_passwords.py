"""Wrong passwords, which all gateways count together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import argon2
import asyncpg
import httpx2
import pytest
from pydantic import SecretStr

from m3.access import audit, limits
from m3.access.limits import PER_ADDRESS, Limits
from m3.bus import open_bus
from m3.errors import TooOften
from m3.settings import Settings
from m3.store import open_store
from tests.support.gateway import running_gateway
from tests.support.town import KEYS
from tests.support.until import until

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


async def test_a_password_that_was_not_looked_at_counts_for_nothing(gateways: list[Limits]) -> None:
    for _ in range(30):
        left = await gateways[0].check_login("default", "anna", HERE)
        assert left is not None
        assert left.remaining == 9
        await gateways[1].untried_login("default", "anna", HERE)


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


# ---- Over HTTP

PASSWORD = "correct horse"
ROOM = {
    "auth": "required",
    "token_keys": SecretStr(KEYS),
    "tenants": "default,acme",
    "trusted_proxies": "127.0.0.1",
    "limit_tickets": "3/minute",
}


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        open_bus("memory://") as bus,
        open_store(database_url, pool_size=5) as store,
        running_gateway(bus, store, **ROOM) as http,
    ):
        yield http


async def login(http: httpx2.AsyncClient, password: str, address: str = HERE, name: str = "mei") -> httpx2.Response:
    return await http.post(
        "/api/login", json={"name": name, "password": password}, headers={"X-Forwarded-For": address}
    )


@pytest.fixture
async def mei(database: asyncpg.Connection) -> None:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    await database.execute(
        "INSERT INTO accounts (account_id, tenant, name, password_hash) VALUES ($1, 'default', 'mei', $2)",
        uuid4(),
        cheap.hash(PASSWORD),
    )


@pytest.mark.usefixtures("mei")
async def test_after_ten_wrong_passwords_not_even_the_right_one_is_taken(http: httpx2.AsyncClient) -> None:
    answers = [await login(http, "wrong horse") for _ in range(20)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 10
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == [
        *(str(number) for number in reversed(range(10))),
        *["0"] * 10,
    ]
    right = await login(http, PASSWORD)
    assert (right.status_code, right.json()["code"]) == (429, "rate_limited")
    assert right.headers["x-ratelimit-limit"] == "10"
    assert right.headers["retry-after"] == right.headers["x-ratelimit-reset"]
    assert 200 < int(right.headers["retry-after"]) <= 300
    assert right.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("mei")
async def test_of_twenty_in_one_moment_from_as_many_addresses_no_more_are_looked_at(http: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(login(http, "wrong horse", f"203.0.113.{number}") for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 10
    assert (await login(http, PASSWORD)).status_code == 429


async def test_who_has_no_account_is_told_the_same(http: httpx2.AsyncClient) -> None:
    answers = [await login(http, "wrong horse", name="nobody") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]


@pytest.mark.usefixtures("mei")
async def test_a_right_password_begins_anew(http: httpx2.AsyncClient) -> None:
    for _ in range(2):
        for _ in range(9):
            assert (await login(http, "wrong horse")).status_code == 401
        assert (await login(http, PASSWORD)).status_code == 200


@pytest.mark.usefixtures("mei")
async def test_the_audit_says_from_where(
    http: httpx2.AsyncClient, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "GATHER", 0.01)
    await login(http, "wrong horse", "198.51.100.7")
    token = (await login(http, PASSWORD, "198.51.100.8")).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "203.0.113.66, 198.51.100.9"}
    assert (await http.get("/api/threads/another/history", headers=bearer)).status_code == 404
    assert (await http.get("/api/audit", headers=bearer)).status_code == 403

    async def are_noted() -> bool:
        rows = await database.fetch("SELECT actor, action, detail, host(address::inet) FROM audit")
        return {tuple(row) for row in rows} >= {
            ("mei", "login", "", "198.51.100.7"),
            ("mei", "login", "", "198.51.100.8"),
            ("mei", "refused", "read: not_found", "198.51.100.9"),
            ("mei", "refused", "operate: forbidden", "198.51.100.9"),
        }

    await until(are_noted)


@pytest.mark.usefixtures("mei")
async def test_what_is_limited_says_what_is_left(http: httpx2.AsyncClient) -> None:
    token = (await login(http, PASSWORD)).json()["access_token"]
    answers = [await http.post("/api/ws-ticket", headers={"Authorization": f"Bearer {token}"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
    assert "retry-after" in answers[-1].headers
    assert "x-ratelimit-limit" not in (await http.get("/healthz")).headers
