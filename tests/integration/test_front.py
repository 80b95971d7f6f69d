"""The page, and what it loads."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from m3 import __version__
from m3.bus import Bus
from m3.store import Store
from services.gateway.front import POLICY
from tests.support.building import INDEX, SCRIPT, built_page
from tests.support.gateway import running_gateway
from tests.support.town import asking

FILE = "/assets/index-1a2b.js"


@pytest.fixture
async def http(
    memory_bus: Bus, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.setattr("services.gateway.app.PAGE", built_page(tmp_path))
    async with running_gateway(memory_bus, store) as http:
        yield http


async def test_the_page_is_shown_with_a_policy_of_its_own(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/")
    assert (answer.status_code, answer.text) == (200, INDEX)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers.get_list("content-security-policy") == [POLICY]
    assert answer.headers["x-content-type-options"] == "nosniff"
    rules = {rule.split(" ")[0]: rule.split(" ")[1:] for rule in POLICY.split("; ")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == ["'none'"]
    for kind in ("script-src", "style-src", "img-src", "connect-src"):
        assert rules.pop(kind) == ["'self'"]
    assert not [rule for rule in rules if rule.endswith("-src") and rule != "default-src"], "it loads nothing else"
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert "unsafe" not in POLICY


async def test_the_page_is_asked_for_anew_and_sent_again_only_where_it_is_another(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/")
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}"):
        same = await http.get("/", headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert same.headers.get_list("content-security-policy") == [POLICY], "which takes the place of the one kept"
    assert (await http.get("/", headers={"If-None-Match": '"other"'})).text == INDEX


async def test_a_file_may_be_kept_for_ever(http: httpx2.AsyncClient) -> None:
    answer = await http.get(FILE, headers={"Accept-Encoding": "identity"})
    assert (answer.status_code, answer.text) == (200, SCRIPT)
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    icon = await http.get("/assets/more/icon-3c4d.svg")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "deflate;q=0, gzip"])
async def test_text_is_sent_compressed_to_who_takes_it(http: httpx2.AsyncClient, accepted: str) -> None:
    async with http.stream("GET", FILE, headers={"Accept-Encoding": accepted}) as answer:
        sent = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(sent) < len(SCRIPT)
    assert gzip.decompress(sent).decode() == SCRIPT


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.0, br", "x-gzip"])
async def test_and_as_it_is_to_who_does_not(http: httpx2.AsyncClient, accepted: str) -> None:
    answer = await http.get(FILE, headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.text == SCRIPT


@pytest.mark.parametrize("path", ["/", FILE])
async def test_the_head_alone_is_told_too(http: httpx2.AsyncClient, path: str) -> None:
    head, whole = await http.head(path), await http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "cache-control"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing.js",
        "/more",
        "/notes.exe",
        "/font-5e6f.woff2",
        "/../index.html",
        "/%2e%2e/index.html",
        "/..%2findex.html",
        "/..%2f..%2fsecret.js",
        "/more/..%2f..%2f..%2fsecret.js",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/index-1a2b.js%00.svg",
        "/index-1a2b.js/",
        "/more%5c..%5cindex-1a2b.js",
    ],
)
async def test_nothing_else_is_served(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(f"/assets{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "immutable" not in answer.headers.get("cache-control", "")


async def test_a_room_whose_page_was_not_built_says_how_to(
    memory_bus: Bus, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.app.PAGE", tmp_path / "page")
    async with running_gateway(memory_bus, store) as http:
        answer = await http.get("/")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_page")
        assert "make page" in answer.json()["message"]
        assert (await http.get(FILE)).status_code == 404


async def test_it_is_shown_to_nobody_who_asks_for_another_host(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/", headers={"Host": "evil.example:8888"})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")


async def test_anybody_is_told_what_the_room_is_like(memory_bus: Bus, store: Store, http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/room")
    assert answer.json() == {
        "auth": "open",
        "demo": True,
        "sign_up": False,
        "several_tenants": False,
        "message_limit": 16384,
        "version": __version__,
    }
    assert answer.headers["cache-control"] == "no-store"
    settings = asking(llm_base_url="http://model.example/v1", message_limit=100).model_dump(exclude_unset=True)
    async with running_gateway(memory_bus, store, **settings) as asking_room:
        told = (await asking_room.get("/api/room")).json()
    assert (told["auth"], told["demo"], told["several_tenants"], told["message_limit"]) == (
        "required",
        False,
        True,
        100,
    )
