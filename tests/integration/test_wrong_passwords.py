"""Wrong passwords, which all gateways count together."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import UUID, uuid4

import argon2
import asyncpg
import httpx2
import pytest
from pydantic import SecretStr

from m3.access import audit, limits
from m3.access.limits import PER_ACCOUNT, PER_ADDRESS, PER_WRONG, Allowance, Limits
from m3.bus import open_bus
from m3.errors import NotSignedIn, StoreUnavailable, TooManySignIns, TooOften
from m3.settings import Settings
from m3.store import open_store
from tests.support.gateway import running_gateway
from tests.support.town import KEYS, bearer_header
from tests.support.until import until

HERE, THERE = "203.0.113.7", "198.51.100.1"
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


async def guess(  # noqa: PLR0913
    gateway: Limits,
    outcome: Exception | None,
    name: str = "anna",
    address: str = HERE,
    *,
    tenant: str = "default",
    sign_in: UUID | None = None,
) -> Allowance | None:
    """What was left when the password was looked at, with that outcome."""
    left = None
    with suppress(NotSignedIn, TooManySignIns, StoreUnavailable):
        async with gateway.guess(tenant, name, address, sign_in) as left:
            if outcome is not None:
                raise outcome
    return left


async def wrong(gateway: Limits, name: str = "anna", address: str = HERE, **more: Any) -> Allowance | None:
    return await guess(gateway, NotSignedIn("The name or the password is wrong."), name, address, **more)


async def right(gateway: Limits, name: str = "anna", address: str = HERE, **more: Any) -> Allowance | None:
    return await guess(gateway, None, name, address, **more)


async def test_of_twenty_wrong_passwords_in_a_row_ten_are_looked_at(gateways: list[Limits]) -> None:
    for number in range(10):
        left = await wrong(gateways[number % 2])
        assert left is not None
        assert (left.limit, left.remaining) == (10, 9 - number)
        assert 299 < left.reset <= 300
    for number in range(10):
        with pytest.raises(TooOften) as refused:
            await wrong(gateways[number % 2])
        assert (refused.value.limit, refused.value.window) == (10, 300)
        assert 290 < refused.value.retry_after <= 300


async def test_who_tries_ten_from_one_address_locks_the_account_for_nobody_else(gateways: list[Limits]) -> None:
    for number in range(50):
        with suppress(TooOften):
            await wrong(gateways[number % 2])
    for gateway in gateways:
        left = await right(gateway, address=THERE)
        assert left is not None
        assert left.remaining == 9, "what was refused there must not count for the account here"


async def test_of_many_at_the_same_moment_from_as_many_addresses_ten_times_as_many_are_looked_at(
    gateways: list[Limits],
) -> None:
    addresses = [f"203.0.113.{number}" for number in range(10 * PER_ACCOUNT + 20)]
    outcomes = await asyncio.gather(
        *(wrong(gateways[number % 2], address=address) for number, address in enumerate(addresses)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(refused) == 20
    (said,) = {re.sub(r"\d+ s\.", "287 s.", str(error)) for error in refused}
    assert said == "Too many wrong passwords, at most 100 in 300 seconds; try again in 287 s."


async def test_a_guess_of_who_is_signed_in_counts_by_itself(gateways: list[Limits]) -> None:
    mine, thiefs = uuid4(), uuid4()
    for number in range(10 * PER_ACCOUNT):
        await wrong(gateways[0], address=f"203.0.113.{number}")
    for _ in range(10):
        await wrong(gateways[0], sign_in=thiefs)
    with pytest.raises(TooOften):
        await wrong(gateways[1], sign_in=thiefs)
    left = await right(gateways[1], sign_in=mine)
    assert left is not None
    assert left.remaining == 9


async def test_right_passwords_are_three_times_as_many_and_no_more(gateways: list[Limits]) -> None:
    for number in range(10 * PER_WRONG):
        await right(gateways[0], address=f"203.0.113.{number}")
    with pytest.raises(TooOften, match="at most 30 in 300 seconds"):
        await right(gateways[0], address=HERE)
    await right(gateways[0], "ben")


async def test_few_passwords_of_an_account_are_looked_at_at_once(gateways: list[Limits]) -> None:
    gateway = gateways[0]
    async with gateway.guess("default", "anna", HERE), gateway.guess("default", "anna", HERE):
        with pytest.raises(TooOften, match=r"^Too many passwords, at most 2 at once; try again in 1 s\.$") as refused:
            await right(gateway)
        assert refused.value.retry_after > 0
        await right(gateway, "ben")
        await right(gateway, address=THERE)
    await right(gateway)


async def test_a_right_password_gives_the_account_all_its_attempts_again(gateways: list[Limits]) -> None:
    here, there = gateways
    for _ in range(5):
        for _ in range(9):
            await wrong(here)
        left = await right(there)
        assert left is not None
        assert left.remaining == 0


async def test_right_passwords_do_not_use_up_what_an_address_may(gateways: list[Limits]) -> None:
    for number in range(3 * 10 * PER_ADDRESS):
        await right(gateways[0], f"person-{number}")


async def test_a_password_that_was_not_looked_at_counts_for_nothing(gateways: list[Limits]) -> None:
    for outcome in [TooManySignIns(), StoreUnavailable("It is away.")] * 15:
        left = await guess(gateways[0], outcome)
        assert left is not None
        assert left.remaining == 9


async def test_one_address_that_tries_many_names_is_refused(gateways: list[Limits]) -> None:
    for number in range(10 * PER_ADDRESS):
        await wrong(gateways[number % 2], f"person-{number}", "2001:db8::1")
    for number in range(5):
        with pytest.raises(TooOften, match="at most 100 in 300 seconds"):
            await wrong(gateways[number % 2], "anna", "2001:db8::2")
    left = await wrong(gateways[0])
    assert left is not None
    assert left.remaining == 9, "what is refused for its address must not lock the account"


async def test_the_same_name_in_two_tenants_is_two_accounts(gateways: list[Limits]) -> None:
    for tenant in ("default", "acme"):
        for _ in range(10):
            await wrong(gateways[0], tenant=tenant)


@pytest.mark.parametrize(
    "name", ["", "nobody", "x" * 100_000, "a\x00b", "\ud800", "'; DROP TABLE accounts; --", "你好"]
)
async def test_a_name_that_does_not_exist_counts_alike(name: str, gateways: list[Limits]) -> None:
    for _ in range(10):
        await wrong(gateways[0], name)
    with pytest.raises(TooOften, match="at most 10 in 300 seconds"):
        await wrong(gateways[1], name)


async def test_names_are_not_kept(gateways: list[Limits], database: asyncpg.Connection) -> None:
    await wrong(gateways[0], "anna-of-the-room")
    keys = [row["key"] for row in await database.fetch("SELECT key FROM rate_counters")]
    assert len(keys) == 3
    assert not [key for key in keys if "anna" in key]


async def test_a_window_that_is_over_begins_anew(gateways: list[Limits], database: asyncpg.Connection) -> None:
    for _ in range(10):
        await wrong(gateways[0])
    await database.execute("UPDATE rate_counters SET expires_at = now() - interval '1 ms'")
    for number in range(10):
        left = await wrong(gateways[0])
        assert left is not None
        assert left.remaining == 9 - number
    with pytest.raises(TooOften):
        await wrong(gateways[0])


async def test_windows_that_are_over_are_swept(
    gateways: list[Limits], database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SWEEP_INTERVAL", 0.0)
    for number in range(50):
        await wrong(gateways[0], f"person-{number}", f"203.0.113.{number}")
    await database.execute("UPDATE rate_counters SET expires_at = now() - interval '1 ms'")
    await asyncio.gather(*(wrong(gateway) for gateway in gateways))
    assert await database.fetchval("SELECT count(*) FROM rate_counters") == 3


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
async def test_of_twenty_in_one_moment_no_more_are_looked_at(http: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(login(http, "wrong horse") for _ in range(20)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {401, 429}
    assert 1 <= codes.count(401) <= 10
    assert "retry-after" in next(answer for answer in answers if answer.status_code == 429).headers
    assert (await login(http, PASSWORD, THERE)).status_code == 200


@pytest.mark.usefixtures("mei")
async def test_nobody_keeps_an_account_from_changing_its_password(http: httpx2.AsyncClient) -> None:
    token = (await login(http, PASSWORD, THERE)).json()["access_token"]
    for _ in range(11):
        refused = await login(http, "wrong horse", THERE)
    assert refused.status_code == 429
    changed = await http.post(
        "/api/password",
        json={"password": PASSWORD, "new_password": "battery staple"},
        headers=bearer_header(token) | {"X-Forwarded-For": THERE},
    )
    assert changed.status_code == 204
    assert (await login(http, "battery staple")).status_code == 200


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


@pytest.mark.usefixtures("mei")
async def test_the_audit_names_whoever_is_locked_out_and_tells_other_wrong_passwords_apart(
    http: httpx2.AsyncClient, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "GATHER", 0.01)
    token = (await login(http, PASSWORD)).json()["access_token"]
    change = {"password": "wrong horse", "new_password": "battery staple"}
    for _ in range(2):
        answer = await http.post("/api/password", json=change, headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["code"] == "wrong_password"
    for _ in range(11):
        await login(http, "wrong horse", name="Mei")
        await login(http, "wrong horse", name="hunter2")

    async def are_noted() -> bool:
        rows = await database.fetch("SELECT actor, action, left(detail, 12) FROM audit WHERE outcome = 'refused'")
        noted = {tuple(row) for row in rows}
        return noted >= {("mei", "login", "rate_limited"), ("", "login", "rate_limited")} and any(
            (actor, action) == ("mei", "wrong_password") for actor, action, _ in noted
        )

    await until(are_noted)
