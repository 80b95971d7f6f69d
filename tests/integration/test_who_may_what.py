"""Every route of the HTTP door, for everybody, is what the table of rules says it is."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import argon2
import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount

from m3.access.principals import ANYONE, Kind
from m3.access.rules import OPEN_TO_ALL, ROUTES, Action, Standing, about_a_thread, finds, may
from m3.bus import Bus
from m3.errors import StartError
from m3.events import Message, MessageAccepted
from m3.store import Store
from m3.tenants import key_of
from services.gateway.asking import ask_who
from services.recorder import recorder
from tests.support.building import built_page
from tests.support.gateway import hand_in, reply_to, running_gateway
from tests.support.town import Town, asking, bearer_header
from tests.support.until import until

PASSWORD = "correct horse"
#: So that nobody is refused for asking often.
PATIENT = dict.fromkeys(
    ("limit_posts", "limit_feeds", "limit_batches", "limit_changes", "limit_tickets", "limit_logins", "limit_sign_ups"),
    "100000/minute",
)

Credential = Callable[[], Awaitable[str]]


@dataclass
class Who:
    """Somebody, and what makes a credential of theirs; of no ``kind`` is who has none, or none that is good."""

    kind: Kind | None
    new_credential: Credential | None = None
    tenant: str = "default"
    standings: dict[str, Standing] = field(default_factory=dict)  # to threads, by their ids
    _credential: str | None = None

    async def headers(self) -> dict[str, str]:
        if self.new_credential is None:
            return {}
        self._credential = self._credential or await self.new_credential()
        return bearer_header(self._credential)

    def sign_out(self) -> None:
        self._credential = None


@dataclass(frozen=True)
class Call:
    """A request that is taken of whoever may make it, and the status of its answer then."""

    status: int
    body: object = None
    place: str = ""  # what stands for {name} or {prefix}, or is behind the path
    first: Callable[[httpx2.AsyncClient], Awaitable[object]] | None = None  # makes the body
    asks: Action | None = None  # where the route could ask for others as well


async def refresh_token(http: httpx2.AsyncClient) -> object:
    answer = await http.post("/api/login", json={"name": "opal", "password": PASSWORD})
    return {"refresh_token": answer.json()["refresh_token"]}


async def of_nobody(_: httpx2.AsyncClient) -> object:
    return {"invite": f"m3i_00000000_{'x' * 43}", "name": "nobody", "password": PASSWORD}


async def new_name(http: httpx2.AsyncClient) -> object:
    return {"name": f"new-{uuid4().hex}"}


async def new_key(http: httpx2.AsyncClient) -> object:
    return {"name": f"new-{uuid4().hex}", "threads": ["square"]}


CALLS: dict[tuple[str, str], Call] = {
    ("POST", "/api/chat"): Call(202, {"message": "hello"}),
    ("POST", "/api/threads/{thread_id}/messages"): Call(202, [{"message": "hello"}]),
    ("GET", "/api/threads/{thread_id}/history"): Call(200),
    ("GET", "/api/threads/{thread_id}/search"): Call(200, place="?q=hello"),
    ("GET", "/api/messages/{message_id}"): Call(200),
    ("POST", "/api/messages/{message_id}/retry"): Call(202),
    ("POST", "/api/threads/{thread_id}/cancel"): Call(202),
    ("GET", "/api/threads/{thread_id}/settings"): Call(200),
    ("PUT", "/api/threads/{thread_id}/settings"): Call(200, {}),
    ("GET", "/api/threads"): Call(200),
    ("POST", "/api/threads"): Call(201, {}),
    ("GET", "/api/threads/{thread_id}/members"): Call(200),
    ("PUT", "/api/threads/{thread_id}/members/{name}"): Call(200, {"role": "reader"}, "guido"),
    ("DELETE", "/api/threads/{thread_id}/members/{name}"): Call(404, place="nobody", asks=Action.ADMIT),
    ("PUT", "/api/threads/{thread_id}/visibility"): Call(200, {"visibility": "private"}),
    ("GET", "/api/threads/{thread_id}/invites"): Call(200),
    ("POST", "/api/threads/{thread_id}/invites"): Call(201, {"role": "reader"}),
    ("DELETE", "/api/threads/{thread_id}/invites/{prefix}"): Call(404, place="00000000"),
    ("POST", "/api/invites"): Call(404, {"invite": f"m3i_00000000_{'x' * 43}"}),
    ("POST", "/api/login"): Call(200, {"name": "opal", "password": PASSWORD}),
    ("POST", "/api/signup"): Call(404, first=of_nobody),
    ("POST", "/api/refresh"): Call(200, first=refresh_token),
    ("POST", "/api/logout"): Call(204),
    ("POST", "/api/password"): Call(403, {"password": "wrong", "new_password": "another one"}),
    ("GET", "/api/me"): Call(200),
    ("POST", "/api/ws-ticket"): Call(200),
    ("GET", "/api/users"): Call(200),
    ("POST", "/api/users"): Call(201, first=new_name),
    ("PUT", "/api/users/{name}"): Call(200, {"operator": False}, "guido"),
    ("DELETE", "/api/users/{name}"): Call(404, place="nobody"),
    ("POST", "/api/users/{name}/password"): Call(404, place="nobody"),
    ("GET", "/api/keys"): Call(200),
    ("POST", "/api/keys"): Call(201, first=new_key),
    ("DELETE", "/api/keys/{prefix}"): Call(404, place="00000000"),
    ("GET", "/api/audit"): Call(200),
    ("GET", "/"): Call(200),
    ("GET", "/assets/{path:path}"): Call(200, place="index-1a2b.js"),
    ("GET", "/api/room"): Call(200),
    ("GET", "/healthz"): Call(200),
    ("GET", "/readyz"): Call(200),
    ("GET", "/metrics"): Call(200),
    ("GET", "/docs"): Call(200),
    ("GET", "/docs/files"): Call(200, place="/swagger-ui.css"),
    ("GET", "/openapi.json"): Call(200),
}
#: What is about a thread and not there where nobody is asked who they are.
ASKS_WHO = ("/members", "/{name}", "/visibility", "/invites", "/{prefix}")
#: Threads of the default tenant: one that is open, one that is not, and one that is not there at all.
THREADS = ("square", "closed", "missing")


@pytest.fixture
async def everybody(town: Town) -> dict[str, Who]:
    """In the thread `closed` everybody is what they are called; all accounts are guests of `square`."""
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)  # cheap to look at

    async def account(name: str, tenant: str = "default", *, operator: bool = False) -> Credential:
        account = await town.account(name, tenant, operator=operator)
        await town.sql.execute("UPDATE accounts SET password_hash = $2 WHERE account_id = $1", account, hashed)
        return lambda: town.signed_in(account, tenant)

    async def program(name: str, tenant: str = "default") -> Credential:
        key = await town.program(name, tenant)

        async def credential() -> str:
            return key

        return credential

    found: dict[str, Who] = {"nobody": Who(None)}
    people: dict[str, Standing | None] = {"owen": "owner", "mia": "member", "rita": "reader", "stan": None}
    for name, role in people.items():
        standings: dict[str, Standing] = {"square": "guest"}
        found[f"person, {role or 'stranger'}"] = Who(
            "person", await account(name), standings=standings | ({"closed": role} if role else {})
        )
    found["operator"] = Who("operator", await account("opal", operator=True), standings={"square": "guest"})
    programs: dict[str, Standing | None] = {"feed": "feeder", "bot": "member", "watch": "reader", "lost": None}
    for name, role in programs.items():
        found[f"program, {role or 'stranger'}"] = Who(
            "program", await program(name), standings={"closed": role} if role else {}
        )
    found["person of another tenant"] = Who("person", await account("owen", "acme"), "acme", {"square": "owner"})
    found["operator of another tenant"] = Who("operator", await account("opal", "acme", operator=True), "acme")
    found["program of another tenant"] = Who("program", await program("feed", "acme"), "acme", {"square": "feeder"})
    for tenant in ("default", "acme"):
        await account("guido", tenant)
    revoked = await program("revoked")
    found["person, revoked"] = Who(None, await account("revoked-person"))
    found["program, revoked"] = Who(None, revoked)
    await town.sql.execute("UPDATE accounts SET revoked_at = now() WHERE name = 'revoked-person'")
    await town.sql.execute("UPDATE producer_keys SET revoked_at = now() WHERE name = 'revoked'")
    await town.thread("square", "open")
    await town.thread("closed", owen="owner", mia="member", rita="reader", feed="feeder", bot="member", watch="reader")
    await town.thread("acme.square", owen="owner", feed="feeder")
    return found


@pytest.fixture
async def messages(everybody: dict[str, Who], store: Store) -> dict[str, UUID]:
    """A message in each thread of the default tenant, by the thread's id; and an id of none."""
    said = [
        MessageAccepted(thread_id=thread_id, source="user", content="a", interface="http_api", origin="nobody")
        for thread_id in THREADS[:2]
    ]
    await store.record(said)
    return {message.thread_id: message.message_id for message in said} | {"missing": uuid4()}


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.app.PAGE", built_page(tmp_path))


@pytest.fixture
async def http(memory_bus: Bus, store: Store, everybody: dict[str, Who]) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that asks who somebody is."""
    changes = asking(sign_up=True, **PATIENT).model_dump(exclude_unset=True)
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, **changes) as http:
        yield http


async def ask(
    http: httpx2.AsyncClient, route: tuple[str, str], who: Who, thread_id: str, messages: dict[str, UUID]
) -> httpx2.Response:
    (method, path), call = route, CALLS[route]
    body = await call.first(http) if call.first else call.body
    if path == "/api/chat":
        body = {**CALLS[route].body, "thread_id": thread_id}  # type: ignore[dict-item]  # it is one
    names = dict.fromkeys(("name", "prefix", "path"), call.place)
    place = path.replace(":path}", "}").format(thread_id=thread_id, message_id=messages[thread_id], **names)
    place += "" if any(f"{{{name}" in path for name in names) else call.place
    headers = await who.headers() | {"Prefer": "respond-async"}
    answer = await http.request(method, place, headers=headers, json=body)
    if path == "/api/logout":
        who.sign_out()
    return answer


def expected(route: tuple[str, str], who: Who, thread_id: str) -> int:
    """The status, by the rules."""
    asks = CALLS[route].asks
    rule = ROUTES[route] if asks is None else {asks}
    if rule <= OPEN_TO_ALL:
        return CALLS[route].status
    if who.kind is None:
        return 401
    standing = who.standings.get(thread_id)
    if any(map(about_a_thread, rule)):
        there = thread_id != "missing" and (who.tenant == "default" or thread_id == "square")
        if "{message_id}" in route[1] and who.tenant != "default":
            there = False  # it is in the other tenant's thread of that id
        if not there or not finds(who.kind, standing):
            return 404
    return CALLS[route].status if any(may(who.kind, action, standing) for action in rule) else 403


async def test_every_route_answers_everybody_as_the_table_of_rules_says(
    http: httpx2.AsyncClient, everybody: dict[str, Who], messages: dict[str, UUID], town: Town
) -> None:
    wrong = []
    for route in CALLS:
        about_threads = any(map(about_a_thread, ROUTES[route]))
        for name, who in everybody.items():
            for thread_id in THREADS if about_threads else THREADS[:1]:
                answer = await ask(http, route, who, thread_id, messages)
                if answer.status_code != expected(route, who, thread_id):
                    wrong.append((route, name, thread_id, expected(route, who, thread_id), answer.text))
                if route[1].endswith("/visibility"):
                    await town.sql.execute("UPDATE threads SET visibility = 'open' WHERE thread_id = 'square'")
    assert wrong == []


async def test_the_walk_leaves_no_route_out(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described <= set(CALLS)
    hidden = ("/", "/assets/{path:path}", "/metrics", "/docs", "/docs/files", "/openapi.json")
    assert set(CALLS) - described == {("GET", path) for path in hidden}


async def test_the_description_says_which_routes_take_a_credential(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            takes_one = not ROUTES[method.upper(), path] <= OPEN_TO_ALL
            assert (operation.get("security") == [{"bearer": []}]) == takes_one, (method, path)
            if takes_one:
                assert {"401", "403"} <= set(operation["responses"])


def test_a_route_without_a_rule_keeps_the_gateway_from_starting() -> None:
    router = APIRouter()

    @router.get("/api/secrets")
    async def secrets() -> None:
        pass

    for route in (*router.routes, Mount("/files", app=FastAPI())):
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.router.routes.append(route)
        with pytest.raises(StartError, match="rule"):
            ask_who(app, *[None] * 2)  # type: ignore[arg-type]  # it gets to neither
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router)
    with pytest.raises(StartError, match="rule"):
        ask_who(app, *[None] * 2)  # type: ignore[arg-type]  # likewise


async def test_nobody_can_tell_a_thread_that_is_not_theirs_from_one_that_is_not_there(
    http: httpx2.AsyncClient, everybody: dict[str, Who], messages: dict[str, UUID]
) -> None:
    """Neither by the status nor by the headers, but for those that tell the time and count requests, nor by the body."""
    changing = {"date", "x-ratelimit-remaining", "x-ratelimit-reset"}

    def seen(answer: httpx2.Response) -> tuple[int, list[tuple[str, str]], bytes]:
        told = [(name, "" if name in changing else value) for name, value in answer.headers.items()]
        return answer.status_code, told, answer.content

    for route in CALLS:
        if not any(map(about_a_thread, ROUTES[route])):
            continue
        for name in ("person, stranger", "program, stranger", "program of another tenant"):
            foreign, missing = [
                await ask(http, route, everybody[name], thread_id, messages) for thread_id in ("closed", "missing")
            ]
            assert foreign.status_code == 404
            assert seen(foreign) == seen(missing), (route, name)


async def test_a_program_that_only_feeds_is_told_nothing_of_what_is_said_there_by_any_door(
    http: httpx2.AsyncClient, everybody: dict[str, Who], messages: dict[str, UUID], memory_bus: Bus, store: Store
) -> None:
    feeder = await everybody["program, feeder"].headers()
    said, key = {"message": "hello", "thread_id": "closed"}, {"Idempotency-Key": "1"}
    stream = {"Accept": "text/event-stream"}
    ways: tuple[dict[str, str], ...] = ({}, key, key | stream, stream | {"Prefer": "respond-async"})
    for headers in ways:
        await http.post("/api/chat", json=said, headers=feeder | headers)
    heard = [message for message in await store.latest("closed", 10) if message.author == "feed"]
    await hand_in(memory_bus, *(reply_to(message, content="a secret") for message in heard))
    await until(lambda: all_settled(store, heard))
    answers = [await http.post("/api/chat", json=said, headers=feeder | headers) for headers in ways]
    back = {"Last-Event-ID": str(heard[0].message_id)}
    answers += [await http.post("/api/chat", json=said, headers=feeder | back | headers) for headers in ({}, stream)]
    for message in (*heard, *[message for message in await store.latest("closed", 10) if message.source != "api"]):
        told = messages | {"closed": message.message_id}
        answers += [await ask(http, route, everybody["program, feeder"], "closed", told) for route in CALLS]
    assert {answer.status_code for answer in answers[: len(ways) + 2]} == {202}
    for answer in answers:
        assert "a secret" not in answer.text, answer.request.url
        assert "location" not in answer.headers, answer.request.url


async def all_settled(store: Store, messages: list[Message]) -> bool:
    known = await store.messages([message.message_id for message in messages])
    return all(message.fate == "answered" for message in known.values())


async def test_no_text_is_taken_for_an_outage(
    http: httpx2.AsyncClient, everybody: dict[str, Who], messages: dict[str, UUID]
) -> None:
    """PostgreSQL keeps neither a NUL nor half a character."""
    headers = await everybody["operator"].headers() | {"Prefer": "respond-async"}
    document = (await http.get("/openapi.json")).json()
    wrong = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for place, body in bad_texts(path, operation, document["components"]["schemas"], messages):
                answer = await http.request(
                    method, place, headers=headers | {"Content-Type": "application/json"}, content=body
                )
                if answer.status_code >= 500:
                    wrong.append((method, place, body, answer.text))
    assert wrong == []


BAD_TEXTS = ("\\u0000", "a\\u0000b", "\\ud800")  # as JSON has them


def bad_texts(
    path: str, operation: dict[str, Any], schemas: dict[str, Any], messages: dict[str, UUID]
) -> Iterator[tuple[str, str]]:
    """Paths and bodies, each with such a text in one place."""
    good = {"thread_id": "square", "message_id": str(messages["square"]), "name": "nobody", "prefix": "00000000"}
    places = [path.format(**good | {name: bad}) for name in good if f"{{{name}}}" in path for bad in ("%00", "a%00b")]
    queries = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    at = path.format(**good)
    places += [f"{at}?{name}={bad}" for name in queries for bad in ("%00", "a%00b", "%ed%a0%80")]
    yield from ((place, "{}") for place in places)
    for kind in operation.get("requestBody", {}).get("content", {}).values():
        schema = kind["schema"]
        schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        known = {"name": "nobody", "password": "not this one", "new_password": "nor this", "role": "reader"}
        for name_of_text in schema.get("properties", ()):
            others = {name: known.get(name, "a") for name in schema.get("required", ()) if name != name_of_text}
            for bad in BAD_TEXTS:
                yield at, json.dumps(others)[:-1] + ("," if others else "") + f'"{name_of_text}":"{bad}"}}'


@pytest.mark.parametrize(
    "place",
    [
        "GET /api/users?after=%00",
        "GET /api/keys?after=a%00",
        "DELETE /api/users/%00",
        "DELETE /api/keys/%00",
        "DELETE /api/threads/square/members/a%00",
    ],
)
async def test_what_no_name_has_is_refused_as_such(
    http: httpx2.AsyncClient, everybody: dict[str, Who], place: str
) -> None:
    method, path = place.split()
    answer = await http.request(method, path, headers=await everybody["operator"].headers())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_tenants_with_the_same_thread_ids_see_and_reach_only_their_own(
    http: httpx2.AsyncClient, everybody: dict[str, Who], store: Store
) -> None:
    shown = {
        "here": await everybody["person, stranger"].headers(),
        "there": await everybody["person of another tenant"].headers(),
    }
    for name, headers in shown.items():
        said = {"message": name, "thread_id": "square"}
        extra = {"Prefer": "respond-async", "Idempotency-Key": "the same"}
        answer = await http.post("/api/chat", json=said, headers=headers | extra)
        assert (answer.status_code, answer.json()["thread_id"]) == (202, "square")
    for name, headers in shown.items():
        answer = await http.get("/api/threads/square/history", headers=headers)
        told = answer.json()["messages"]
        assert [(message["content"], message["thread_id"]) for message in told] == [(name, "square")]
        assert answer.json()["thread_id"] == "square"
    for tenant, name in (("default", "here"), ("acme", "there")):
        (message,) = await store.latest(key_of(tenant, "square"), 10)
        assert message.content == name
        other = shown["there" if name == "here" else "here"]
        hidden = await http.get(f"/api/messages/{message.message_id}", headers=other)
        assert hidden.status_code == 404


async def test_whom_another_process_demoted_changes_nothing_however_lately_they_were_let_in(
    http: httpx2.AsyncClient, everybody: dict[str, Who], town: Town
) -> None:
    owner, operator = [await everybody[name].headers() for name in ("person, owner", "operator")]
    settings, myself = "/api/threads/closed/settings", "/api/threads/closed/members/owen"
    assert (await http.put(settings, json={"system_prompt": "Before."}, headers=owner)).status_code == 200
    assert (await http.get("/api/users", headers=operator)).status_code == 200
    await town.sql.execute("UPDATE members SET role = 'reader' WHERE role = 'owner'")
    await town.sql.execute("UPDATE accounts SET revoked_at = now() WHERE name = 'opal'")
    assert (await http.put(settings, json={"system_prompt": "After."}, headers=owner)).status_code == 403
    assert (await http.put(myself, json={"role": "owner"}, headers=owner)).status_code == 403
    assert (await http.get(settings, headers=owner)).json()["settings"]["system_prompt"] == "Before."
    added = {"name": "another", "operator": True}
    assert (await http.post("/api/users", json=added, headers=operator)).status_code == 401
    assert (await http.get("/api/users", headers=operator)).status_code == 401, "and is not remembered any more"


async def test_members_and_readers_leave_and_owners_let_no_program_in(
    http: httpx2.AsyncClient, everybody: dict[str, Who]
) -> None:
    place = "/api/threads/closed/members"
    for name, role in (("mia", "member"), ("rita", "reader")):
        left = await http.delete(f"{place}/{name}", headers=await everybody[f"person, {role}"].headers())
        assert left.status_code == 204
    owner, operator = [await everybody[name].headers() for name in ("person, owner", "operator")]
    assert (await http.delete(f"{place}/owen", headers=owner)).json()["code"] == "last_owner"
    program = {"role": "reader", "kind": "program"}
    assert (await http.put(f"{place}/feed", json=program, headers=owner)).json()["code"] == "forbidden"
    assert (await http.put(f"{place}/feed", json=program, headers=operator)).status_code == 200
    keys = (await http.get("/api/keys", headers=operator)).json()["keys"]
    (threads,) = [key["threads"] for key in keys if key["name"] == "feed"]
    assert threads == [{"thread_id": "closed", "feeds": False, "reads": True}]


async def test_where_nobody_is_asked_who_they_are_everybody_may_do_what_there_is(
    memory_bus: Bus, store: Store, messages: dict[str, UUID]
) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        described = (await http.get("/openapi.json")).json()["paths"]
        for (method, path), call in CALLS.items():
            rule = ROUTES[method, path]
            if (
                rule <= {Action.PROBE}
                or (method, path) in {("GET", "/api/me"), ("GET", "/api/threads")}
                or (any(map(about_a_thread, rule)) and not path.endswith(ASKS_WHO))
            ):
                answer = await ask(http, (method, path), Who("anyone"), "square", messages)
                assert answer.status_code == call.status, path
            else:
                assert method.lower() not in described.get(path, {}), path
                code = "method_not_allowed" if path in described else "not_found"
                assert (await http.request(method, path)).json()["code"] == code
        me = (await http.get("/api/me")).json()
        assert me == {"kind": ANYONE.kind, "tenant": "default", "name": None, "auth": "open"}
