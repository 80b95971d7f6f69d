"""What browsers are told, which pages are answered, and whose word is taken for a client's address."""

import asyncio
import json
import re
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from m3.access.limits import Limits
from m3.access.principals import Principal
from m3.bus import Bus, open_bus
from m3.errors import StartError, TooOften
from m3.settings import Settings
from m3.store import Store, open_store
from m3.web import bind, serve
from m3.web.browsers import tell_allowance
from m3.web.rates import rate_headers
from tests.support.client import client
from tests.support.gateway import running_gateway, serving_gateway
from tests.support.pushing import running_pusher
from tests.support.until import DEADLINE

PAGE = "https://app.example.com"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def told(answer: httpx2.Response) -> dict[str, list[str]]:
    """What it says of what it is that a browser has to know, each as often as it is there."""
    return {name: answer.headers.get_list(name) for name in SAFE}


ALL_SAFE = {name: [value] for name, value in SAFE.items()}


async def raw(address: str, request: bytes) -> httpx2.Response:
    """The answer to bytes that no client would send."""

    def exchange() -> httpx2.Response:
        url = urlsplit(address)
        with socket.create_connection((url.hostname, url.port), timeout=DEADLINE) as connection:
            connection.sendall(request)
            answer = HTTPResponse(connection)
            answer.begin()
            return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    return await asyncio.to_thread(exchange)


async def handshake(
    address: str, path: str = "/ws/chat/t", headers: dict[str, str] | Headers | None = None
) -> httpx2.Response:
    """The answer to a socket that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{address.replace('http', 'ws', 1)}{path}", additional_headers=headers or {}):
            pass
    response = refused.value.response
    return httpx2.Response(
        response.status_code, headers=list(response.headers.raw_items()), content=bytes(response.body)
    )


# ---- What every answer says


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/threads/default/history", 200),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/messages/not-an-id", 422),
        ("DELETE", "/api/chat", 405),
        ("POST", "/api/chat", 415),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs/files/swagger-ui.css", 200),
        ("GET", "/docs/files/nothing", 404),
        ("OPTIONS", "/api/chat", 405),
    ],
)
async def test_every_answer_of_the_gateway_is_safe_to_show_to_a_browser(
    memory: Bus, store: Store, method: str, path: str, status: int
) -> None:
    async with running_gateway(memory, store) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert told(answer) == ALL_SAFE
    assert answer.headers.get("cache-control") == ("no-store" if path.startswith("/api/") else None)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 64 * 1024), 431),
        (
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 70000\r\n\r\n" + b"a" * 70_000,
            413,
        ),
        (b"GET /ws/chat/t HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
    ],
)
async def test_so_is_what_is_refused_before_any_app(memory: Bus, store: Store, request_: bytes, status: int) -> None:
    async with serving_gateway(memory, store) as address:
        answer = await raw(address, request_)
    assert answer.status_code == status
    assert told(answer) == ALL_SAFE


async def test_so_is_an_error_that_nobody_expected(memory: Bus) -> None:
    async with (
        open_store("postgresql://127.0.0.1:1/room", pool_size=2) as broken,
        running_gateway(memory, broken) as http,
    ):
        broken.latest = None  # type: ignore[method-assign,assignment]
        answer = await http.get("/api/threads/default/history", headers={"Origin": "http://127.0.0.1:3000"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert told(answer) == ALL_SAFE


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws/nothing", {}, 404),
        ("/ws/chat/a.b", {}, 422),
        ("/ws/chat/t", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_so_is_a_socket_that_is_refused(
    memory: Bus, store: Store, path: str, headers: dict[str, str], status: int
) -> None:
    async with running_pusher(memory, store) as (address, _):
        answer = await handshake(address, path, headers)
    assert answer.status_code == status
    assert told(answer) == ALL_SAFE


async def test_the_pushers_health_is_too(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store) as (address, _), client(address) as http:
        assert told(await http.get("/healthz")) == told(await http.get("/nothing")) == ALL_SAFE


async def test_the_docs_page_runs_its_own_scripts_and_no_others(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        answer = await http.get("/docs")
    (policy,) = answer.headers.get_list("content-security-policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy
    inline = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert inline
    hashes = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in inline]
    assert rules["script-src"].split() == ["'self'", *hashes]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert loaded
    assert all(path.startswith("/docs/files/") for path in loaded), "which is what 'self' lets it load"
    assert not re.search(r"<style|style=|\bon\w+=", answer.text), "which the policy would keep from it"


# ---- Pages of other hosts


async def test_without_origins_no_page_of_another_host_reads_anything(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        answer = await http.get("/api/threads/default/history", headers={"Origin": PAGE})
        preflight = await http.options("/api/chat", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"})
    assert not [name for name in {*answer.headers, *preflight.headers} if name.startswith("access-control-")]
    assert (preflight.status_code, preflight.json()["code"]) == (405, "method_not_allowed")


async def test_a_page_of_origins_may_ask_for_all_that_the_room_takes(memory: Bus, store: Store) -> None:
    names = "authorization,content-type,idempotency-key,if-match,m3-client,last-event-id,prefer,traceparent"
    async with running_gateway(memory, store, origins=f"{PAGE},http://localhost:5173") as http:
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = await http.options(
                "/api/chat",
                headers={
                    "Origin": PAGE,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": names,
                },
            )
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert told(answer) == ALL_SAFE


async def test_a_page_of_origins_reads_answers_and_refusals_alike(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store, origins=PAGE) as http:
        answers = [
            await http.get("/api/threads/default/history", headers={"Origin": PAGE}),
            await http.get("/api/nothing", headers={"Origin": PAGE}),
            await http.post("/api/chat", headers={"Origin": PAGE} | JSON, content=b"{"),
            await http.post("/api/chat", headers={"Origin": PAGE} | JSON, content=b" " * 70_000),
            await http.post("/api/threads/t/cancel", headers={"Origin": PAGE}),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 400, 413, 202]
    for answer in answers:
        assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed >= {"Location", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
        assert told(answer) == ALL_SAFE
    assert set(answers[1].json()) == {"code", "message"}


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [
        ("https://evil.example", "POST", "content-type"),
        ("null", "POST", "content-type"),
        (f"{PAGE}.evil.example", "POST", "content-type"),
        (f"{PAGE}:8443", "POST", "content-type"),
        (PAGE.upper(), "POST", "content-type"),
        (PAGE, "PATCH", "content-type"),
        (PAGE, "POST", "x-forwarded-for"),
    ],
)
async def test_what_another_page_may_not_ask_for_is_refused_in_the_one_shape(
    memory: Bus, store: Store, origin: str, method: str, header: str
) -> None:
    async with running_gateway(memory, store, origins=PAGE) as http:
        answer = await http.options(
            "/api/chat",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": header,
            },
        )
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert ("must be in ORIGINS" in answer.json()["message"]) == (origin != PAGE)
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


async def test_a_page_of_origins_may_open_a_socket_and_no_look_alike(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store, origins=PAGE) as (address, _):
        url = f"{address.replace('http', 'ws', 1)}/ws/chat/t"
        for own in (PAGE, address):
            async with connect(url, additional_headers={"Origin": own}) as visitor:
                assert json.loads(await visitor.recv())["type"] == "connected"
        for other in (
            "http://127.0.0.1:3000",
            f"{PAGE}.evil.example",
            f"{PAGE}:8443",
            f"{PAGE}.",
            "http://app.example.com",
            "null",
        ):
            assert (await handshake(address, headers={"Origin": other})).status_code == 403


async def test_origins_that_are_none_are_said_at_the_start(memory: Bus, store: Store) -> None:
    with pytest.raises(StartError, match=r"^ORIGINS: 'https://app\.example\.com/' is not"):
        async with running_gateway(memory, store, origins=f"{PAGE}/"):
            pass


# ---- A page whose name was pointed at this machine after it was loaded

REBOUND = "evil.example"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/threads/default/history", None),
        ("PUT", "/api/threads/default/settings", {"pause": "wait"}),
        ("POST", "/api/chat", {"message": "hello", "wait": False}),
        ("POST", "/api/threads/default/cancel", None),
        ("GET", "/docs", None),
        ("GET", "/metrics", None),
    ],
)
async def test_a_page_that_rebinds_its_name_to_this_machine_gets_nothing(
    memory: Bus, store: Store, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with running_gateway(memory, store) as http:
        headers = {"Host": f"{REBOUND}:8888", "Origin": f"http://{REBOUND}:8888", "Sec-Fetch-Site": "same-origin"}
        answer = await http.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")
        assert told(answer) == ALL_SAFE
        settings = await http.get("/api/threads/default/settings", headers={"Host": "localhost:8888"})
    assert settings.json().get("pause") is None


async def test_it_opens_no_socket_either(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store) as (address, _):
        answer = await handshake(address, headers={"Host": f"{REBOUND}:8888", "Origin": f"http://{REBOUND}:8888"})
        assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")
        assert told(answer) == ALL_SAFE


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": "required", "token_keys": SecretStr(f"first:{64 * '0'}")},
        {"auth": "open", "host": "0.0.0.0"},
        {"auth": "open", "auth_open_anywhere": True},
    ],
)
async def test_a_room_that_others_reach_goes_by_any_name(memory: Bus, store: Store, changes: dict[str, Any]) -> None:
    async with running_gateway(memory, store, **changes) as http:
        assert (await http.get("/healthz", headers={"Host": "room.example.com"})).status_code == 200


# ---- Whose word is taken for a client's address


@asynccontextmanager
async def seeing(**changes: Any) -> AsyncIterator[str]:
    """A server that takes ten requests a minute from an address, each from somebody else, and says where it saw them."""
    settings = Settings(auth="required", limit_posts="1/minute", **changes)
    limits = Limits(settings, None)  # type: ignore[arg-type]  # which only passwords need

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0]
        try:
            tell_allowance(scope, await limits.hit("post", Principal("person", id=uuid4()), address))
        except TooOften as error:
            answer = JSONResponse({"client": address}, 429, rate_headers(error))
        else:
            answer = JSONResponse({"client": address}, 403)  # which a socket can be answered too
        await answer(scope, receive, send)

    with bind("127.0.0.1", 0) as sock:
        async with serve(app, sock, settings, grace=1) as address:
            yield address


Ask = Callable[[str, str], Awaitable[httpx2.Response]]


async def by_http(address: str, forwarded: str) -> httpx2.Response:
    lines = "".join(f"X-Forwarded-For: {line}\r\n" for line in forwarded.split("\n"))
    return await raw(address, f"GET / HTTP/1.1\r\nHost: room\r\n{lines}\r\n".encode())


async def by_socket(address: str, forwarded: str) -> httpx2.Response:
    headers = Headers()
    for line in forwarded.split("\n"):
        headers["X-Forwarded-For"] = line
    return await handshake(address, headers=headers)


by_every_door = pytest.mark.parametrize("ask", [by_http, by_socket])


@by_every_door
async def test_nobody_says_of_themselves_from_where_they_are(ask: Ask) -> None:
    async with seeing() as address:
        answers = [await ask(address, f"203.0.113.{number}") for number in range(11)]
    assert {answer.json()["client"] for answer in answers} == {"127.0.0.1"}
    assert [answer.status_code for answer in answers] == [403] * 10 + [429]


@by_every_door
async def test_nor_does_a_proxy_that_is_not_trusted(ask: Ask) -> None:
    async with seeing(trusted_proxies="10.0.0.0/8, 192.0.2.1") as address:
        answers = [await ask(address, f"203.0.113.{number}") for number in range(11)]
    assert {answer.json()["client"] for answer in answers} == {"127.0.0.1"}
    assert answers[-1].status_code == 429


@by_every_door
async def test_a_trusted_proxy_does_and_limits_count_by_what_it_says(ask: Ask) -> None:
    async with seeing(trusted_proxies="127.0.0.1") as address:
        for client_address in ("203.0.113.7", "203.0.113.8"):
            answers = [await ask(address, client_address) for _ in range(11)]
            assert {answer.json()["client"] for answer in answers} == {client_address}
            assert [answer.status_code for answer in answers] == [403] * 10 + [429]


@by_every_door
@pytest.mark.parametrize(
    "forwarded",
    [
        "198.51.100.{n}, 203.0.113.7",
        "198.51.100.{n}, 10.1.2.3, 203.0.113.7, 10.0.0.1",
        "198.51.100.{n}\n203.0.113.7",
        "198.51.100.{n}\n203.0.113.7\n10.0.0.1",
        "rubbish-{n}, 203.0.113.7",
        "127.0.0.1, 198.51.100.{n}, 203.0.113.7",
    ],
)
async def test_of_several_values_those_that_the_client_made_up_count_for_nothing(ask: Ask, forwarded: str) -> None:
    """Each proxy adds whom it saw at the end."""
    async with seeing(trusted_proxies="127.0.0.1,10.0.0.0/8") as address:
        answers = [await ask(address, forwarded.format(n=number)) for number in range(11)]
    assert {answer.json()["client"] for answer in answers} == {"203.0.113.7"}
    assert answers[-1].status_code == 429


@by_every_door
async def test_what_is_no_address_counts_together(ask: Ask) -> None:
    async with seeing(trusted_proxies="127.0.0.1") as address:
        answers = [await ask(address, f"rubbish-{number}") for number in range(11)]
    assert answers[-1].status_code == 429


async def test_answers_say_what_is_left_and_refusals_when_to_come_again() -> None:
    async with seeing() as address, client(address) as http:
        answer = await http.get("/")
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("1", "0")
        for _ in range(10):
            answer = await http.get("/")
    assert answer.status_code == 429
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("10", "0")
    assert answer.headers["retry-after"] == answer.headers["x-ratelimit-reset"]
    assert 50 < int(answer.headers["retry-after"]) <= 60
