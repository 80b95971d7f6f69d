"""Invites: whoever of the tenant is sent one and signs in becomes a member."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from limits import RateLimitItemPerMinute
from websockets.exceptions import InvalidStatus

from m3.access import invites, limits
from m3.access.access import Access
from m3.access.accounts import at_the_machine
from m3.access.credentials import new_invite, new_key
from m3.access.invites import Invites
from m3.access.office import Office
from m3.bus import Bus
from m3.errors import NotInvited, NotSignedIn
from m3.store import Store
from m3.store.directory import Directory
from services.recorder import recorder
from tests.support.client import socket
from tests.support.gateway import running_gateway
from tests.support.pushing import running_pusher
from tests.support.town import Town, asking, bearer, bearer_header
from tests.support.until import until

CHANGES = asking().model_dump(exclude_unset=True)
PLACE = "/api/threads/show/invites"


@pytest.fixture
async def http(memory_bus: Bus, store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, **CHANGES) as http:
        yield http


@pytest.fixture
async def ann(town: Town) -> dict[str, str]:
    """The headers of who owns the thread `show` beside another."""
    ann = await town.person("ann")
    await town.account("olaf")
    await town.thread("show", ann="owner", olaf="owner")
    return bearer_header(ann)


@pytest.fixture
async def mei(town: Town) -> dict[str, str]:
    """Those of somebody who is no member."""
    return bearer_header(await town.person("mei"))


async def made(http: httpx2.AsyncClient, by: dict[str, str], **asked: Any) -> dict[str, Any]:
    answer = await http.post(PLACE, json=asked, headers=by)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def accepted(http: httpx2.AsyncClient, by: dict[str, str], invite: str) -> httpx2.Response:
    return await http.post("/api/invites", json={"invite": invite}, headers=by)


async def role_of(town: Town, name: str) -> str | None:
    role: str | None = await town.sql.fetchval(
        "SELECT role FROM members JOIN accounts ON account_id = principal_id WHERE name = $1 AND thread_id = 'show'",
        name,
    )
    return role


async def noted(town: Town) -> list[tuple[str, ...]]:
    rows = await town.sql.fetch("SELECT actor, action, target, detail FROM audit WHERE outcome = 'done' ORDER BY id")
    return [tuple(row) for row in rows]


async def test_an_owner_invites_and_whoever_accepts_reads_and_speaks(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    said = {"message": "hello", "thread_id": "show"}
    assert (await http.post("/api/chat", json=said, headers=mei)).status_code == 404
    told = await made(http, ann)
    assert (told["thread_id"], told["role"]) == ("show", "member")
    answer = await accepted(http, mei, told["invite"])
    assert (answer.status_code, answer.json()) == (200, {"thread_id": "show", "role": "member"})
    spoken = await http.post("/api/chat", json=said, headers=mei | {"Prefer": "respond-async"})
    assert spoken.status_code == 202
    assert (await http.get("/api/threads/show/history", headers=mei)).status_code == 200
    prefix = told["prefix"]
    assert await noted(town) == [
        ("ann", "invite_made", "show", f"{prefix}, as member"),
        ("mei", "member_added", "show", f"person mei as member, by the invite {prefix}"),
    ]


async def test_a_readers_invite_lets_read_and_not_speak(
    http: httpx2.AsyncClient, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann, role="reader")
    assert (await accepted(http, mei, told["invite"])).json()["role"] == "reader"
    assert (await http.get("/api/threads/show/history", headers=mei)).status_code == 200
    answer = await http.post("/api/chat", json={"message": "hello", "thread_id": "show"}, headers=mei)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_one_invite_is_for_many_and_accepting_it_twice_changes_nothing(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann)
    others = [bearer_header(await town.person(f"guest-{number}")) for number in range(8)]
    answers = await asyncio.gather(*(accepted(http, one, told["invite"]) for one in (*others, *others, mei, mei)))
    assert {(answer.status_code, answer.json()["role"]) for answer in answers} == {(200, "member")}
    lines = [line for line in await noted(town) if line[1] == "member_added"]
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("held", "offered", "kept"),
    [("owner", "member", "owner"), ("member", "reader", "member"), ("reader", "member", "member")],
)
async def test_whoever_may_more_there_already_keeps_it(  # noqa: PLR0913, PLR0917  # three of them are the case
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str], held: str, offered: str, kept: str
) -> None:
    await town.sql.execute("INSERT INTO members SELECT 'show', account_id, $1 FROM accounts WHERE name = 'mei'", held)
    told = await made(http, ann, role=offered)
    assert (await accepted(http, mei, told["invite"])).json()["role"] == kept == await role_of(town, "mei")


async def test_an_operator_invites_to_every_thread_and_accepts_as_others_do(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    root = bearer_header(await town.person("root", operator=True))
    told = await made(http, root)
    for who in (mei, root):
        assert (await accepted(http, who, told["invite"])).json()["role"] == "member"
    assert await role_of(town, "root") == "member"


async def test_what_is_made_at_the_machine_is_nobodys_and_good(
    http: httpx2.AsyncClient, store: Store, ann: dict[str, str], mei: dict[str, str]
) -> None:
    by = at_the_machine("default")
    told = await Invites(Directory(store)).make(by, "show", "reader", timedelta(days=1))
    (listed,) = (await http.get(PLACE, headers=ann)).json()["invites"]
    assert (listed["prefix"], listed["made_by"]) == (told.prefix, None)
    assert (await accepted(http, mei, told.invite)).json() == {"thread_id": "show", "role": "reader"}


# ---- Invites that are not good


def of_account(change: str) -> str:
    return f"UPDATE accounts SET {change} WHERE name = 'ann'"


#: What becomes of the invite or of its maker before somebody accepts it.
ENDED = {
    "expired": "UPDATE invites SET expires_at = now()",
    "taken back": "UPDATE invites SET revoked_at = now()",
    "its maker revoked": of_account("revoked_at = now()"),
    "its maker no owner": "UPDATE members SET role = 'member' WHERE principal_id = (SELECT made_by FROM invites)",
    "its maker gone": "DELETE FROM members WHERE principal_id = (SELECT made_by FROM invites)",
    "its thread gone": "DELETE FROM threads",
}


async def is_not_good(http: httpx2.AsyncClient, by: dict[str, str], invite: str) -> None:
    """And tells nothing."""
    answer = await accepted(http, by, invite)
    assert answer.status_code == 404
    assert answer.json() == {"code": "not_found", "message": "The invite is not good (any more)."}


@pytest.mark.parametrize("ended", ENDED)
async def test_an_invite_that_is_not_good_any_more_lets_nobody_in_and_is_listed_no_more(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str], ended: str
) -> None:
    root = bearer_header(await town.person("root", operator=True))
    told = await made(http, ann)
    await town.sql.execute(ENDED[ended])
    await is_not_good(http, mei, told["invite"])
    assert await role_of(town, "mei") is None
    listed = await http.get(PLACE, headers=root)
    assert listed.status_code == 404 if ended == "its thread gone" else listed.json()["invites"] == []


async def test_the_invites_of_an_operator_end_when_they_are_one_no_more(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    root = bearer_header(await town.person("root", operator=True))
    told = await made(http, root)
    await town.sql.execute("UPDATE accounts SET operator = false")
    await is_not_good(http, mei, told["invite"])


async def test_who_signs_out_has_invited_all_the_same(
    http: httpx2.AsyncClient, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann)
    assert (await http.post("/api/logout", headers=ann)).status_code == 204
    assert (await accepted(http, mei, told["invite"])).status_code == 200


async def test_another_tenants_invite_is_as_good_as_one_that_was_made_up(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    there = bearer_header(await town.person("mei", "acme"))
    await town.thread("acme.show", mei="owner")
    here, elsewhere = (await made(http, ann))["invite"], (await made(http, there))["invite"]
    await is_not_good(http, there, here)
    await is_not_good(http, mei, elsewhere)
    for invite in (
        new_invite()[1],
        here[:-1] + ("a" if here[-1] != "a" else "b"),
        new_key()[1],
        "show",
        "m3i_",
        "\x00",
    ):
        await is_not_good(http, mei, invite)
    assert await town.sql.fetchval("SELECT count(*) FROM members") == 3


async def test_an_owner_takes_an_invite_back_and_who_accepted_it_stays(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann)
    await accepted(http, mei, told["invite"])
    assert (await http.delete(f"{PLACE}/{told['prefix']}", headers=mei)).status_code == 403
    assert (await http.delete(f"{PLACE}/{told['prefix']}", headers=ann)).status_code == 204
    assert (await http.delete(f"{PLACE}/{told['prefix']}", headers=ann)).status_code == 404
    await is_not_good(http, bearer_header(await town.person("ben")), told["invite"])
    assert await role_of(town, "mei") == "member"
    assert (await noted(town))[-1] == ("ann", "invite_taken_back", "show", told["prefix"])


async def test_an_invite_to_another_thread_is_not_taken_back_by_its_prefix(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann)
    await town.thread("mine", mei="owner")
    assert (await http.delete(f"/api/threads/mine/invites/{told['prefix']}", headers=mei)).status_code == 404
    assert (await accepted(http, mei, told["invite"])).status_code == 200


async def test_a_program_accepts_none_and_an_invite_is_no_credential(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    told = await made(http, ann)
    answer = await accepted(http, bearer_header(await town.program("feed")), told["invite"])
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for nobody in ({}, bearer_header(told["invite"])):
        assert (await accepted(http, nobody, told["invite"])).status_code == 401
        assert (await http.get("/api/threads/show/history", headers=nobody)).status_code == 401


async def test_none_but_owners_and_operators_make_invites_or_see_them(
    http: httpx2.AsyncClient, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann)
    for status in (404, 403):
        assert (await http.post(PLACE, json={}, headers=mei)).status_code == status
        assert (await http.get(PLACE, headers=mei)).status_code == status
        await accepted(http, mei, told["invite"])


async def test_those_that_are_not_good_are_counted_by_address_and_past_many_none_is_looked_at(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], mei: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await made(http, ann)
    monkeypatch.setattr(limits, "FAILURES", RateLimitItemPerMinute(3))
    for _ in range(3):
        await is_not_good(http, mei, new_invite()[1])
    answer = await accepted(http, mei, told["invite"])
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")

    async def are_noted() -> bool:
        rows = await town.sql.fetch("SELECT actor, target, detail FROM audit WHERE outcome = 'refused'")
        return {tuple(row) for row in rows} >= {("mei", "", "join: not_found")}

    await until(are_noted)


# ---- What is shown and kept


async def test_a_list_tells_of_each_what_it_is_and_never_its_secret(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    first, second = await made(http, ann), await made(http, ann, role="reader", expires_in=60)
    listed = await http.get(PLACE, headers=ann)
    assert [(one["prefix"], one["role"], one["made_by"]) for one in listed.json()["invites"]] == [
        (first["prefix"], "member", "ann"),
        (second["prefix"], "reader", "ann"),
    ]
    assert [one["expires_at"] for one in listed.json()["invites"]] == [first["expires_at"], second["expires_at"]]
    kept = str([await town.sql.fetch(f"SELECT t::text FROM {table} t") for table in ("invites", "audit")])
    for told in (first, second):
        assert told["invite"].startswith(f"m3i_{told['prefix']}_")
        assert told["invite"][-43:] not in listed.text + kept
    lasting = await town.sql.fetch("SELECT expires_at - created_at FROM invites ORDER BY created_at")
    assert [row[0] for row in lasting] == [timedelta(days=7), timedelta(minutes=1)]


@pytest.mark.parametrize(
    "asked",
    [
        {"role": "owner"},
        {"role": "feeder"},
        {"expires_in": 59},
        {"expires_in": 30 * 24 * 3600 + 1},
        {"expires_in": "60"},
        {"expires_in": None},
    ],
)
async def test_an_invite_is_for_no_owner_and_good_for_a_minute_to_a_month(
    http: httpx2.AsyncClient, ann: dict[str, str], asked: dict[str, object]
) -> None:
    answer = await http.post(PLACE, json=asked, headers=ann)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await http.get(PLACE, headers=ann)).json()["invites"] == []


async def test_a_thread_has_so_many_that_are_good_and_no_more_however_many_come_at_once(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invites.MOST == 100
    monkeypatch.setattr(invites, "MOST", 3)
    answers = await asyncio.gather(*(http.post(PLACE, json={}, headers=ann) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"too_many_invites"}
    await town.sql.execute("UPDATE invites SET expires_at = now() WHERE prefix = (SELECT min(prefix) FROM invites)")
    await made(http, ann)


async def test_what_has_not_been_good_for_a_day_is_thrown_away_when_another_is_made(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    told = [(await made(http, ann))["prefix"] for _ in range(4)]
    for prefix, change in zip(told, ("expires_at", "expires_at", "revoked_at"), strict=False):
        hours = 23 if prefix == told[0] else 25
        await town.sql.execute(
            f"UPDATE invites SET {change} = now() - $2 * interval '1 hour' WHERE prefix = $1", prefix, hours
        )
    last = (await made(http, ann))["prefix"]
    kept = {row["prefix"] for row in await town.sql.fetch("SELECT prefix FROM invites")}
    assert kept == {told[0], told[3], last}


# ---- At once


@asynccontextmanager
async def welcomed(address: str, who: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
    async with socket(address, "show", who) as listener:
        yield await listener.next("connected")


async def test_whoever_was_let_in_opens_a_socket_at_once(
    http: httpx2.AsyncClient, memory_bus: Bus, store: Store, ann: dict[str, str], mei: dict[str, str]
) -> None:
    told = await made(http, ann, role="reader")
    async with running_pusher(memory_bus, store, **CHANGES) as (address, _):
        with pytest.raises(InvalidStatus) as refused:
            async with welcomed(address, mei):
                pass
        assert refused.value.response.status_code == 404
        await accepted(http, mei, told["invite"])
        async with welcomed(address, mei) as welcome:
            assert welcome["thread_id"] == "show"


async def test_none_is_accepted_once_its_maker_was_revoked_or_demoted_however_close_the_two_are(
    access: Access, office: Office, town: Town
) -> None:
    """Whoever accepts waits for who revokes its maker, or the other way round, and neither for ever."""
    by = at_the_machine("default")

    async def revoke(name: str, _: str) -> None:
        await office.accounts.revoke_user(by, name)

    async def dismiss(name: str, thread_id: str) -> None:
        await office.memberships.dismiss(by, thread_id, name)

    ends: tuple[Callable[[str, str], Awaitable[None]], ...] = (revoke, dismiss)
    await town.account("olaf")
    for number in range(20):
        maker, thread_id = f"maker-{number}", f"show-{number}"
        who = await access.identify(bearer(await town.person(maker)))
        guest = await access.identify(bearer(await town.person(f"guest-{number}")))
        await town.thread(thread_id, olaf="owner", **{maker: "owner"})
        invite = (await office.invites.make(who, thread_id, "member", timedelta(days=1))).invite
        accepting, ended = await asyncio.gather(
            office.invites.accept(guest, invite), ends[number % 2](maker, thread_id), return_exceptions=True
        )
        assert ended is None
        assert isinstance(accepting, NotInvited) == (
            guest.name not in {member.name for member in await office.memberships.members(thread_id)}
        )
        with pytest.raises(NotInvited):
            await office.invites.accept(guest, invite)


async def test_who_was_revoked_just_now_accepts_none(
    http: httpx2.AsyncClient, access: Access, office: Office, town: Town, ann: dict[str, str]
) -> None:
    told = await made(http, ann)
    mei = await access.identify(bearer(await town.person("mei")))
    await town.sql.execute("UPDATE accounts SET revoked_at = now() WHERE name = 'mei'")
    with pytest.raises(NotSignedIn):
        await office.invites.accept(mei, told["invite"])
    assert await role_of(town, "mei") is None
