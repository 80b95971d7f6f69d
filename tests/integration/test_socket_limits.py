"""How many sockets a client may have, and what one may say at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from m3.bus import Bus, open_bus
from m3.store import Store
from services.recorder import recorder
from tests.support.client import Socket, socket
from tests.support.pushing import running_pusher
from tests.support.until import DEADLINE


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def opened_from(address: str, forwarded: str) -> int | str:
    """The type of the first frame, or the code with which the socket was closed at once."""
    url = f"{address.replace('http', 'ws', 1)}/ws/chat/t"
    async with connect(url, additional_headers={"X-Forwarded-For": forwarded}) as connection:
        try:
            return str((await Socket(connection).next())["type"])
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


async def test_a_client_address_may_have_so_many_sockets_and_no_more(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store, sockets_per_address=2) as (address, _), socket(address, "one") as one:
        await one.next("connected")
        async with socket(address, "two") as two:
            await two.next("connected")
            async with socket(address, "three") as three:
                assert await three.closed() == 4003
            assert await opened_from(address, "203.0.113.7") == 4003  # anybody can say so
        async with asyncio.timeout(DEADLINE):
            while await opened_from(address, "203.0.113.7") == 4003:  # until the pusher has noticed that two left
                pass


async def test_behind_a_trusted_proxy_the_forwarded_address_counts(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store, sockets_per_address=1, trusted_proxies="127.0.0.0/8") as (address, _),
        socket(address, "one") as one,
    ):
        await one.next("connected")
        assert await opened_from(address, "203.0.113.7") == "connected"
        assert await opened_from(address, "127.0.0.1, 127.0.0.2") == 4003


async def test_a_socket_may_say_many_messages_at_once_each_answered_in_order(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_pusher(bus, store) as (address, _),
        socket(address, "t", client="feed") as talker,
    ):
        await talker.next("connected")
        said = [{"message": str(number), "source": "api", "client_id": str(number)} for number in range(300)]
        await talker.send(json.dumps({"type": "messages", "messages": said}))
        recorded = [await talker.next("recorded") for _ in said]
        assert [(frame["client_id"], frame["seq"]) for frame in recorded] == [
            (str(number), number + 1) for number in range(300)
        ]
        await talker.send(json.dumps({"type": "messages", "messages": said[:2]}))  # once more
        assert [(await talker.next("recorded"))["seq"] for _ in range(2)] == [1, 2]
        assert await store.head("t") == 300


async def test_what_is_wrong_in_a_batch_is_told_by_its_place_and_harms_no_other(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store) as (address, _),
        socket(address, "t") as talker,
    ):
        await talker.next("connected")
        said: list[object] = [
            {"message": "one"},
            {"message": " ", "client_id": "blank"},
            "two",
            {"message": "x" * 20_000, "client_id": "long"},
            {"message": "three"},
        ]
        await talker.send(json.dumps({"type": "messages", "messages": said}))
        answers: list[dict[str, Any]] = []
        while len(answers) < len(said):
            frame = await talker.next()
            if frame["type"] in {"recorded", "error"}:
                answers.append(frame)
        told = [(frame.get("code"), frame.get("client_id"), frame.get("seq")) for frame in answers]
        assert told == [
            (None, None, 1),
            ("invalid_message", "blank", None),
            ("invalid_message", None, None),
            ("message_too_long", "long", None),
            (None, None, 2),
        ]
        assert answers[1]["message"].startswith("messages.1.message:")


async def test_however_much_a_socket_says_at_once_all_of_it_is_taken_in_order(memory: Bus, store: Store) -> None:
    batch = json.dumps({"type": "messages", "messages": [{"message": "x"}] * 500})
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store, record_timeout=DEADLINE) as (address, _),
        socket(address, "t") as talker,
    ):
        await talker.next("connected")
        for _ in range(10):
            await talker.send(batch)
        assert [(await talker.next("recorded"))["seq"] for _ in range(5_000)] == [*range(1, 5_001)]


@pytest.mark.parametrize("messages", [[], [{"message": "hi"}] * 501, "hi", None])
async def test_a_batch_that_is_none_is_told_and_the_socket_stays(memory: Bus, store: Store, messages: object) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as talker:
        await talker.next("connected")
        await talker.send(json.dumps({"type": "messages", "messages": messages}))
        assert (await talker.next())["code"] == "invalid_message"
        assert await talker.hears_nothing()
