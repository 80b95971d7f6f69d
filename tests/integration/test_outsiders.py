"""People with the tokens of an outside issuer, and what they are in the room."""

import asyncio
import re
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from m3.access.access import Access
from m3.access.principals import Principal
from m3.bus import open_bus
from m3.errors import NotSignedIn, StartError
from m3.settings import Settings
from m3.store import Store
from tests.support.gateway import running_gateway
from tests.support.issuing import AUDIENCE, OutsideIssuer, outside_issuer, rsa_key
from tests.support.town import Town, asking, bearer


@pytest.fixture
async def outside() -> AsyncIterator[OutsideIssuer]:
    async with outside_issuer() as outside:
        yield outside


@pytest.fixture
def settings(outside: OutsideIssuer) -> Settings:
    return asking(oidc_issuer=outside.url, oidc_audience=AUDIENCE, oidc_tenant="acme")


@pytest.fixture
async def access(settings: Settings, store: Store) -> AsyncIterator[Access]:
    async with Access.open(settings, store) as access:
        yield access


@pytest.fixture
async def town(database_url: str) -> AsyncIterator[Town]:
    sql = await asyncpg.connect(database_url)
    yield Town(sql)
    await sql.close()


async def whose(access: Access, token: str) -> Principal:
    return await access.identify(bearer(token))


async def test_somebody_has_an_account_from_the_first_token_on_and_keeps_it(
    outside: OutsideIssuer, access: Access, town: Town
) -> None:
    expires = int(time.time()) + 300
    first = await whose(access, outside.token("first", preferred_username="Ann", exp=expires))
    assert (first.kind, first.tenant, first.name, first.expires) == ("person", "acme", "ann", expires)
    again = await whose(access, outside.token("first", preferred_username="Anna", exp=expires + 1))
    assert (again.id, again.name) == (first.id, "ann"), "a name that is changed elsewhere changes nothing here"
    noted = await town.sql.fetch("SELECT tenant, action, target FROM audit")
    assert [tuple(row) for row in noted] == [("acme", "user_added", "ann")]


async def test_a_name_that_is_taken_gives_nobody_anothers_account(
    outside: OutsideIssuer, access: Access, town: Town
) -> None:
    admin = await town.account("admin", "acme", operator=True)
    stranger = await whose(access, outside.token("first", preferred_username="admin"))
    other = await whose(access, outside.token("first", sub="2", preferred_username="ADMIN"))
    assert (stranger.kind, stranger.name) == ("person", "admin-2")
    assert (other.kind, other.name) == ("person", "admin-3")
    assert len({admin, stranger.id, other.id}) == 3


async def test_who_is_called_what_nobody_may_be_is_given_a_name(
    outside: OutsideIssuer, access: Access, town: Town
) -> None:
    await town.program("bot", "acme")
    disguised = await whose(access, outside.token("first", sub="\u0430dmin", preferred_username="admin\u3164"))
    assert disguised.name is not None
    assert re.fullmatch(r"user-[0-9a-f]{8}", disguised.name)
    as_a_program = await whose(access, outside.token("first", sub="2", preferred_username="bot"))
    assert as_a_program.name == "bot-2"


async def test_of_first_tokens_that_come_at_once_one_makes_the_account(
    outside: OutsideIssuer, settings: Settings, store: Store, town: Town
) -> None:
    """At several gateways."""
    async with Access.open(settings, store) as one, Access.open(settings, store) as other:
        tokens = [outside.token("first", preferred_username="ann", jti=str(number)) for number in range(6)]
        came = await asyncio.gather(*(whose(each, token) for token in tokens for each in (one, other)))
    assert len({principal.id for principal in came}) == 1
    assert await town.sql.fetchval("SELECT count(*) FROM accounts") == 1


async def test_who_is_revoked_stays_so_whatever_the_issuer_says(
    outside: OutsideIssuer, access: Access, town: Town
) -> None:
    await whose(access, outside.token("first", preferred_username="ann"))
    await town.sql.execute("UPDATE accounts SET revoked_at = now()")
    with pytest.raises(NotSignedIn):
        await whose(access, outside.token("first", preferred_username="ann", jti="another"))


async def test_a_token_of_nobody_we_know_is_refused_and_our_own_go_on(
    outside: OutsideIssuer, access: Access, town: Town
) -> None:
    with pytest.raises(NotSignedIn):
        await whose(access, outside.token("first", iss="https://somebody.example.com"))
    outside.away = True
    assert (await whose(access, await town.person("bob"))).name == "bob"


async def test_a_door_says_that_the_issuer_is_away_and_when_to_come_back(
    outside: OutsideIssuer, settings: Settings, store: Store
) -> None:
    outside.away = True
    told = {
        "auth": "required",
        "token_keys": settings.token_keys,
        "oidc_issuer": outside.url,
        "oidc_audience": AUDIENCE,
    }
    async with open_bus("memory://") as bus, running_gateway(bus, store, **told) as http:
        answer = await http.get("/api/me", headers=_header(outside.token("first")))
        assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        unknown = await http.get("/api/me", headers=_header(outside.token("second", key=rsa_key(), iss="x")))
        assert unknown.status_code == 401


def _header(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_tenant_that_there_is_none_of_is_one_sentence(outside: OutsideIssuer, store: Store) -> None:
    settings = asking(oidc_issuer=outside.url, oidc_audience=AUDIENCE, oidc_tenant="nowhere")
    with pytest.raises(StartError, match="OIDC_TENANT must be one of TENANTS"):
        async with Access.open(settings, store):
            pass
