"""``GET /api/threads/{thread_id}/search``."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import httpx2
import pytest

from m3.bus import Bus
from m3.events import MessageAccepted
from m3.store import Store
from services.gateway import search as search_route
from services.recorder import recorder
from tests.support.gateway import running_gateway
from tests.support.until import DEADLINE, until


async def say(store: Store, *texts: str, thread_id: str = "t") -> None:
    said = [
        MessageAccepted(thread_id=thread_id, source="user", content=text, interface="http_api", origin="nobody")
        for text in texts
    ]
    await store.record(await store.content.sealed(said))


async def search(http: httpx2.AsyncClient, q: str, thread_id: str = "t", **params: Any) -> list[str]:
    answer = await http.get(f"/api/threads/{thread_id}/search", params={"q": q, **params})
    assert answer.status_code == 200, answer.text
    assert answer.json()["thread_id"] == thread_id
    return [message["content"] for message in answer.json()["messages"]]


async def test_messages_are_found_newest_first_that_have_every_word(memory_bus: Bus, store: Store) -> None:
    await say(store, "A red fox", "a RED hen", "the fox, and the hen", "好的, 你好吗", "nothing")
    await say(store, "a red fox elsewhere", thread_id="u")
    async with running_gateway(memory_bus, store) as http:
        assert await search(http, "red") == ["a RED hen", "A red fox"]
        assert await search(http, "Fox Red") == ["A red fox"]
        assert await search(http, "fox dog") == []
        assert await search(http, "re") == []
        assert await search(http, "你好") == ["好的, 你好吗"]
        assert await search(http, "的") == ["好的, 你好吗"]
        assert await search(http, "red", "nobody-was-here") == []
        assert await search(http, "!?") == [], "there is no word in it"


async def test_pages_follow_each_other_by_the_number_of_the_last(memory_bus: Bus, store: Store) -> None:
    await say(store, *(f"{'even' if number % 2 == 0 else 'odd'} {number}" for number in range(1, 21)))
    async with running_gateway(memory_bus, store) as http:
        assert await search(http, "even", limit=3) == ["even 20", "even 18", "even 16"]
        assert await search(http, "even", limit=3, before=16) == ["even 14", "even 12", "even 10"]
        assert await search(http, "even", limit=1000, before=5) == ["even 4", "even 2"]


@pytest.mark.parametrize(
    "params",
    [{}, {"q": ""}, {"q": "x" * 257}, {"q": "x", "limit": "0"}, {"q": "x", "before": "-1"}],
)
async def test_what_cannot_be_searched_for_is_refused(memory_bus: Bus, store: Store, params: dict[str, str]) -> None:
    async with running_gateway(memory_bus, store) as http:
        answer = await http.get("/api/threads/t/search", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_what_is_found_is_shown_as_in_the_history(memory_bus: Bus, store: Store) -> None:
    await say(store, "hello")
    async with running_gateway(memory_bus, store) as http:
        found = (await http.get("/api/threads/t/search", params={"q": "hello"})).json()["messages"]
        assert found == (await http.get("/api/threads/t/history")).json()["messages"]


async def test_words_that_are_in_many_messages_and_in_few_are_found_far_back_too(memory_bus: Bus, store: Store) -> None:
    """The last 1000 messages are looked at one by one, and all before them only where those are not enough."""
    await say(store, "rare", *(f"often {'now' if number > 900 else 'once'} {number}" for number in range(1, 1102)))
    async with running_gateway(memory_bus, store) as http:
        assert await search(http, "often", limit=2) == ["often now 1101", "often now 1100"]
        assert await search(http, "rare") == ["rare"]
        assert await search(http, "once", limit=1) == ["often once 900"]
        assert (await search(http, "once", limit=500, before=103))[-1] == "often once 1"
        assert len(await search(http, "once", limit=500, before=1000)) == 500
        assert len(await search(http, "now", limit=500)) == 201


async def test_a_search_that_takes_too_long_is_broken_off_in_the_database_too(
    memory_bus: Bus, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_route, "PATIENCE", 0.3)
    await say(store, "hello")
    admin = await asyncpg.connect(database_url)
    try:
        async with running_gateway(memory_bus, store) as http:
            async with admin.transaction():
                await admin.execute("LOCK TABLE search_terms")
                answers = await asyncio.gather(*(http.get("/api/threads/t/search?q=hello") for _ in range(40)))
                assert {answer.status_code for answer in answers} == {503}
                codes = Counter(answer.json()["code"] for answer in answers)
                assert codes == {"took_too_long": 36, "overloaded": 4}
                assert all("Retry-After" in answer.headers for answer in answers)

                async def nothing_waits() -> bool:
                    return not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

                await until(nothing_waits)
            assert await search(http, "hello") == ["hello"]
    finally:
        await admin.close()


async def test_what_is_said_at_any_door_can_be_found(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=DEADLINE), running_gateway(bus, store) as http:
        prefer = {"Prefer": "respond-async"}
        await http.post("/api/chat", json={"message": "by post", "thread_id": "t"}, headers=prefer)
        await http.post("/api/threads/t/messages", json=[{"message": "by batch"}])
        assert await search(http, "by") == ["by batch", "by post"]
