"""Asking for another turn for what failed or was cancelled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID, uuid4

import httpx2
import pytest

from m3 import topology
from m3.bus import Bus, open_bus
from m3.events import Message, RetryAsked
from m3.store import Store
from services.recorder import recorder
from tests.support.client import socket
from tests.support.gateway import failure_of, passed_over, reply_to, running_gateway
from tests.support.pushing import record, running_pusher
from tests.support.until import DEADLINE


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def retry(http: httpx2.AsyncClient, message_id: UUID, **headers: str) -> httpx2.Response:
    return await http.post(f"/api/messages/{message_id}/retry", headers=headers)


@pytest.mark.parametrize("fate", ["failed", "cancelled"])
async def test_a_message_without_an_answer_waits_for_the_agent_again(
    bus: Bus, store: Store, fate: Literal["failed", "cancelled"]
) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as http,
        running_pusher(bus, store) as (address, _),
        socket(address, "t", events="all") as listener,
    ):
        await listener.next("connected")
        (message,) = await record(store, "hello")
        await store.record([failure_of(message) if fate == "failed" else passed_over(message, fate)])
        answer = await retry(http, message.message_id)
        assert answer.status_code == 202
        assert answer.json() == {
            "thread_id": "t",
            "message_id": str(message.message_id),
            "seq": 1,
            "fate": "pending",
            "reason": None,
            "place": None,
        }
        assert answer.headers["Location"] == f"/api/messages/{message.message_id}"
        told = await listener.next("fate")
        assert (told["fate"], told["number"]) == ("pending", 3)
        async with bus.consume(topology.AGENT_USER, prefetch=1) as agent, asyncio.timeout(DEADLINE):
            (knock,) = await agent.take(1)
            assert knock.key == "user.t"


async def test_what_waits_already_is_accepted_and_nothing_changes(memory: Bus, store: Store) -> None:
    """Nobody records here."""
    (message,) = await record(store, "hello")
    async with running_gateway(memory, store) as http:
        answer = await retry(http, message.message_id)
        assert (answer.status_code, answer.json()["fate"]) == (202, "pending")
        assert await store.head("t") == 1


async def test_only_what_failed_or_was_cancelled_can_be_retried(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        answered, expired = await record(store, "answered", "expired")
        reply = reply_to(answered)
        await store.record([reply, passed_over(expired, "expired")])
        for message_id in (answered.message_id, expired.message_id, reply.message_id):
            refused = await retry(http, message_id)
            assert (refused.status_code, refused.json()) == (
                409,
                {
                    "code": "not_retryable",
                    "message": "Only a message that failed or was cancelled can be retried.",
                },
            )


async def test_a_message_that_is_not_there_cannot_be_retried(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        refused = await retry(http, uuid4())
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_a_retry_that_is_not_recorded_in_time_is_told_so(memory: Bus, store: Store) -> None:
    (message,) = await record(store, "hello")
    await store.record([failure_of(message)])
    async with running_gateway(memory, store, record_timeout=0.05) as http:
        refused = await retry(http, message.message_id)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_recorded")
        assert refused.json()["message_id"] == str(message.message_id)


async def test_a_retry_whose_news_is_lost_is_found_in_the_table_and_not_taken_for_the_old_fate(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is looked into before and after anybody records it."""
    monkeypatch.setattr("m3.door.LOOK_INTERVAL", 0.01)
    (message,) = await record(store, "hello")
    await store.record([failure_of(message)])
    looks = 0

    class Counting(Store):
        async def message(self, message_id: UUID) -> Message | None:
            nonlocal looks
            looks += 1
            if looks == 3:
                await hand_in_retry()
            return await super().message(message_id)

    async def hand_in_retry() -> None:
        async with memory.consume(topology.RECORDER, prefetch=1) as unheard:
            (delivery,) = await unheard.take(1)
            await unheard.ack([delivery])
        await store.record([RetryAsked(thread_id="t", message_id=message.message_id, origin="nobody")])

    async with running_gateway(memory, Counting(store._pool, store._url)) as http:
        answer = await retry(http, message.message_id)
        assert (answer.status_code, answer.json()["fate"]) == (202, "pending")
    assert looks >= 3


async def test_many_who_ask_at_once_are_all_accepted(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), running_gateway(bus, store) as http:
        (message,) = await record(store, "hello")
        await store.record([failure_of(message)])
        answers = await asyncio.gather(*(retry(http, message.message_id) for _ in range(20)))
        assert {(answer.status_code, answer.json()["fate"]) for answer in answers} == {(202, "pending")}
        assert await store.head("t") == 3


async def test_a_page_of_another_host_may_not_ask(memory: Bus, store: Store) -> None:
    (message,) = await record(store, "hello")
    async with running_gateway(memory, store) as http:
        for origin in ("https://evil.example", "http://127.0.0.1:3000"):
            refused = await retry(http, message.message_id, Origin=origin)
            assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        own = str(http.base_url).rstrip("/")
        assert (await retry(http, message.message_id, Origin=own)).status_code == 202
