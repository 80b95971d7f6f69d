"""What people call themselves in a room that asks nobody who they are."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from m3.bus import Bus
from m3.events import ANYONE
from m3.store import Store
from services.recorder import recorder
from tests.support.client import socket
from tests.support.gateway import running_gateway
from tests.support.pushing import running_pusher

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def room(memory_bus: Bus, store: Store) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A client of its gateway, and its pusher's address."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(recorder(memory_bus, store, grace=1))
        http = await stack.enter_async_context(running_gateway(memory_bus, store))
        address, _ = await stack.enter_async_context(running_pusher(memory_bus, store))
        yield http, address


async def authors(store: Store) -> list[str | None]:
    return [message.author for message in await store.latest("t", 10)]


async def test_a_message_is_of_whom_its_sender_calls_itself_by_whatever_door(
    room: tuple[httpx2.AsyncClient, str], store: Store
) -> None:
    http, address = room
    said = {"message": "hello", "thread_id": "t"}
    async with socket(address, "t", client="小明") as talker, socket(address, "t", events="all") as listener:
        assert (await listener.next("presence"))["clients"] == ["小明"]
        await talker.say("你好")
        assert (await listener.next("new_message"))["author"] == "小明"
        await http.post("/api/chat", json=said, headers=ASYNC | {"M3-Client": "ann"})
        assert (await listener.next("new_message"))["author"] == "ann"
        await http.post("/api/threads/t/messages", json=[{"message": "first!"}], headers={"M3-Client": "feed"})
        assert (await listener.next("new_message"))["author"] == "feed"
    assert await authors(store) == ["小明", "ann", "feed"]
    shown = (await http.get("/api/threads/t/history")).json()["messages"]
    assert [message["author"] for message in shown] == ["小明", "ann", "feed"]


async def test_who_gives_no_name_is_nobody(room: tuple[httpx2.AsyncClient, str], store: Store) -> None:
    http, address = room
    said = {"message": "hello", "thread_id": "t"}
    async with socket(address, "t") as talker, socket(address, "t", client=ANYONE) as other:
        await talker.say("hello")
        assert "author" not in await other.next("new_message")
        await other.say("hello")
    await http.post("/api/chat", json=said, headers=ASYNC)
    await http.post("/api/threads/t/messages", json=[{"message": "first!"}])
    assert await authors(store) == [None] * 4


async def test_a_key_stands_for_one_message_of_one_name(room: tuple[httpx2.AsyncClient, str], store: Store) -> None:
    http, address = room
    said, key = {"message": "hello", "thread_id": "t"}, ASYNC | {"Idempotency-Key": "1"}
    for _ in range(2):
        for name in ({}, {"M3-Client": "ann"}, {"M3-Client": "bob"}):
            assert (await http.post("/api/chat", json=said, headers=key | name)).status_code == 202
        for client in ("ann", "安"):
            async with socket(address, "t", client=client) as talker:
                await talker.say("hello", client_id="1")
    assert await authors(store) == [None, "ann", "bob", "安"]
    reused = await http.post("/api/chat", json=said | {"message": "another"}, headers=key | {"M3-Client": "ann"})
    assert reused.json()["code"] == "key_reused"


@pytest.mark.parametrize("name", ["%20", "%E3%85%A4", "a%0Ab", "a%E2%80%AEb", "%00", "x" * 129])
async def test_a_name_that_cannot_be_read_is_refused(room: tuple[httpx2.AsyncClient, str], name: str) -> None:
    _, address = room
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t?client={name}"):
            pass
    assert refused.value.response.status_code == 422
    assert b"client: " in bytes(refused.value.response.body)
