"""Accounts that whoever is invited makes, where the operator lets them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
import pytest
from limits import RateLimitItemPerMinute

from m3 import metrics
from m3.access import limits
from m3.access.accounts import at_the_machine
from m3.access.credentials import new_invite
from m3.access.invites import Invites
from m3.access.office import Office
from m3.access.sign_ups import SignedUp
from m3.bus import Bus
from m3.errors import NotInvited, Taken
from m3.store import Store
from m3.store.directory import Directory
from services.recorder import recorder
from tests.support.gateway import running_gateway
from tests.support.town import Town, asking, bearer_header
from tests.support.until import until

PASSWORD = "correct horse"

pytestmark = pytest.mark.usefixtures("store")


@asynccontextmanager
async def gateway(bus: Bus, store: Store, **others: object) -> AsyncIterator[httpx2.AsyncClient]:
    settings = asking(**{"sign_up": True} | others).model_dump(exclude_unset=True)
    async with running_gateway(bus, store, **settings) as http:
        yield http


@pytest.fixture
async def http(memory_bus: Bus, store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    async with recorder(memory_bus, store, grace=1), gateway(memory_bus, store) as http:
        yield http


@pytest.fixture
async def invite(town: Town, store: Store) -> str:
    """Of Ann's, to the thread `show` of two owners."""
    await town.account("ann")
    await town.account("olaf")
    await town.thread("show", ann="owner", olaf="owner")
    told = await Invites(Directory(store)).make(at_the_machine("default"), "show", "member", timedelta(days=1))
    await town.sql.execute("UPDATE invites SET made_by = (SELECT account_id FROM accounts WHERE name = 'ann')")
    return told.invite


async def signed_up(
    http: httpx2.AsyncClient, invite: str, name: str = "mei", password: str = PASSWORD
) -> httpx2.Response:
    return await http.post("/api/signup", json={"invite": invite, "name": name, "password": password})


async def refused(answer: httpx2.Response, town: Town) -> tuple[int, str]:
    """Why; and nobody has come to be."""
    kept = "accounts WHERE name NOT IN ('ann', 'olaf')", "members WHERE role <> 'owner'", "sign_ins"
    for table in kept:
        assert await town.sql.fetchval(f"SELECT count(*) FROM {table}") == 0
    return answer.status_code, answer.json()["code"]


async def test_whoever_is_invited_makes_an_account_and_reads_and_speaks_at_once(
    http: httpx2.AsyncClient, town: Town, invite: str
) -> None:
    answer = await signed_up(http, invite, "Mei")
    assert answer.status_code == 201, answer.text
    assert (answer.json()["thread_id"], answer.json()["role"]) == ("show", "member")
    mei = bearer_header(answer.json()["access_token"])
    me = (await http.get("/api/me", headers=mei)).json()
    assert (me["kind"], me["name"], me["tenant"]) == ("person", "mei", "default")
    assert (await http.get("/api/threads/show/history", headers=mei)).status_code == 200
    said = {"message": "hello", "thread_id": "show"}
    assert (await http.post("/api/chat", json=said, headers=mei | {"Prefer": "respond-async"})).status_code == 202
    again = await http.post("/api/login", json={"name": "mei", "password": PASSWORD})
    assert again.status_code == 200
    prefix = invite.split("_")[1]
    lines = await town.sql.fetch("SELECT actor, action, target, detail FROM audit ORDER BY id")
    assert [tuple(line) for line in lines][-4:] == [
        ("mei", "user_added", "mei", f"person, by the invite {prefix}"),
        ("mei", "member_added", "show", f"person mei as member, by the invite {prefix}"),
        ("mei", "login", "", ""),
        ("mei", "login", "", ""),
    ]
    assert invite[-43:] not in str(lines)


async def test_accepting_the_invite_besides_changes_nothing(http: httpx2.AsyncClient, invite: str) -> None:
    mei = bearer_header((await signed_up(http, invite)).json()["access_token"])
    answer = await http.post("/api/invites", json={"invite": invite}, headers=mei)
    assert answer.json() == {"thread_id": "show", "role": "member"}


async def test_nobody_does_unless_the_operator_lets_them(
    memory_bus: Bus, store: Store, town: Town, invite: str
) -> None:
    async with gateway(memory_bus, store, sign_up=False) as closed:
        assert (await closed.get("/api/room")).json()["sign_up"] is False
        assert await refused(await signed_up(closed, invite), town) == (403, "forbidden")
    async with gateway(memory_bus, store) as http:
        assert (await http.get("/api/room")).json()["sign_up"] is True
        assert (await signed_up(http, invite)).status_code == 201


async def test_a_room_that_asks_nobody_has_no_accounts_to_make(memory_bus: Bus, store: Store, invite: str) -> None:
    async with running_gateway(memory_bus, store, sign_up=True) as http:
        assert (await http.get("/api/room")).json()["sign_up"] is False
        assert (await signed_up(http, invite)).status_code == 404


@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE invites SET expires_at = now()",
        "UPDATE invites SET revoked_at = now()",
        "UPDATE accounts SET revoked_at = now() WHERE name = 'ann'",
        "DELETE FROM members WHERE principal_id = (SELECT made_by FROM invites)",
        "DELETE FROM threads",
    ],
)
async def test_an_invite_that_is_not_good_makes_no_account(
    http: httpx2.AsyncClient, town: Town, invite: str, ended: str
) -> None:
    await town.sql.execute(ended)
    counted = metrics.REFUSALS.labels("not_found")._value
    before = counted.get()
    for name in ("mei", "olaf"):
        answer = await signed_up(http, invite, name)
        assert await refused(answer, town) == (404, "not_found"), "whether or not somebody has the name"
        assert answer.json()["message"] == "The invite is not good (any more)."
    assert counted.get() == before + 2


async def test_what_was_made_up_makes_none_tells_of_no_name_and_counts_for_the_address(
    memory_bus: Bus, store: Store, town: Town, invite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = metrics.REFUSALS.labels("not_found")._value
    before = counted.get()
    monkeypatch.setattr(limits, "FAILURES", RateLimitItemPerMinute(5))
    async with gateway(memory_bus, store, limit_sign_ups="1/hour") as http:
        for made_up in (new_invite()[1], invite[:-1] + "_", "m3i_", "\x00"):
            assert await refused(await signed_up(http, made_up, "ann"), town) == (404, "not_found")
        assert counted.get() == before + 4
        assert (await signed_up(http, invite)).status_code == 201, "others may sign up from there all the same"
        await signed_up(http, new_invite()[1])
        answer = await signed_up(http, invite)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert "not good" in answer.json()["message"]


async def test_a_name_that_somebody_has_or_had_is_left_to_them(
    http: httpx2.AsyncClient, town: Town, invite: str
) -> None:
    await town.program("feed")
    await town.program("old-feed")
    await town.account("bob")
    await town.sql.execute("UPDATE producer_keys SET revoked_at = now() WHERE name = 'old-feed'")
    await town.sql.execute("UPDATE accounts SET revoked_at = now() WHERE name = 'bob'")
    accounts = await town.sql.fetch("SELECT * FROM accounts")
    for name in ("ann", "ANN", "feed", "old-feed", "bob"):
        answer = await signed_up(http, invite, name)
        assert (answer.status_code, answer.json()["code"]) == (409, "taken")
    assert await town.sql.fetch("SELECT * FROM accounts") == accounts
    await town.account("bob")  # by an operator


async def test_what_was_refused_to_who_had_an_invite_is_in_the_audit(
    memory_bus: Bus, store: Store, town: Town, invite: str
) -> None:
    async with gateway(memory_bus, store, limit_sign_ups="2/hour") as http:
        await signed_up(http, invite, "ann")
        await town.sql.execute("UPDATE invites SET revoked_at = now()")
        await signed_up(http, invite)
        await signed_up(http, invite)
    by_it = f"by the invite {invite.split('_')[1]}"
    lines = await town.sql.fetch(
        "SELECT tenant, actor, target, detail FROM audit WHERE action = 'sign_up' AND outcome = 'refused'"
    )
    assert {tuple(line) for line in lines} == {
        ("default", "", "show", f"{why}, {by_it}") for why in ("taken", "not_found", "rate_limited")
    }


async def test_a_name_and_a_password_are_as_all_are_and_what_is_none_is_no_attempt(
    memory_bus: Bus, store: Store, town: Town, invite: str
) -> None:
    async with gateway(memory_bus, store, limit_sign_ups="1/hour") as http:
        for name, password in (("two words", PASSWORD), ("mei", "short"), ("", PASSWORD), ("-mei", PASSWORD)):
            assert await refused(await signed_up(http, invite, name, password), town) == (422, "invalid_request")
        assert (await signed_up(http, invite)).status_code == 201


async def test_of_many_who_want_a_name_at_once_one_has_it(office: Office, town: Town) -> None:
    """Each by an invite of its own, so that nothing but the name has them wait; and a program besides."""
    by = at_the_machine("default")
    for number in range(10):
        name, places = f"mei-{number}", [f"show-{number}-{place}" for place in range(4)]
        invites = []
        for thread_id in places:
            await town.thread(thread_id)
            made = await office.invites.make(by, thread_id, "member", timedelta(days=1))
            invites.append(await office.sign_ups.find(made.invite))
        attempts = [office.sign_ups.sign_up(one, name, PASSWORD) for one in invites]
        had = await asyncio.gather(*attempts, office.accounts.add_key(by, name, places[:1]), return_exceptions=True)
        assert sorted(isinstance(one, Taken) for one in had) == [False] + [True] * 4, had
        assert sum(isinstance(one, SignedUp | str) for one in had) == 1


async def test_the_account_is_in_the_tenant_of_the_invite(
    memory_bus: Bus, store: Store, town: Town, invite: str
) -> None:
    await town.thread("acme.show")
    there = (await Invites(Directory(store)).make(at_the_machine("acme"), "show", "reader", timedelta(days=1))).invite
    async with gateway(memory_bus, store, tenants="default") as alone:
        assert await refused(await signed_up(alone, there), town) == (404, "not_found")
    async with gateway(memory_bus, store) as http:
        tokens = [(await signed_up(http, each)).json()["access_token"] for each in (invite, there)]
        told = [(await http.get("/api/me", headers=bearer_header(token))).json() for token in tokens]
        assert [(me["tenant"], me["name"]) for me in told] == [("default", "mei"), ("acme", "mei")]
        assert (await http.get("/api/threads/show/history", headers=bearer_header(tokens[1]))).status_code == 200


async def test_attempts_from_an_address_are_counted_by_all_gateways_together(
    memory_bus: Bus, store: Store, invite: str
) -> None:
    bound = {"limit_sign_ups": "3/hour", "trusted_proxies": "127.0.0.1"}
    async with gateway(memory_bus, store, **bound) as one, gateway(memory_bus, store, **bound) as other:
        for http, name in ((one, "ann"), (other, "mei"), (one, "ben")):
            answer = await signed_up(http, invite, name)
            assert answer.status_code == (409 if name == "ann" else 201)
        assert answer.headers["x-ratelimit-remaining"] == "0"
        answer = await signed_up(other, invite, "joe")
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        elsewhere = await other.post(
            "/api/signup",
            json={"invite": invite, "name": "joe", "password": PASSWORD},
            headers={"X-Forwarded-For": "203.0.113.7"},
        )
        assert elsewhere.status_code == 201


async def test_none_is_made_once_the_maker_of_the_invite_was_revoked_however_close_the_two_are(
    office: Office, town: Town, store: Store, invite: str
) -> None:
    """Whoever signs up while the maker is being revoked waits, and is told afterwards."""
    found = await office.sign_ups.find(invite)
    async with Directory(store).change("default", "root") as change:
        await change.revoke_account("ann")
        signing_up = asyncio.create_task(office.sign_ups.sign_up(found, "mei", PASSWORD))

        async def waits() -> bool:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%accounts%'"
            return signing_up.done() or bool(await town.sql.fetchval(waiting))

        await until(waits)
        assert not signing_up.done()
    with pytest.raises(NotInvited):
        await signing_up
    assert await town.sql.fetchval("SELECT count(*) FROM accounts WHERE name = 'mei'") == 0
