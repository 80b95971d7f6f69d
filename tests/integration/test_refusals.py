"""What comes to the HTTP door without a good credential, or with one that is not good for this."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import argon2
import asyncpg
import httpx2
import jwt
import pytest
from limits import RateLimitItemPerMinute

from m3.access import limits
from m3.bus import Bus
from m3.errors import StoreUnavailable
from m3.events import MessageAccepted
from m3.store import Store
from services.recorder import recorder
from tests.support.gateway import failure_of, hand_in, next_message, passed_over, reply_to, running_gateway
from tests.support.issuing import outside_issuer
from tests.support.town import KEYS, Town, asking, bearer_header
from tests.support.until import until

SECRET = bytes.fromhex(KEYS.partition(":")[2])
PASSWORD = "correct horse"
CHAT, BATCH, HISTORY = "/api/chat", "/api/threads/show/messages", "/api/threads/show/history"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def http(memory_bus: Bus, store: Store, town: Town) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that asks who somebody is. The thread `show` has a member, ann, and a feeder, feed."""
    changes = asking().model_dump(exclude_unset=True)
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, **changes) as http:
        yield http


@pytest.fixture
async def ann(town: Town) -> dict[str, str]:
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    account = await town.account("ann")
    await town.sql.execute("UPDATE accounts SET password_hash = $2 WHERE account_id = $1", account, hashed)
    return bearer_header(await town.signed_in(account))


@pytest.fixture
async def feed(town: Town, ann: dict[str, str]) -> dict[str, str]:
    key = await town.program("feed")
    await town.thread("show", ann="member", feed="feeder")
    return bearer_header(key)


def claims(headers: dict[str, str]) -> dict[str, Any]:
    token = headers["Authorization"].removeprefix("Bearer ")
    told: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return told


def signed(told: dict[str, Any], key: bytes = SECRET, algorithm: str = "HS256", kid: str = "first") -> str:
    return jwt.encode(told, key, algorithm, headers={"kid": kid})


def unsigned(told: dict[str, Any]) -> str:
    return jwt.encode(told, "", "none", headers={"kid": "first"})


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def without(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda told: signed({claim: value for claim, value in told.items() if claim != name})


FORGERIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "expired": lambda told: signed(told | {"exp": int(time.time()) - 60}),
    "from the future": lambda told: signed(told | {"nbf": int(time.time()) + 60}),
    "alg none": unsigned,
    "alg none, with our signature": lambda told: (
        unsigned(told).rpartition(".")[0] + "." + signed(told).rpartition(".")[2]
    ),
    "another algorithm": lambda told: signed(told, algorithm="HS512"),
    "wrong key": lambda told: signed(told, b"2" * 32),
    "no such key": lambda told: signed(told, kid="second"),
    "wrong issuer": lambda told: signed(told | {"iss": "https://id.example.com"}),
    "for somebody else": lambda told: signed(told | {"aud": "another room"}),
    "of another tenant": lambda told: signed(told | {"tenant": "acme"}),
    "of nobody": lambda told: signed(told | {"sub": str(uuid4())}),
    "of another sign-in": lambda told: signed(told | {"sid": str(uuid4())}),
    **{f"without {name}": without(name) for name in ("exp", "iat", "nbf", "iss", "aud", "sub", "tenant", "sid")},
    "no token at all": lambda told: "nonsense",
    "a producer key that is none": lambda told: f"m3k_abcdefgh_{'x' * 43}",
    "a refresh token": lambda told: f"m3r_{uuid4().hex}_{'x' * 43}",
    "a ticket": lambda told: f"m3t_{'x' * 43}",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_token_that_is_not_good_is_refused(http: httpx2.AsyncClient, ann: dict[str, str], forgery: str) -> None:
    assert (await http.get("/api/me", headers=ann)).status_code == 200
    token = FORGERIES[forgery](claims(ann))
    refused(await http.get("/api/me", headers=bearer_header(token)), 401, "not_signed_in")


async def test_the_forgeries_are_of_a_token_that_would_be_good(http: httpx2.AsyncClient, ann: dict[str, str]) -> None:
    again = signed(claims(ann) | {"iat": int(time.time()) - 1})
    assert (await http.get("/api/me", headers=bearer_header(again))).json()["name"] == "ann"


@pytest.mark.parametrize(
    "credentials",
    [
        [],
        [""],
        ["Bearer"],
        ["Basic YW5uOnNlY3JldA=="],
        ["{token}"],
        ["Bearer {token}, Bearer {token}"],
        ["Bearer {token}", "Bearer {token}"],
        ["Bearer {token}", "Basic YW5uOnNlY3JldA=="],
    ],
)
async def test_what_is_no_one_credential_is_refused(
    http: httpx2.AsyncClient, ann: dict[str, str], credentials: list[str]
) -> None:
    token = ann["Authorization"].removeprefix("Bearer ")
    headers = [("Authorization", credential.format(token=token)) for credential in credentials]
    refused(await http.get("/api/me", headers=headers), 401, "not_signed_in")
    refused(await http.post(CHAT, json={"message": "a"}, headers=headers), 401, "not_signed_in")


async def test_a_credential_in_the_address_is_none(http: httpx2.AsyncClient, ann: dict[str, str]) -> None:
    token = ann["Authorization"].removeprefix("Bearer ")
    for name in ("access_token", "token", "ticket", "authorization"):
        refused(await http.get("/api/me", params={name: token}), 401, "not_signed_in")


async def test_a_head_of_64_kib_is_refused_before_anybody_looks_at_its_credential(http: httpx2.AsyncClient) -> None:
    refused(await http.get("/api/me", headers=bearer_header("x" * 64 * 1024)), 431, "head_too_long")


async def test_a_long_credential_is_refused_as_any_other(http: httpx2.AsyncClient) -> None:
    refused(await http.get("/api/me", headers=bearer_header("x" * 60_000)), 401, "not_signed_in")


async def test_a_token_of_an_issuer_that_the_room_was_not_told_of_is_refused(http: httpx2.AsyncClient) -> None:
    async with outside_issuer() as issuer:
        refused(await http.get("/api/me", headers=bearer_header(issuer.token("first"))), 401, "not_signed_in")


async def test_a_key_is_good_until_it_is_revoked(http: httpx2.AsyncClient, town: Town, feed: dict[str, str]) -> None:
    operator = bearer_header(await town.person("opal", operator=True))
    (key,) = (await http.get("/api/keys", headers=operator)).json()["keys"]
    assert (await http.post(BATCH, json=[{"message": "666"}], headers=feed)).status_code == 202
    assert (await http.delete(f"/api/keys/{key['prefix']}", headers=operator)).status_code == 204
    refused(await http.post(BATCH, json=[{"message": "666"}], headers=feed), 401, "not_signed_in")


async def test_who_signed_out_is_out_with_the_token_that_is_not_over(
    http: httpx2.AsyncClient, ann: dict[str, str]
) -> None:
    assert (await http.post("/api/logout", headers=ann)).status_code == 204
    refused(await http.get("/api/me", headers=ann), 401, "not_signed_in")


async def test_a_person_is_no_program_and_a_program_no_person(
    http: httpx2.AsyncClient, ann: dict[str, str], feed: dict[str, str], store: Store
) -> None:
    for headers, source in ((ann, "api"), (feed, "user")):
        said = {"message": "a", "source": source}
        refused(await http.post(CHAT, json=said | {"thread_id": "show"}, headers=headers), 403, "forbidden")
        (told,) = (await http.post(BATCH, json=[said], headers=headers)).json()["messages"]
        assert told["code"] == "forbidden"
    assert await store.latest("show", 10) == []


async def test_nobody_is_the_assistant(
    http: httpx2.AsyncClient, ann: dict[str, str], feed: dict[str, str], store: Store
) -> None:
    for headers in (ann, feed):
        said = {"message": "a", "source": "assistant"}
        refused(await http.post(CHAT, json=said | {"thread_id": "show"}, headers=headers), 422, "invalid_request")
        (told,) = (await http.post(BATCH, json=[said], headers=headers)).json()["messages"]
        assert told["code"] == "invalid_message"
    assert await store.latest("show", 10) == []


async def test_a_message_has_the_source_and_the_author_of_its_credential(
    http: httpx2.AsyncClient, ann: dict[str, str], feed: dict[str, str], store: Store
) -> None:
    for headers in (ann, feed):
        said = {"message": "a", "author": "the queen"}
        answer = await http.post(CHAT, json=said | {"thread_id": "show"}, headers=headers | ASYNC)
        assert answer.status_code == 202
        assert (await http.post(BATCH, json=[said], headers=headers)).status_code == 202
    told = [(message.source, message.author) for message in await store.latest("show", 10)]
    assert told == [("user", "ann")] * 2 + [("api", "feed")] * 2


async def test_a_program_reads_nothing_of_a_thread_that_it_only_feeds(
    http: httpx2.AsyncClient, feed: dict[str, str], store: Store
) -> None:
    answer = await http.post(CHAT, json={"message": "666", "thread_id": "show"}, headers=feed | ASYNC)
    assert answer.status_code == 202
    for path in (HISTORY, f"/api/messages/{answer.json()['message_id']}", "/api/threads/show/settings"):
        refused(await http.get(path, headers=feed), 403, "forbidden")
    for path in (f"/api/messages/{answer.json()['message_id']}/retry", "/api/threads/show/cancel"):
        refused(await http.post(path, headers=feed), 403, "forbidden")


async def test_a_program_that_only_feeds_is_told_nothing_of_what_is_said_there(
    http: httpx2.AsyncClient, memory_bus: Bus, feed: dict[str, str], store: Store
) -> None:
    """It is answered as soon as its message is recorded, and always the same: whatever became of it by then."""
    said = {"message": "yes", "thread_id": "show"}
    key = {"Idempotency-Key": "1"}
    stream = {"Accept": "text/event-stream"}
    first = await http.post(CHAT, json=said, headers=feed | key)
    message = await next_message(store, "show")
    recorded = {"thread_id": "show", "message_id": str(message.message_id), "seq": 1, "fate": "pending"}
    assert first.json() == recorded | {"reason": None, "place": 0}

    async def ask_again() -> list[httpx2.Response]:
        answers = []
        for headers in (key, key | stream, key | ASYNC, back := {"Last-Event-ID": str(message.message_id)}):
            answers.append(await http.post(CHAT, json=said, headers=feed | headers))
        answers.append(await http.post(CHAT, json=said, headers=feed | back | stream))
        for answer in answers:
            assert answer.status_code == 202
            assert "location" not in answer.headers
            assert {name: answer.json()[name] for name in recorded} == recorded
        refused(await http.post(CHAT, json=said | {"message": "no"}, headers=feed | key | stream), 422, "key_reused")
        return answers

    await ask_again()
    await hand_in(memory_bus, reply_to(message, content="what ann said"))
    await next_message(store, "show", 2)
    for answer in await ask_again():
        assert "ann" not in answer.text


@pytest.mark.parametrize("fate", ["merged", "failed"])
async def test_a_program_that_only_feeds_is_not_told_what_became_of_its_message(
    http: httpx2.AsyncClient, memory_bus: Bus, feed: dict[str, str], store: Store, fate: str
) -> None:
    """Or it could find out what others say by saying the same."""
    said, key = {"message": "yes", "thread_id": "show"}, {"Idempotency-Key": "1"}
    await http.post(CHAT, json=said, headers=feed | key)
    message = await next_message(store, "show")
    await hand_in(memory_bus, failure_of(message) if fate == "failed" else passed_over(message, "merged", message))

    async def is_settled() -> bool:
        known = await store.message(message.message_id)
        return known is not None and known.fate == fate

    await until(is_settled)
    for accept in ({}, {"Accept": "text/event-stream"}):
        answer = await http.post(CHAT, json=said, headers=feed | key | accept)
        assert (answer.status_code, answer.json()["fate"], answer.json()["reason"]) == (202, "pending", None)


async def test_nobody_comes_upon_a_message_by_another_ones_key(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], feed: dict[str, str], store: Store
) -> None:
    bob = bearer_header(await town.person("bob"))
    await town.sql.execute("UPDATE threads SET visibility = 'open' WHERE thread_id = 'show'")
    key = {"Idempotency-Key": "1", "M3-Client": "the same"}
    for headers in (ann, bob, ann, bob):
        said = {"message": "hello", "thread_id": "show"}
        assert (await http.post(CHAT, json=said, headers=headers | ASYNC | key)).status_code == 202
        item = {"message": "hello too", "key": "2"}
        answer = await http.post(BATCH, json=[item], headers=headers | {"M3-Client": "the same"})
        assert answer.json()["messages"][0]["seq"]
    told = [(message.author, message.content) for message in await store.latest("show", 10)]
    assert sorted(told) == sorted((name, said) for name in ("ann", "bob") for said in ("hello", "hello too"))


async def test_who_comes_back_to_a_message_finds_only_their_own(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], feed: dict[str, str], store: Store
) -> None:
    bob = bearer_header(await town.person("bob"))
    await town.sql.execute("UPDATE threads SET visibility = 'open' WHERE thread_id = 'show'")
    await town.thread("other", bob="owner")
    said = {"message": "hello", "thread_id": "show"}
    message_id = (await http.post(CHAT, json=said, headers=ann | ASYNC)).json()["message_id"]
    back = {"Last-Event-ID": message_id}
    assert (await http.post(CHAT, json=said, headers=ann | ASYNC | back)).status_code == 202
    missing = await http.post(CHAT, json=said, headers=bob | {"Last-Event-ID": str(uuid4())})
    refused(missing, 404, "not_found")
    for body, headers in ((said, bob), (said | {"thread_id": "other"}, bob), (said, feed)):
        for accept in ({}, {"Accept": "text/event-stream"}):
            answer = await http.post(CHAT, json=body, headers=headers | back | accept)
            assert (answer.status_code, answer.content) == (404, missing.content)


async def test_where_nobody_is_asked_anybody_comes_back_to_any_message(memory_bus: Bus, store: Store) -> None:
    said = MessageAccepted(thread_id="t", source="user", content="a", interface="http_api", origin="nobody", author="b")
    await store.record([said])
    async with running_gateway(memory_bus, store) as http:
        body = {"message": "a", "thread_id": "t"}
        for name in ({}, {"M3-Client": "b"}, {"M3-Client": "c"}):
            answer = await http.post(CHAT, json=body, headers=ASYNC | {"Last-Event-ID": str(said.message_id)} | name)
            assert answer.status_code == 202


@pytest.mark.usefixtures("ann")
async def test_of_twenty_wrong_passwords_ten_are_looked_at(http: httpx2.AsyncClient) -> None:
    """And neither another way of writing the name nor the right password is a way around."""
    names = ("ann", "Ann", "ANN", "ａｎｎ")  # noqa: RUF001 - which are the same to whoever reads them
    answers = [
        await http.post("/api/login", json={"name": names[number % 4], "password": f"wrong {number}"})
        for number in range(20)
    ]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 10
    assert len({answer.content for answer in answers[:10]}) == 1
    late = answers[-1]
    assert late.json()["code"] == "rate_limited"
    assert late.headers["X-RateLimit-Limit"] == "10"
    assert late.headers["X-RateLimit-Remaining"] == "0"
    assert 0 < int(late.headers["X-RateLimit-Reset"]) <= 300
    assert 0 < int(late.headers["Retry-After"]) <= 300
    refused(await http.post("/api/login", json={"name": "ann", "password": PASSWORD}), 429, "rate_limited")


async def test_wrong_passwords_of_who_is_signed_in_count_too(http: httpx2.AsyncClient, ann: dict[str, str]) -> None:
    change = {"password": "wrong", "new_password": "another one"}
    for _ in range(10):
        refused(await http.post("/api/password", json=change, headers=ann), 403, "wrong_password")
    right = {"password": PASSWORD, "new_password": "another one"}
    refused(await http.post("/api/password", json=right, headers=ann), 429, "rate_limited")
    signed_in = await http.post("/api/login", json={"name": "ann", "password": PASSWORD})
    assert signed_in.status_code == 200, "which is counted by itself"


async def test_right_passwords_are_no_guesses(http: httpx2.AsyncClient, ann: dict[str, str]) -> None:
    for number in range(25):
        body = {"name": "ann", "password": PASSWORD if number % 2 else "wrong"}
        assert (await http.post("/api/login", json=body)).status_code == (200 if number % 2 else 401)


async def test_a_wrong_name_is_told_as_a_wrong_password(http: httpx2.AsyncClient, ann: dict[str, str]) -> None:
    answers = [
        await http.post("/api/login", json={"name": name, "password": "wrong", "tenant": tenant})
        for name, tenant in (
            ("ann", "default"),
            ("nobody", "default"),
            ("ann", "acme"),
            ("ann", "nowhere"),
            ("?", "acme"),
        )
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}


async def test_who_asks_too_often_is_told_when_to_come_again(
    memory_bus: Bus, store: Store, ann: dict[str, str], feed: dict[str, str]
) -> None:
    rates = dict.fromkeys(("limit_posts", "limit_feeds", "limit_batches", "limit_changes", "limit_tickets"), "2/minute")
    changes = asking(**rates).model_dump(exclude_unset=True)
    requests: list[tuple[str, str, object]] = [
        ("POST", CHAT, {"message": "a", "thread_id": "show"}),
        ("POST", "/api/ws-ticket", None),
        ("POST", "/api/threads", {}),
    ]
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, **changes) as http:
        for method, path, body in requests:
            answers = [await http.request(method, path, json=body, headers=ann | ASYNC) for _ in range(3)]
            assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
            refused(answers[2], 429, "rate_limited")
            assert 0 < int(answers[2].headers["Retry-After"]) <= 60
        for method, path in (
            ("PUT", "/api/threads/show/visibility"),
            ("PUT", "/api/threads/show/members/ann"),
            ("POST", "/api/threads/show/cancel"),
            ("POST", "/api/logout"),
        ):
            refused(await http.request(method, path, json={}, headers=ann), 429, "rate_limited")
        others = await http.post(BATCH, json=[{"message": "a"}], headers=feed)
        assert others.status_code == 202


async def test_each_message_of_a_batch_counts_as_one(
    memory_bus: Bus, store: Store, ann: dict[str, str], feed: dict[str, str]
) -> None:
    changes = asking(limit_posts="5/minute", limit_feeds="5/minute").model_dump(exclude_unset=True)
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, **changes) as http:
        for headers in (ann, feed):
            batches = [await http.post(BATCH, json=[{"message": "a"}] * 3, headers=headers) for _ in range(2)]
            assert [answer.status_code for answer in batches] == [202, 429]
            assert batches[0].headers["X-RateLimit-Limit"] == "5"
            assert batches[0].headers["X-RateLimit-Remaining"] == "2"
            refused(batches[1], 429, "rate_limited")
            two = await http.post(BATCH, json=[{"message": "a"}] * 2, headers=headers)
            assert two.status_code == 202
        said = {"message": "a", "thread_id": "show"}
        refused(await http.post(CHAT, json=said, headers=ann | ASYNC), 429, "rate_limited")


async def test_what_is_made_up_is_asked_about_so_often_and_no_more(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str], feed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FAILURES", RateLimitItemPerMinute(5))
    sign_in = (await http.post("/api/login", json={"name": "ann", "password": PASSWORD})).json()
    signed_in = bearer_header(sign_in["access_token"])
    for known in (signed_in, feed):
        assert (await http.get("/api/me", headers=known)).status_code == 200
    other = bearer_header(await town.program("other"))
    made_up = [bearer_header(f"m3k_aaaaaaaa_{number:043}") for number in range(5)]
    for headers in made_up:
        refused(await http.get("/api/me", headers=headers), 401, "not_signed_in")
    for headers in (made_up[0], bearer_header("x"), bearer_header(signed(claims(ann), b"x" * 32)), other):
        answer = await http.get("/api/me", headers=headers)
        refused(answer, 429, "rate_limited")
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    token = f"m3r_{uuid4().hex}_{'x' * 43}"
    refused(await http.post("/api/refresh", json={"refresh_token": token}), 429, "rate_limited")
    refused(await http.get("/api/me"), 401, "not_signed_in")
    for known in (ann, signed_in, feed):
        assert (await http.get("/api/me", headers=known)).status_code == 200
    renewed = await http.post("/api/refresh", json={"refresh_token": sign_in["refresh_token"]})
    assert renewed.status_code == 200, "its sign-in was seen to be good"


async def test_a_thread_of_another_tenant_is_not_reached_by_an_id_that_looks_like_its_key(
    http: httpx2.AsyncClient, town: Town
) -> None:
    await town.account("olga", "acme")
    await town.thread("acme.show", "open", olga="owner")
    operator = bearer_header(await town.person("opal", operator=True))
    for thread_id in ("acme.show", "acme%2Eshow", "show%00", "show%0A"):
        answer = await http.get(f"/api/threads/{thread_id}/history", headers=operator)
        refused(answer, 422, "invalid_request")
    said = {"message": "a", "thread_id": "acme.show"}
    refused(await http.post(CHAT, json=said, headers=operator), 422, "invalid_request")
    made = await http.post("/api/threads", json={"thread_id": "acme.other"}, headers=operator)
    refused(made, 422, "invalid_request")


async def test_nothing_of_a_password_or_a_key_is_in_what_is_refused(http: httpx2.AsyncClient) -> None:
    secret = "s3cret" * 60
    for path, body in (
        ("/api/login", {"name": "ann", "password": secret}),
        ("/api/login", {"name": "ann", "password": [secret]}),
        ("/api/login", {"name": [], "password": secret, "new_password": secret}),
        ("/api/refresh", {"refresh_token": secret}),
        ("/api/refresh", {"refresh_token": {"a": secret}}),
    ):
        answer = await http.post(path, json=body)
        assert 400 <= answer.status_code < 500
        assert "s3cret" not in answer.text
    answer = await http.get("/api/me", headers=bearer_header(secret))
    assert "s3cret" not in answer.text


async def test_one_time_passwords_are_for_one_sign_in(http: httpx2.AsyncClient, town: Town) -> None:
    operator = bearer_header(await town.person("opal", operator=True))
    made = await http.post("/api/users", json={"name": "Bob"}, headers=operator)
    assert made.status_code == 201
    shown = made.json()
    login = {"name": "bob", "password": shown["password"]}
    refused(await http.post("/api/login", json=login), 403, "password_change_needed")
    refused(await http.post("/api/login", json=login | {"new_password": "short"}), 422, "invalid_request")
    signed_in = (await http.post("/api/login", json=login | {"new_password": PASSWORD})).json()
    assert signed_in["token_type"] == "Bearer"
    assert signed_in["expires_in"] == 600
    me = (await http.get("/api/me", headers=bearer_header(signed_in["access_token"]))).json()
    assert me == {"kind": "person", "tenant": "default", "name": "bob", "auth": "required"}
    refused(await http.post("/api/login", json=login), 401, "not_signed_in")
    renewed = (await http.post("/api/refresh", json={"refresh_token": signed_in["refresh_token"]})).json()
    assert renewed["refresh_token"] != signed_in["refresh_token"]
    assert (await http.get("/api/me", headers=bearer_header(renewed["access_token"]))).status_code == 200


async def test_an_owner_sees_to_a_thread_and_the_last_one_stays(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    bob = bearer_header(await town.person("bob"))
    made = await http.post("/api/threads", json={}, headers=ann)
    assert made.status_code == 201
    thread_id = made.json()["thread_id"]
    silent: dict[str, object] = {"head": 0, "last_at": None}
    nobodys = silent | {"owners": None, "members": None}  # as operators alone are told
    assert made.json() == {"thread_id": thread_id, "visibility": "private", "role": "owner"} | nobodys
    refused(await http.post("/api/threads", json={"thread_id": "mine"}, headers=ann), 403, "forbidden")
    path = f"/api/threads/{thread_id}"
    refused(await http.get(f"{path}/history", headers=bob), 404, "not_found")
    admitted = await http.put(f"{path}/members/bob", json={"role": "reader"}, headers=ann)
    assert admitted.json() == {"name": "bob", "kind": "person", "role": "reader"}
    assert (await http.get(f"{path}/history", headers=bob)).status_code == 200
    mine = (await http.get("/api/threads", headers=bob)).json()
    as_bob_sees_it = {"thread_id": thread_id, "visibility": "private", "role": "reader"}
    assert mine == {"threads": [as_bob_sees_it | nobodys]}
    refused(await http.put(f"{path}/members/bob", json={"role": "owner"}, headers=bob), 403, "forbidden")
    refused(await http.delete(f"{path}/members/ann", headers=ann), 409, "last_owner")
    refused(await http.put(f"{path}/members/ann", json={"role": "reader"}, headers=ann), 409, "last_owner")
    assert (await http.delete(f"{path}/members/bob", headers=ann)).status_code == 204
    refused(await http.get(f"{path}/history", headers=bob), 404, "not_found")
    opened = await http.put(f"{path}/visibility", json={"visibility": "open"}, headers=ann)
    assert opened.json() == {"thread_id": thread_id, "visibility": "open"}
    assert (await http.get(f"{path}/history", headers=bob)).status_code == 200


async def test_if_match_changes_a_member_and_lets_nobody_in(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    bob = bearer_header(await town.person("bob"))
    await town.thread("show", ann="owner")
    path, reader = "/api/threads/show/members/bob", {"role": "reader"}
    there = ann | {"If-Match": "*"}
    refused(await http.put(path, json=reader, headers=there), 412, "no_member")
    refused(await http.get("/api/threads/show/history", headers=bob), 404, "not_found")
    refused(await http.put("/api/threads/show/members/nobody", json=reader, headers=there), 404, "not_found")
    await http.put(path, json={"role": "member"}, headers=ann)
    changed = await http.put(path, json=reader, headers=there)
    assert changed.json() == {"name": "bob", "kind": "person", "role": "reader"}
    for value in ("", '"one"', '*, "one"'):
        wrong = await http.put(path, json={"role": "member"}, headers=ann | {"If-Match": value})
        refused(wrong, 422, "invalid_request")
        assert wrong.json()["message"] == "header.if-match: Input should be '*'."
    twice = [*ann.items(), ("If-Match", "*"), ("If-Match", '"one"')]
    refused(await http.put(path, json={"role": "member"}, headers=twice), 422, "invalid_request")
    assert (await http.get("/api/threads/show/members", headers=ann)).json()["members"] == [
        {"name": "ann", "kind": "person", "role": "owner"},
        {"name": "bob", "kind": "person", "role": "reader"},
    ]


async def test_operators_read_what_was_done_and_it_holds_no_secret(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    operator = bearer_header(await town.person("opal", operator=True))
    elsewhere = bearer_header(await town.person("opal", "acme", operator=True))
    await town.thread("square")
    made = await http.post("/api/keys", json={"name": "other-feed", "threads": ["square"]}, headers=operator)
    key = made.json()["key"]
    await http.post("/api/login", json={"name": "ann", "password": PASSWORD})
    await http.post("/api/login", json={"name": "ann", "password": "wrong one"})
    answer = await http.get("/api/audit", headers=operator)
    told = [(entry["actor"], entry["action"], entry["outcome"]) for entry in answer.json()["entries"]]
    assert told[:3] == [("ann", "login", "refused"), ("ann", "login", "done"), ("opal", "key_added", "done")]
    for secret in (key, PASSWORD, "wrong one"):
        assert secret not in answer.text
    assert (await http.get("/api/audit", headers=elsewhere)).json() == {"entries": []}
    (newest,) = (await http.get("/api/audit", params={"limit": 1}, headers=operator)).json()["entries"]
    older = await http.get("/api/audit", params={"before": newest["id"]}, headers=operator)
    assert newest not in older.json()["entries"]


async def test_what_needs_a_credential_gives_nothing_away_while_the_database_is_away(
    memory_bus: Bus, store: Store, ann: dict[str, str]
) -> None:
    """Nobody is let in, and nobody is told that they are somebody else."""

    class Away(Store):
        async def ask(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
            raise StoreUnavailable("away")

    changes = asking().model_dump(exclude_unset=True)
    async with running_gateway(memory_bus, Away(store._pool, store._url), **changes) as http:
        for headers in (ann, bearer_header(f"m3k_abcdefgh_{'x' * 43}")):
            refused(await http.get(HISTORY, headers=headers), 503, "database_unavailable")
        refused(await http.get(HISTORY), 401, "not_signed_in")


async def test_requests_side_by_side_are_each_their_own_callers(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    everybody = {name: bearer_header(await town.person(name)) for name in (f"p{number}" for number in range(20))}
    answers = await asyncio.gather(*(http.get("/api/me", headers=headers) for headers in everybody.values()))
    assert [answer.json()["name"] for answer in answers] == list(everybody)


async def test_what_changes_nothing_is_not_in_the_audit(
    http: httpx2.AsyncClient, town: Town, ann: dict[str, str]
) -> None:
    await town.account("bob")
    path = f"/api/threads/{(await http.post('/api/threads', json={}, headers=ann)).json()['thread_id']}"
    for _ in range(3):
        for visibility in ("private", "open", "open"):
            await http.put(f"{path}/visibility", json={"visibility": visibility}, headers=ann)
        for role in ("reader", "member", "member"):
            admitted = await http.put(f"{path}/members/bob", json={"role": role}, headers=ann)
            assert admitted.json() == {"name": "bob", "kind": "person", "role": role}
    noted = [row["action"] for row in await town.sql.fetch("SELECT action FROM audit WHERE actor = 'ann'")]
    assert noted.count("visibility_changed") == 5
    assert noted.count("member_added") == 6
