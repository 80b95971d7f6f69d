"""What operators and people fill in over HTTP: told in sentences what is missing, and refused what nobody asked for."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from m3.access.access import Access
from m3.access.accounts import at_the_machine
from m3.access.office import Office
from m3.bus import Bus
from m3.errors import LastOperator
from m3.store import Store
from tests.support.gateway import running_gateway
from tests.support.town import Town, asking, bearer_header


@pytest.fixture
async def http(memory_bus: Bus, store: Store, town: Town) -> AsyncIterator[httpx2.AsyncClient]:
    """As an operator."""
    token = await town.person("root", operator=True)
    async with running_gateway(memory_bus, store, **asking().model_dump(exclude_unset=True)) as http:
        http.headers |= bearer_header(token)
        yield http


async def refused(http: httpx2.AsyncClient, path: str, body: object, status: int = 422, method: str = "POST") -> str:
    """The sentence."""
    answer = await http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    said: str = answer.json()["message"]
    return said


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("POST", "/api/login", {"name": "ann", "password": "correct horse"}),
        ("POST", "/api/signup", {"invite": "m3i_", "name": "ann", "password": "correct horse"}),
        ("POST", "/api/refresh", {"refresh_token": "m3r_"}),
        ("POST", "/api/password", {"password": "correct horse", "new_password": "battery staple"}),
        ("POST", "/api/users", {"name": "ann"}),
        ("PUT", "/api/users/root", {"operator": True}),
        ("POST", "/api/keys", {"name": "feed", "threads": ["show"]}),
        ("POST", "/api/threads", {"visibility": "open"}),
        ("PUT", "/api/threads/show/members/root", {"role": "owner"}),
        ("PUT", "/api/threads/show/visibility", {"visibility": "open"}),
        ("POST", "/api/threads/show/invites", {"role": "reader", "expires_in": 60}),
        ("POST", "/api/invites", {"invite": "m3i_"}),
    ],
)
async def test_a_form_takes_no_field_that_it_does_not_have_and_says_what_it_has(
    http: httpx2.AsyncClient, town: Town, method: str, path: str, form: dict[str, object]
) -> None:
    await town.thread("show")
    assert "thread: Extra inputs" in await refused(http, path, {**form, "thread": ["show"]}, method=method)
    answer = await http.request(method, path, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    none: tuple[object, ...] = ([], 1, "a")
    for said in (answer.json()["message"], *[await refused(http, path, body, method=method) for body in none]):
        assert said.startswith("The body must be a JSON object")
        assert all(name in said for name in form)


async def test_a_form_is_told_with_what_it_needs_and_what_it_may_have(http: httpx2.AsyncClient) -> None:
    said = await refused(http, "/api/keys", [])
    assert said == "The body must be a JSON object that has name and threads, and may have reads."
    said = await refused(http, "/api/threads", [])
    assert said == "The body must be a JSON object that may have thread_id and visibility."


async def test_a_key_is_for_a_thread_at_least(http: httpx2.AsyncClient) -> None:
    assert await refused(http, "/api/keys", {"name": "feed"}) == "threads: Field required."
    assert "threads" in await refused(http, "/api/keys", {"name": "feed", "threads": []})


async def test_a_key_is_told_with_its_prefix_and_revoked_by_that_or_by_its_name(
    http: httpx2.AsyncClient, town: Town
) -> None:
    await town.thread("show")
    first, second = [
        (await http.post("/api/keys", json={"name": name, "threads": ["show"]})).json() for name in ("feed", "other")
    ]
    assert first["key"].startswith(f"m3k_{first['prefix']}_")
    assert (await http.delete(f"/api/keys/{first['prefix']}")).status_code == 204
    assert (await http.delete("/api/keys/Other")).status_code == 204
    assert (await http.get("/api/keys")).json()["keys"] == []
    answer = await http.delete(f"/api/keys/{second['prefix']}")
    assert (answer.status_code, answer.json()["message"]) == (404, "There is no key of that prefix or name.")


async def test_a_program_does_not_sign_out(http: httpx2.AsyncClient, town: Town) -> None:
    answer = await http.post("/api/logout", headers=bearer_header(await town.program("feed")))
    assert (answer.status_code, answer.json()["message"]) == (403, "A key is revoked by an operator.")


@pytest.mark.parametrize("password", ["short", "x" * 257])
async def test_a_password_that_is_too_short_or_too_long_is_told_so(http: httpx2.AsyncClient, password: str) -> None:
    change = {"password": "correct horse", "new_password": password}
    assert await refused(http, "/api/password", change) == "new_password: A password has 8 to 256 characters."


async def test_an_operator_lists_all_threads_of_the_tenant_and_whose_they_are(
    http: httpx2.AsyncClient, town: Town
) -> None:
    ann = await town.person("ann")
    await town.thread("hers", ann="owner")
    await town.thread("mine", "open", root="owner", ann="member")
    await town.thread("nobodys")
    await town.thread("acme.other", "open")
    silent: dict[str, object] = {"head": 0, "last_at": None}
    hers = {"thread_id": "hers", "visibility": "private", "role": None, "owners": ["ann"], "members": 1} | silent
    mine = {"thread_id": "mine", "visibility": "open", "role": "owner", "owners": ["root"], "members": 2} | silent
    none: dict[str, object] = {"thread_id": "nobodys", "visibility": "private", "role": None}
    nobodys = none | {"owners": [], "members": 0} | silent
    assert (await http.get("/api/threads")).json()["threads"] == [hers, mine, nobodys]
    page = (await http.get("/api/threads?after=hers&limit=1")).json()["threads"]
    assert page == [mine]
    seen = (await http.get("/api/threads", headers=bearer_header(ann))).json()["threads"]
    assert [(thread["thread_id"], thread["role"], thread["owners"]) for thread in seen] == [
        ("hers", "owner", None),
        ("mine", "member", None),
    ]


async def noted(http: httpx2.AsyncClient, action: str) -> list[tuple[str, str, str]]:
    lines = (await http.get("/api/audit")).json()["entries"]
    return [(line["actor"], line["target"], line["detail"]) for line in lines if line["action"] == action]


async def test_an_operator_gives_somebody_another_password_for_one_sign_in(
    http: httpx2.AsyncClient, town: Town
) -> None:
    first = (await http.post("/api/users", json={"name": "ann"})).json()["password"]
    login = {"name": "ann", "password": first, "new_password": "battery staple"}
    token = (await http.post("/api/login", json=login)).json()["access_token"]
    answer = await http.post("/api/users/Ann/password")
    assert (answer.status_code, answer.json()["name"]) == (200, "ann")
    assert answer.json()["password"] not in {first, "battery staple"}
    assert (await http.get("/api/me", headers=bearer_header(token))).status_code == 401
    login = {"name": "ann", "password": answer.json()["password"]}
    assert (await http.post("/api/login", json=login)).json()["code"] == "password_change_needed"
    assert (await http.post("/api/login", json={**login, "new_password": "a third one"})).status_code == 200
    assert ("root", "ann", "one-time") in await noted(http, "password_changed")
    assert (await http.post("/api/users/nobody/password")).status_code == 404


async def test_an_operator_makes_another_and_the_last_one_stays(http: httpx2.AsyncClient, town: Town) -> None:
    ann = bearer_header(await town.person("ann"))
    assert (await http.get("/api/users", headers=ann)).status_code == 403
    assert "last" not in (await http.put("/api/users/ann", json={"operator": True})).text
    assert (await http.get("/api/users", headers=ann)).status_code == 200
    answer = await http.put("/api/users/root", json={"operator": False}, headers=ann)
    assert (answer.json()["name"], answer.json()["operator"]) == ("root", False)
    assert (await http.get("/api/users")).status_code == 403
    for name in ("ann", "ann"):
        answer = await http.put(f"/api/users/{name}", json={"operator": False}, headers=ann)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_operator")
    assert (await http.put("/api/users/nobody", json={"operator": True}, headers=ann)).status_code == 404
    http.headers |= ann
    assert await noted(http, "user_changed") == [("ann", "root", "person"), ("root", "ann", "operator")]


async def test_of_two_operators_who_go_at_once_one_is_left(town: Town, access: Access, office: Office) -> None:
    for name in ("root", "ann"):
        await town.account(name, operator=True)
    going = [office.accounts.change_user(at_the_machine("default"), name, operator=False) for name in ("root", "ann")]
    told = await asyncio.gather(*going, return_exceptions=True)
    assert [isinstance(one, LastOperator) for one in told].count(True) == 1
    assert [user.operator for user in await office.accounts.users(at_the_machine("default"))].count(True) == 1


async def test_a_feeder_without_its_kind_is_told_what_is_missing(http: httpx2.AsyncClient, town: Town) -> None:
    await town.thread("show")
    await town.program("feed")
    said = await refused(http, "/api/threads/show/members/feed", {"role": "feeder"}, method="PUT")
    assert said.endswith('say "kind": "program" too.')


async def test_whoever_says_no_tenant_signs_in_to_the_first(
    memory_bus: Bus, store: Store, office: Office, town: Town
) -> None:
    once = await office.accounts.add_user(at_the_machine("acme"), "mei")
    login = {"name": "mei", "password": once, "new_password": "correct horse"}
    for tenants, status in (("default,acme", 401), ("acme,default", 200)):
        settings = asking(tenants=tenants).model_dump(exclude_unset=True)
        async with running_gateway(memory_bus, store, **settings) as http:
            assert (await http.post("/api/login", json=login)).status_code == status
